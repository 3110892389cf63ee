"""The supervision of one stream: an error stays in the stream, which starts again after a back-off."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from config.errors import OutriderError
from monitor.daemon.thread_progress import StuckThread
from monitor.pipeline.outages import TOPIC, Outage
from monitor.pipeline.waiting import WaitingPartition

log = logging.getLogger(__name__)

_FIRST_BACKOFF_S = 1.0
_MAX_BACKOFF_S = 60.0
_MIN_WELL_S = 30.0
_MISSING_TOPIC_AFTER_S = 10.0
"""A topic that is deleted and created again is missing for less than this."""

RUNNING_PHASES = frozenset({"running", "warming_up"})


class SupervisedRunner(Protocol):
    """One run of a stream: `monitor.daemon.stream_runner.StreamRunner`."""

    @property
    def failure(self) -> BaseException | None:
        """Return the error that ended the run, if any."""
        ...

    @property
    def phase(self) -> str:
        """Return the present work of the stream, as in the view `health`."""
        ...

    @property
    def current_outages(self) -> tuple[Outage, ...]:
        """Return the present outages of the source."""
        ...

    @property
    def waiting_partitions(self) -> tuple[WaitingPartition, ...]:
        """Return the partitions that have records and have not moved for some time."""
        ...

    @property
    def stuck_threads(self) -> tuple[StuckThread, ...]:
        """Return the threads that have completed no round for some time."""
        ...

    def lag_events(self) -> int | None:
        """Return the offsets that are not stored yet; None if it is unknown."""
        ...

    def run(self) -> None:
        """Run the stream until it ends, fails or is stopped."""
        ...

    def stop(self) -> None:
        """Request the stop."""
        ...

    def stuck_s(self) -> float:
        """Return the seconds that records have waited without a commit."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCondition:
    """The condition of a stream in this process; times are on the monotonic clock.

    Attributes:
        state: The state, as in the view `health`.
        since_s: Time since which the state holds.
        reason: The reason in words; None if there is nothing to explain.
        outages: The present outages of the source.
        failed_since_s: Time of the first failure since the stream was last well; None without one.
        failures: The number of failures since then.
        has_recovered: Whether the stream has run long enough to be well.
        waiting: The partitions that have records and have not moved for some time.
        stuck: The threads that have completed no round for some time; the state is then `stuck`.
        lag_events: The offsets that are not stored yet, over the partitions of this process; None if it is unknown.
        waiting_s: Seconds that records have waited without a commit; 0 without waiting records.
    """

    state: str
    since_s: float
    reason: str | None = None
    outages: tuple[Outage, ...] = ()
    failed_since_s: float | None = None
    failures: int = 0
    has_recovered: bool = False
    waiting: tuple[WaitingPartition, ...] = ()
    stuck: tuple[StuckThread, ...] = ()
    lag_events: int | None = None
    waiting_s: float = 0.0

    @property
    def is_stopped(self) -> bool:
        """Return whether the stream cannot go on without an action of somebody."""
        return self.state == "stopped"


def is_well(run_s: float, longest_failed_run_s: float) -> bool:
    """Return whether a run has lasted long enough that the next failure counts as the first.

    A stream that fails at the same event after an hour of reading is not well for the first two hours of a run.
    """
    return run_s >= max(_MIN_WELL_S, 2 * longest_failed_run_s)


def backoff_s(failures: int) -> float:
    """Return the pause before the next run, in seconds, after a number of failures in a row (at least 1)."""
    return min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 10))


