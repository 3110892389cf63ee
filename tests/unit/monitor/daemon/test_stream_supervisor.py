"""A failed stream starts again under a new owner, with a back-off; the supervisor itself raises nothing."""

import threading
from collections.abc import Callable, Iterator

import pytest

from config.errors import BrokerUnavailable, ConfigError, TopicMissing
from monitor.daemon.stream_supervisor import StreamSupervisor, backoff_s, is_well
from monitor.daemon.thread_progress import STUCK_AFTER_S, ControlRounds, StuckThread, find_stuck_threads
from monitor.pipeline.outages import Outage, Outages
from monitor.pipeline.waiting import WaitingPartition

NO_TOPIC = ConfigError("there is no topic 'orders'")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Runner:
    """A run that takes `run_s` seconds of the clock and ends with an error or in order."""

    def __init__(self, clock: Clock, failure: BaseException | None, run_s: float = 0.0) -> None:
        self.failure: BaseException | None = None
        self.phase = "running"
        self.outages = Outages(clock)
        self.stopped = threading.Event()
        self.stuck: tuple[StuckThread, ...] = ()
        self._clock, self._planned, self._run_s = clock, failure, run_s

    @property
    def current_outages(self) -> tuple[Outage, ...]:
        return self.outages.current()

    @property
    def waiting_partitions(self) -> tuple[WaitingPartition, ...]:
        return ()

    @property
    def stuck_threads(self) -> tuple[StuckThread, ...]:
        return self.stuck

    def lag_events(self) -> int | None:
        return 7

    def run(self) -> None:
        self._clock.now_s += self._run_s
        self.failure = self._planned

    def stop(self) -> None:
        self.stopped.set()

    def stuck_s(self) -> float:
        return 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The pauses between runs, which take no time."""
    taken: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda _event, timeout=None: taken.append(timeout or 0.0) or False)
    yield taken


def supervise(
    clock: Clock, runs: list[Callable[[], Runner]], *, restarts: bool = True
) -> tuple[StreamSupervisor, list[str]]:
    owners: list[str] = []

    def make(owner: str) -> Runner:
        owners.append(owner)
        return runs[len(owners) - 1]()

    return StreamSupervisor("orders", make, owner="host:1", restarts=restarts, clock=clock), owners


def test_a_failed_stream_starts_again_under_a_new_owner_until_it_ends(clock: Clock, pauses: list[float]) -> None:
    runs = [lambda: Runner(clock, NO_TOPIC), lambda: Runner(clock, RuntimeError("?")), lambda: Runner(clock, None)]
    stream, owners = supervise(clock, runs)
    stream.run()
    assert owners == ["host:1:1", "host:1:2", "host:1:3"]
    assert pauses == [1.0, 2.0]
    assert (stream.failure, stream.can_go_on) == (None, False)
    assert stream.condition().has_recovered


def test_an_error_while_a_stream_is_set_up_stays_in_it(clock: Clock) -> None:
    def fail() -> Runner:
        raise KeyError("model")

    stream, _ = supervise(clock, [fail, lambda: Runner(clock, None)])
    stream.run()
    assert stream.failure is None


def test_standard_input_is_not_read_again(clock: Clock) -> None:
    stream, owners = supervise(clock, [lambda: Runner(clock, NO_TOPIC)], restarts=False)
    stream.run()
    assert len(owners) == 1
    assert (stream.failure, stream.can_go_on) == (NO_TOPIC, False)
    condition = stream.condition()
    assert (condition.state, condition.reason, condition.failures) == ("stopped", "there is no topic 'orders'", 1)


def test_a_stop_ends_the_back_off_and_the_present_run(clock: Clock) -> None:
    runner = Runner(clock, None)
    stream, owners = supervise(clock, [lambda: runner])
    runner.run = stream.stop  # type: ignore[method-assign]
    stream.run()
    assert runner.stopped.is_set()
    assert len(owners) == 1


def test_the_failure_of_a_run_that_was_well_counts_as_the_first(clock: Clock, pauses: list[float]) -> None:
    lengths = [0.0, 0.0, 31.0, 0.0]
    runs: list[Callable[[], Runner]] = [lambda s=s: Runner(clock, NO_TOPIC, s) for s in lengths]  # type: ignore[misc]
    stream, _ = supervise(clock, [*runs, lambda: Runner(clock, None)])
    stream.run()
    assert pauses == [1.0, 2.0, 1.0, 2.0]


def test_the_back_off_is_at_most_a_minute() -> None:
    assert [backoff_s(n) for n in (1, 2, 3, 6, 7, 10_000)] == [1.0, 2.0, 4.0, 32.0, 60.0, 60.0]


@pytest.mark.parametrize(
    ("run_s", "failed_s", "well"), [(29, 0, False), (30, 0, True), (30, 16, False), (32, 16, True)]
)
def test_a_run_is_well_when_it_is_longer_than_twice_the_runs_that_failed(
    run_s: float, failed_s: float, *, well: bool
) -> None:
    assert is_well(run_s, failed_s) is well


def test_a_stream_without_an_answer_waits_for_kafka_and_one_without_its_topic_is_stopped(clock: Clock) -> None:
    runner = Runner(clock, None)
    stream, _ = supervise(clock, [lambda: runner])
    stream.run()
    runner.outages.update(BrokerUnavailable("Kafka at b:1 does not answer"))
    clock.now_s += 5
    condition = stream.condition()
    assert (condition.state, condition.since_s, condition.reason) == (
        "waiting_for_kafka",
        100.0,
        "Kafka at b:1 does not answer",
    )
    runner.outages.update(TopicMissing("there is no topic 'orders'"))
    clock.now_s += 9
    assert stream.condition().state == "waiting_for_kafka"
    clock.now_s += 1
    condition = stream.condition()
    assert (condition.state, condition.reason, condition.failed_since_s) == (
        "stopped",
        "there is no topic 'orders'",
        105.0,
    )
    runner.outages.update(None)
    assert stream.condition().state == "running"


def test_a_stuck_thread_is_the_state_of_a_running_stream_until_it_moves(clock: Clock) -> None:
    runner = Runner(clock, None)
    stream, _ = supervise(clock, [lambda: runner])
    stream.run()
    rounds_s = {"polling": clock.now_s, "control": clock.now_s - STUCK_AFTER_S - 1}
    runner.stuck = find_stuck_threads(rounds_s, clock.now_s)
    found = stream.condition()
    assert (found.state, found.since_s, found.lag_events) == ("stuck", rounds_s["control"], 7)
    assert found.reason == "the control thread has completed no round since then"
    runner.stuck = find_stuck_threads(rounds_s | {"control": clock.now_s - STUCK_AFTER_S}, clock.now_s)
    assert stream.condition().state == "running"


def test_an_outage_is_named_before_the_thread_that_waits_for_it(clock: Clock) -> None:
    runner = Runner(clock, None)
    stream, _ = supervise(clock, [lambda: runner])
    stream.run()
    runner.outages.update(BrokerUnavailable("Kafka at b:1 does not answer"))
    runner.stuck = find_stuck_threads({"polling": clock.now_s - STUCK_AFTER_S - 1}, clock.now_s)
    assert stream.condition().state == "waiting_for_kafka"


def test_a_control_step_that_fails_again_and_again_is_no_progress_but_a_step_of_a_long_round_is(clock: Clock) -> None:
    rounds = ControlRounds(lambda: True, clock)
    started_s = clock.now_s
    for _ in range(3):
        clock.now_s += 1
        rounds.start()
        rounds.renew()  # the step after it fails
    assert rounds.progressed_s == started_s
    rounds.renew()
    assert rounds.progressed_s == clock.now_s
    clock.now_s += 1
    rounds.complete()
    assert rounds.progressed_s == clock.now_s
