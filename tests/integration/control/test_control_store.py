"""The control plane's transactions: once whoever and however often, and nothing lost between two of them."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from monitor.parts import Part, Scale, encode, summarise
from storage.calibration import CalibrationStore, NewThreshold
from storage.control import ControlStore
from storage.engine import Database
from storage.judgements import IncidentRow, Judgement, SealFacts, TransitionRow, WindowFacts, WindowRow
from storage.leases import Leases
from storage.ledger import (
    Commit,
    Committed,
    DeadLetterColumns,
    Ledger,
    NewSource,
    OutlierColumns,
    PartRow,
    ScoreColumns,
    Stale,
)
from storage.outbox import Outbox
from tests.integration.control.feeding import MINUTE, T0, TOPIC, count, open_stream, rows, seal, until

T = TypeVar("T")


class Source:
    """One claimed source that commits parts without scores."""

    def __init__(self, db: Database, stream_id: int, number: int = 0) -> None:
        self.ledger = Ledger(db)
        self.stream_id = stream_id
        source = next(each for each in self.ledger.sources(stream_id) if each.partition == number)
        claim = self.ledger.claim(source.source_id, "me")
        assert claim is not None
        self.claim = claim
        self.offset = claim.next_offset
        self.threshold_id = self.ledger.schedule(stream_id)[0].id

    def commit(
        self, *parts: PartRow, watermark_us: int | None = None, gap: str | None = None, ended: bool = False
    ) -> Committed | Stale:
        outcome = self.ledger.commit(
            Commit(
                stream_id=self.stream_id,
                source_id=self.claim.source_id,
                epoch=self.claim.epoch,
                begin=self.offset,
                end=self.offset + 1,
                end_cursor=None,
                watermark_us=watermark_us,
                assumed=self.ledger.control(self.stream_id),
                scores=ScoreColumns.empty(),
                outliers=OutlierColumns.empty(),
                dead=DeadLetterColumns.empty(),
                gap_reason=gap,
                parts=parts,
                ended=ended,
            )
        )
        assert isinstance(outcome, Committed | Stale)
        self.offset += isinstance(outcome, Committed)
        return outcome

    def part(self, window: int = 0, *, events: int = 1, late: int = 0, dead: int = 0) -> PartRow:
        """A part of the window that starts so many minutes after T0."""
        energies = np.full(events, 2.0, np.float32)
        part: Part = replace(
            summarise(energies, energies > 10, Scale(median=1.0, iqr=1.0)) if events else Part.counts_only(),
            late=late,
            dead=dead,
        )
        return PartRow(
            window_start_us=T0 + window * MINUTE,
            window_end_us=T0 + (window + 1) * MINUTE,
            threshold_id=self.threshold_id,
            events=events,
            outliers=0,
            late=late,
            dead=dead,
            payload=encode(part),
        )


def window_of(facts: WindowFacts) -> WindowRow:
    return WindowRow(
        window_start_us=facts.window_start_us,
        window_end_us=facts.window_end_us,
        threshold_id=facts.parts[0].threshold_id,
        events=sum(part.events for part in facts.parts),
        outliers=0,
        late=sum(part.late for part in facts.parts),
        dead=sum(part.dead for part in facts.parts),
        judged=True,
    )


def opened(facts: WindowFacts, kind: str = "spike", channels: tuple[str, ...] = ("log",)) -> IncidentRow:
    start, end = facts.window_start_us, facts.window_end_us
    told = TransitionRow(
        transition="opened", window_start_us=start, at_us=end, summary="a spike", details={"n": 1}, channels=channels
    )
    return IncidentRow(
        id=None,
        kind=kind,
        severity="warning",
        status="open",
        window_start_us=start,
        opened_at_us=end,
        last_told_us=end,
        clean_windows=0,
        windows_fired=1,
        summary="a spike",
        details={},
        transition=told,
    )


def calm(facts: WindowFacts) -> Judgement:
    return Judgement(window=window_of(facts))


def spike(facts: WindowFacts) -> Judgement:
    return Judgement(window=window_of(facts), incidents=[opened(facts)])


def together(*calls: Callable[[], T]) -> list[T]:
    """Call all at once, each in a thread of its own."""
    gate = threading.Barrier(len(calls))

    def call(each: Callable[[], T]) -> T:
        gate.wait(10)
        return each()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(call, calls))


@pytest.fixture
def stream_id(db: Database) -> int:
    return open_stream(db, partitions=3)


@pytest.fixture
def source(db: Database, stream_id: int) -> Source:
    return Source(db, stream_id)


@pytest.fixture
def control(db: Database) -> ControlStore:
    return ControlStore(db)


def threshold(model_id: int, tick_us: int, value: float = 5.0) -> NewThreshold:
    return NewThreshold(
        model_id=model_id,
        computed_at_us=tick_us,
        valid_from_us=tick_us + 11 * MINUTE,
        percentile=99.0,
        threshold=value,
        lower=value,
        upper=value,
        n=100,
        method="percentile",
        details={},
    )


def test_a_window_is_due_when_it_is_sealed_and_has_parts(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part(0), source.part(1), source.part(2))
    assert control.due_windows(stream_id) == []
    seal(db, stream_id, T0 + 2 * MINUTE)
    assert control.due_windows(stream_id) == [T0, T0 + MINUTE]
    assert control.due_windows(stream_id, limit=1) == [T0]


def test_judging_stores_the_window_and_takes_its_parts_away(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part(events=3), source.part(1))
    source.commit(source.part(events=2, late=4, dead=1))
    seal(db, stream_id, T0 + MINUTE)
    assert control.judge(stream_id, "payments", T0, calm)
    assert rows(db, "SELECT window_start_us, events, late, dead FROM windows") == [(T0, 5, 4, 1)]
    assert rows(db, "SELECT window_start_us FROM window_parts") == [(T0 + MINUTE,)]


def test_judging_a_window_again_stores_nothing(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    assert control.judge(stream_id, "payments", T0, spike)
    assert not control.judge(stream_id, "payments", T0, spike)
    assert [count(db, table) for table in ("windows", "incidents", "transitions", "notifications")] == [1, 1, 1, 1]


def test_many_holders_that_judge_one_window_at_once_store_it_once(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    stored = together(*[lambda: control.judge(stream_id, "payments", T0, spike)] * 4)
    assert sorted(stored) == [False, False, False, True]
    assert [count(db, table) for table in ("windows", "incidents", "transitions", "notifications")] == [1, 1, 1, 1]


def test_a_decision_that_fails_leaves_the_parts(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)

    def fail(facts: WindowFacts) -> Judgement:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        control.judge(stream_id, "payments", T0, fail)
    assert (count(db, "windows"), count(db, "window_parts")) == (0, 1)


def test_what_comes_late_into_a_judged_window_is_added_once(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part(events=3, late=1))
    seal(db, stream_id, T0 + MINUTE)
    control.judge(stream_id, "payments", T0, spike)
    source.commit(source.part(events=0, late=5, dead=2))
    assert control.due_windows(stream_id) == [T0]
    stored = together(*[lambda: control.judge(stream_id, "payments", T0, spike)] * 3)
    assert sorted(stored) == [False, False, True]
    assert rows(db, "SELECT events, late, dead FROM windows") == [(3, 6, 2)]
    assert count(db, "incidents") == 1
    assert control.due_windows(stream_id) == []


def test_events_that_come_into_a_judged_window_are_a_fault_that_is_named(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    control.judge(stream_id, "payments", T0, calm)
    seal(db, stream_id, T0)  # nothing of ours moves it back
    source.commit(source.part())
    with pytest.raises(RuntimeError, match="was judged before all its events were there"):
        control.judge(stream_id, "payments", T0, calm)
    assert count(db, "window_parts") == 1


def test_a_part_that_arrives_while_its_window_is_judged_is_not_lost(
    postgres_url: str,
) -> None:
    with Database(postgres_url) as db:
        db.upgrade()
        stream_id = open_stream(db)
        source, control = Source(db, stream_id), ControlStore(db)
        source.commit(source.part(events=3))
        seal(db, stream_id, T0 + MINUTE)

        def decide(facts: WindowFacts) -> Judgement:
            assert isinstance(source.commit(source.part(events=0, late=7)), Committed)
            return calm(facts)

        assert control.judge(stream_id, "payments", T0, decide)
        assert rows(db, "SELECT events, late FROM windows") == [(3, 0)]
        assert control.due_windows(stream_id) == [T0]
        assert control.judge(stream_id, "payments", T0, calm)
        assert rows(db, "SELECT events, late FROM windows") == [(3, 7)]


def test_a_gap_belongs_to_the_first_window_that_ends_after_it_and_to_one_incident(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part(0), watermark_us=T0 + 30)
    source.commit(source.part(1), watermark_us=T0 + MINUTE + 30)
    source.commit(watermark_us=T0 + MINUTE + 30, gap="retention")
    seal(db, stream_id, T0 + 2 * MINUTE)
    seen = []

    def decide(facts: WindowFacts) -> Judgement:
        seen.append([gap.reason for gap in facts.gaps])
        incidents = [opened(facts, "gap")] if facts.gaps else []
        return Judgement(window=window_of(facts), incidents=incidents, gap_ids=[gap.id for gap in facts.gaps])

    for start in control.due_windows(stream_id):
        control.judge(stream_id, "payments", start, decide)
    assert seen == [[], ["retention"]]
    assert rows(db, "SELECT g.incident_id = i.id FROM gaps g, incidents i") in ([(1,)], [(True,)])


def test_a_second_open_incident_of_a_kind_is_refused_by_the_table(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part(0), source.part(1))
    seal(db, stream_id, T0 + 2 * MINUTE)
    control.judge(stream_id, "payments", T0, spike)
    with pytest.raises(Exception, match="(?i)unique|uq_incidents_open"):
        control.judge(stream_id, "payments", T0 + MINUTE, spike)
    assert (count(db, "windows"), count(db, "incidents")) == (1, 1)


def test_a_seal_sees_every_source_and_moves_only_for_one_of_two(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part(3), watermark_us=T0 + 4 * MINUTE)
    Source(db, stream_id, 1).commit(ended=True)
    seen: list[SealFacts] = []

    def decide(facts: SealFacts) -> int | None:
        seen.append(facts)
        return T0 if facts.sealed_until_us is None else None

    assert sorted(together(*[lambda: control.seal(stream_id, decide)] * 3), key=str) == sorted(
        [T0, None, None], key=str
    )
    assert [(each.watermark_us, each.idle, each.ended) for each in seen[0].sources] == [
        (T0 + 4 * MINUTE, False, False),
        (None, True, True),
        (None, False, False),
    ]
    assert (seen[0].first_part_end_us, seen[0].last_part_end_us) == (T0 + 4 * MINUTE, T0 + 4 * MINUTE)


def test_sealed_windows_that_nobody_has_judged_still_call_for_their_tick(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part(0), source.part(7))
    seal(db, stream_id, T0 + 5 * MINUTE)
    seen: list[SealFacts] = []
    control.seal(stream_id, lambda facts: seen.append(facts))  # type: ignore[func-returns-value]
    assert seen[0].first_part_end_us == T0 + MINUTE
    assert CalibrationStore(db).tick_facts(stream_id).first_part_end_us == T0 + MINUTE
    control.judge(stream_id, "payments", T0, calm)
    source.commit(source.part(0, events=0, late=1), source.part(0, events=0, dead=1))
    control.seal(stream_id, lambda facts: seen.append(facts))  # type: ignore[func-returns-value]
    assert (seen[1].first_part_end_us, seen[1].last_judged_end_us) == (T0 + 8 * MINUTE, T0 + MINUTE)


def test_no_commit_slips_events_into_a_window_that_is_sealed_at_the_same_time(db: Database) -> None:
    stream_id = open_stream(db, partitions=3)
    control, n = ControlStore(db), 60
    done = threading.Event()

    def feed(number: int) -> None:
        source = Source(db, stream_id, number)
        for i in range(n):
            window = i // 6
            if isinstance(source.commit(source.part(window), watermark_us=T0 + window * MINUTE), Stale):
                assert isinstance(source.commit(source.part(window, events=0, late=1)), Committed)

    def seal_and_judge() -> None:
        # Seals one window ahead of the slowest source, to make it come too late now and then.
        def decide(facts: SealFacts) -> int | None:
            known = [source.watermark_us for source in facts.sources if source.watermark_us is not None]
            target = min(known) + MINUTE if len(known) == 3 else None
            moves = target is not None and (facts.sealed_until_us is None or target > facts.sealed_until_us)
            return target if moves else None

        while not done.is_set():
            control.seal(stream_id, decide)
            for start in control.due_windows(stream_id):
                control.judge(stream_id, "payments", start, calm)

    holders = [threading.Thread(target=seal_and_judge) for _ in range(2)]
    for holder in holders:
        holder.start()
    try:
        together(*(lambda number=number: feed(number) for number in range(3)))
    finally:
        done.set()
        for holder in holders:
            holder.join()
    seal(db, stream_id, T0 + 100 * MINUTE)
    for start in control.due_windows(stream_id):
        control.judge(stream_id, "payments", start, calm)
    assert [int(str(cell)) for cell in rows(db, "SELECT sum(events + late), count(*) FROM windows")[0]] == [3 * n, 10]
    assert count(db, "window_parts") == 0


def test_a_tick_is_stored_once_by_whoever_comes_first(db: Database, stream_id: int) -> None:
    store = CalibrationStore(db)
    newest = store.newest(stream_id)
    assert newest is not None

    def tick(value: float) -> bool:
        row = threshold(newest.model_id, T0, value)
        return store.tick(stream_id, last_tick_us=None, tick_us=T0, threshold=row, calibration=None)

    assert sorted(together(lambda: tick(1.0), lambda: tick(2.0), lambda: tick(3.0))) == [False, False, True]
    assert count(db, "thresholds") == 2
    assert store.tick_facts(stream_id).last_tick_us == T0


def test_a_tick_that_was_computed_before_another_one_is_refused(db: Database, stream_id: int) -> None:
    store = CalibrationStore(db)
    newest = store.newest(stream_id)
    assert newest is not None
    first = store.tick(
        stream_id, last_tick_us=None, tick_us=T0, threshold=threshold(newest.model_id, T0), calibration=None
    )
    stale = store.tick(
        stream_id,
        last_tick_us=None,
        tick_us=T0 + MINUTE,
        threshold=threshold(newest.model_id, T0 + MINUTE),
        calibration=None,
    )
    assert (first, stale) == (True, False)
    assert store.tick_facts(stream_id).last_tick_us == T0


def test_a_stream_has_ended_when_each_of_its_sources_has(db: Database, control: ControlStore) -> None:
    stream_id = open_stream(db, partitions=2)
    Source(db, stream_id, 0).commit(ended=True)
    assert not control.all_ended(stream_id)
    Source(db, stream_id, 1).commit(ended=True)
    assert control.all_ended(stream_id)
    source_id = Ledger(db).sources(stream_id)[0].source_id
    Ledger(db).claim(source_id, "another")
    assert not control.all_ended(stream_id)


def test_a_log_that_was_replaced_no_longer_counts_for_the_seal(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(watermark_us=T0)
    Ledger(db).register(stream_id, [NewSource(topic=TOPIC, partition=0, identity="another log", next_offset=0)])
    seen: list[SealFacts] = []
    control.seal(stream_id, lambda facts: seen.append(facts))  # type: ignore[func-returns-value]
    assert [each.watermark_us for each in seen[0].sources] == [None, None, None]


def test_a_lease_has_one_holder_until_it_is_released(db: Database) -> None:
    leases = Leases(db)
    assert leases.acquire("control:a", "me", 60)
    assert leases.acquire("control:a", "me", 60)
    assert not leases.acquire("control:a", "you", 60)
    assert leases.acquire("control:b", "you", 60)
    leases.release("control:a", "you")  # not yours
    assert not leases.acquire("control:a", "you", 60)
    leases.release("control:a", "me")
    assert leases.acquire("control:a", "you", 60)


def test_of_many_that_want_a_new_lease_one_gets_it(db: Database) -> None:
    leases = Leases(db)
    held = together(*(lambda n=n: leases.acquire("control:a", f"holder {n}", 60) for n in range(5)))
    assert sorted(held) == [False, False, False, False, True]


def test_a_lease_that_is_not_renewed_is_taken_over_and_cannot_be_renewed_after(db: Database) -> None:
    leases = Leases(db)
    assert leases.acquire("control:a", "frozen", 0.2)
    until(lambda: leases.acquire("control:a", "you", 60))
    assert not leases.acquire("control:a", "frozen", 60)


def test_the_outbox_gives_what_is_pending_in_the_order_of_the_transitions(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part(0), source.part(1))
    seal(db, stream_id, T0 + 2 * MINUTE)

    def decide(facts: WindowFacts) -> Judgement:
        kinds = ("spike", "dead_letters") if facts.window_start_us == T0 else ("gap",)
        return Judgement(window=window_of(facts), incidents=[opened(facts, kind, ("ops", "log")) for kind in kinds])

    for start in control.due_windows(stream_id):
        control.judge(stream_id, "payments", start, decide)
    due = Outbox(db).due(("log", "ops"))
    assert [(each.kind, each.channel) for each in due] == [
        ("spike", "log"),
        ("spike", "ops"),
        ("dead_letters", "log"),
        ("dead_letters", "ops"),
        ("gap", "log"),
        ("gap", "ops"),
    ]
    assert len({each.id for each in due}) == 6
    assert (due[0].stream, due[0].transition, due[0].window_start_us, due[0].details) == (
        "payments",
        "opened",
        T0,
        {"n": 1},
    )
    Outbox(db).delivered(due[0].id)
    assert [each.id for each in Outbox(db).due(("log", "ops"), limit=2)] == [due[1].id, due[2].id]
    assert Outbox(db).pending() == 5


def test_the_id_of_a_message_is_that_of_its_transition_and_channel_in_every_database(
    db: Database, stream_id: int, source: Source, control: ControlStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    control.judge(stream_id, "payments", T0, spike)
    assert [each.id for each in Outbox(db).due(["log"])] == ["0400107b56e45eeef8d8b68cdaf35518"]