class StreamSupervisor:
    """Runs a stream until it ends or a stop is requested; `run` is for one thread, all else for any.

    Args:
        name: Name of the stream.
        make_runner: Makes a runner of the stream, for an owner.
        owner: Name of this process; each run of the stream is an owner of its own.
        restarts: Whether the stream starts again after a failure. Standard input can be read only once.
        clock: The monotonic clock, in seconds.

    Attributes:
        failure: The last error, until the stream has ended in order.
        failed_while_stopping: Whether the last run failed after the stop was requested.
    """

    def __init__(
        self,
        name: str,
        make_runner: Callable[[str], SupervisedRunner],
        *,
        owner: str,
        restarts: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self.failed_while_stopping = False
        self._owner = owner
        self._make_runner = make_runner
        self._process = owner
        self._restarts = restarts
        self._clock = clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._runner: SupervisedRunner | None = None
        self._has_ended = False
        self._changed_s = clock()
        self._runs = 0
        self._failures = 0
        self._failed_since_s: float | None = None
        self._longest_failed_run_s = 0.0

    @property
    def can_go_on(self) -> bool:
        """Return whether the stream runs, or is about to run for the first time."""
        with self._lock:
            return not self._has_ended and (self._runner is not None or self._runs == 0)

    def current_owner(self) -> str:
        """Return the owner of the present or last run; it holds the leases of the stream."""
        return self._owner

    def stop(self) -> None:
        """Request the stop; decoded records are committed first."""
        with self._lock:
            self._stop.set()
            runner = self._runner
        if runner is not None:
            runner.stop()

    def stuck_s(self) -> float:
        """Return the seconds that records have waited without a commit; 0 without waiting records."""
        with self._lock:
            runner = self._runner
        return 0.0 if runner is None else runner.stuck_s()

    def run(self) -> None:
        """Run the stream; after a failure, start it again under a new owner once the back-off has passed."""
        while not self._stop.is_set():
            failure = self._run_once()
            if failure is None:
                self.failure = None
                break
            pause_s = self._note_failure(failure)
            if pause_s is None:
                break
            self._stop.wait(pause_s)
        with self._lock:
            self._has_ended = True

    def _run_once(self) -> BaseException | None:
        """Run the stream once; return the error that ended it, or None if it has ended or was stopped."""
        with self._lock:
            self._runs += 1
            self._owner = f"{self._process}:{self._runs}"
        try:
            runner = self._make_runner(self._owner)
            with self._lock:
                self._runner = runner
                self._changed_s = self._clock()
            if self._stop.is_set():
                return None
            runner.run()
        except Exception as error:  # noqa: BLE001 - a stream that cannot be set up must not end the other streams
            return error
        return runner.failure

    def _note_failure(self, failure: BaseException) -> float | None:
        """Record and log a failure; return the pause before the next run, None if there is none."""
        now_s = self._clock()
        with self._lock:
            run_s = now_s - self._changed_s
            if is_well(run_s, self._longest_failed_run_s):
                self._failures, self._failed_since_s, self._longest_failed_run_s = 0, None, 0.0
            self._failures += 1
            self._failed_since_s = now_s if self._failed_since_s is None else self._failed_since_s
            self._longest_failed_run_s = max(self._longest_failed_run_s, run_s)
            self._runner, self._changed_s, self.failure = None, now_s, failure
            failures = self._failures
        if self._stop.is_set():
            self.failed_while_stopping = True
            return None
        pause_s = backoff_s(failures) if self._restarts else None
        log.error(
            "Stream %s has stopped: %s; %s.",
            self.name,
            describe_failure(failure),
            "it cannot start again" if pause_s is None else f"it starts again in {pause_s:.0f} s",
            exc_info=None if isinstance(failure, OutriderError) else failure,
            extra={"action": "stopped", "stream": self.name, "failures": failures},
        )
        return pause_s

    def condition(self) -> StreamCondition:
        """Return the present condition of the stream."""
        now_s = self._clock()
        with self._lock:
            runner, is_over = self._runner, self._has_ended
            is_long = is_well(now_s - self._changed_s, self._longest_failed_run_s)
            condition = StreamCondition(
                state="stopped" if self._runs else "starting",
                since_s=self._changed_s,
                reason=None if self.failure is None else describe_failure(self.failure),
                failed_since_s=self._failed_since_s,
                failures=self._failures,
            )
        if runner is None:
            return condition
        condition = replace(
            condition,
            waiting=runner.waiting_partitions,
            stuck=runner.stuck_threads,
            lag_events=runner.lag_events(),
            waiting_s=runner.stuck_s(),
        )
        outages, phase = runner.current_outages, runner.phase
        if outages:
            return _add_outages(condition, outages, now_s)
        if condition.stuck:
            longest = condition.stuck[0]
            return replace(condition, state="stuck", since_s=longest.since_s, reason=longest.reason)
        if is_over or (is_long and phase in RUNNING_PHASES):
            return replace(condition, state=phase, reason=None, failed_since_s=None, failures=0, has_recovered=True)
        return replace(condition, state=phase)


def _add_outages(condition: StreamCondition, outages: tuple[Outage, ...], now_s: float) -> StreamCondition:
    """Return the condition of a stream that waits for Kafka, or that has lost its topic."""
    outage = outages[0]
    waiting = replace(
        condition, state="waiting_for_kafka", since_s=outage.since_s, reason=outage.reason, outages=outages
    )
    if outage.component != TOPIC or now_s - outage.since_s < _MISSING_TOPIC_AFTER_S:
        return waiting
    since_s = outage.since_s if condition.failed_since_s is None else condition.failed_since_s
    return replace(waiting, state="stopped", failed_since_s=since_s)


def describe_failure(failure: BaseException) -> str:
    """Return an error as one line of words."""
    if isinstance(failure, OutriderError):
        return "; ".join(str(failure).splitlines())
    return f"unexpected {type(failure).__name__}: {' '.join(str(failure).split())}"
