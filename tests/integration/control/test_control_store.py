"""The transactions of the control plane: idempotent, safe with several holders, and without lost rows."""

import json
import threading
from dataclasses import replace

import pytest

from monitor.notify.payload import build_body
from storage.control.outbox import Outbox
from storage.control.records import Judgement, SealFacts, WindowFacts
from storage.control.thresholds import ThresholdStore
from storage.control.windows import WindowStore
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.database.tables import streams
from storage.ledger.commit import Committed, Stale
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource
from tests.integration.control.source_commits import (
    CommittingSource,
    judge_clean,
    judge_spike,
    judge_stored_window,
    judged_window_row,
    opened_incident,
    run_concurrently,
)
from tests.integration.control.worker_bench import MINUTE, T0, TOPIC, count_rows, fetch_rows, open_stream, seal


def test_a_window_is_due_when_it_is_sealed_and_has_parts(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part(0), source.part(1), source.part(2))
    assert control.due_windows(stream_id) == []
    seal(db, stream_id, T0 + 2 * MINUTE)
    assert control.due_windows(stream_id) == [T0, T0 + MINUTE]
    assert control.due_windows(stream_id, limit=1) == [T0]


def test_judging_stores_the_window_and_deletes_its_parts(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part(events=3), source.part(1))
    source.commit(source.part(events=2, late=4, dead=1))
    seal(db, stream_id, T0 + MINUTE)
    assert judge_stored_window(control, stream_id, T0, judge_clean)
    assert fetch_rows(db, "SELECT window_start_us, events, late, dead FROM windows") == [(T0, 5, 4, 1)]
    assert fetch_rows(db, "SELECT window_start_us FROM window_parts") == [(T0 + MINUTE,)]


def test_judging_a_window_again_stores_nothing(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    assert judge_stored_window(control, stream_id, T0, judge_spike)
    assert not judge_stored_window(control, stream_id, T0, judge_spike)
    assert [count_rows(db, table) for table in ("windows", "incidents", "transitions", "notifications")] == [1, 1, 1, 1]


def test_concurrent_holders_store_the_judgement_of_a_window_once(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    stored = run_concurrently(*[lambda: judge_stored_window(control, stream_id, T0, judge_spike)] * 4)
    assert sorted(stored) == [False, False, False, True]
    assert [count_rows(db, table) for table in ("windows", "incidents", "transitions", "notifications")] == [1, 1, 1, 1]


def test_a_judgement_of_changed_facts_is_not_stored(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part(0), source.part(1))
    seal(db, stream_id, T0 + 2 * MINUTE)
    early, late = control.read_window(stream_id, T0), control.read_window(stream_id, T0 + MINUTE)
    assert early is not None
    assert late is not None
    assert control.store_judgement(stream_id, "payments", early, judge_spike(early))
    assert not control.store_judgement(stream_id, "payments", late, judge_clean(late)), "the spike has been opened"
    assert not control.store_judgement(stream_id, "payments", early, judge_spike(early)), "its parts are gone"
    assert (count_rows(db, "windows"), count_rows(db, "window_parts")) == (1, 1)
    again = control.read_window(stream_id, T0 + MINUTE)
    assert again is not None
    assert control.store_judgement(stream_id, "payments", again, judge_clean(again))
    assert (count_rows(db, "windows"), count_rows(db, "window_parts")) == (2, 0)


def test_a_changed_judge_state_or_gap_invalidates_a_judgement(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part(), watermark_us=T0 + 30)
    seal(db, stream_id, T0 + MINUTE)
    facts = control.read_window(stream_id, T0)
    assert facts is not None
    with db.write() as conn:
        conn.execute(streams.update().where(streams.c.id == stream_id).values(judge_state='{"accepted": {}}'))
    assert not control.store_judgement(stream_id, "payments", facts, judge_clean(facts))
    facts = control.read_window(stream_id, T0)
    assert facts is not None
    source.commit(watermark_us=T0 + 30, gap="retention")
    assert not control.store_judgement(stream_id, "payments", facts, judge_clean(facts))
    assert judge_stored_window(control, stream_id, T0, judge_clean)


def test_late_counts_of_a_judged_window_are_added_once(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part(events=3, late=1))
    seal(db, stream_id, T0 + MINUTE)
    judge_stored_window(control, stream_id, T0, judge_spike)
    source.commit(source.part(events=0, late=5, dead=2))
    assert control.due_windows(stream_id) == [T0]
    stored = run_concurrently(*[lambda: judge_stored_window(control, stream_id, T0, judge_spike)] * 3)
    assert sorted(stored) == [False, False, True]
    assert fetch_rows(db, "SELECT events, late, dead FROM windows") == [(3, 6, 2)]
    assert count_rows(db, "incidents") == 1
    assert control.due_windows(stream_id) == []


def test_events_in_a_judged_window_raise_an_error(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)
    judge_stored_window(control, stream_id, T0, judge_clean)
    seal(db, stream_id, T0)  # the control plane never moves it back
    source.commit(source.part())
    with pytest.raises(RuntimeError, match="was judged before all its events were committed"):
        judge_stored_window(control, stream_id, T0, judge_clean)
    assert count_rows(db, "window_parts") == 1


def test_a_part_that_arrives_during_the_judgement_is_not_lost(
    postgres_url: str,
) -> None:
    with Database(postgres_url) as db:
        upgrade(db)
        stream_id = open_stream(db)
        source, control = CommittingSource(db, stream_id), WindowStore(db)
        source.commit(source.part(events=3))
        seal(db, stream_id, T0 + MINUTE)

        def decide(facts: WindowFacts) -> Judgement:
            assert isinstance(source.commit(source.part(events=0, late=7)), Committed)
            return judge_clean(facts)

        assert judge_stored_window(control, stream_id, T0, decide)
        assert fetch_rows(db, "SELECT events, late FROM windows") == [(3, 0)]
        assert control.due_windows(stream_id) == [T0]
        assert judge_stored_window(control, stream_id, T0, judge_clean)
        assert fetch_rows(db, "SELECT events, late FROM windows") == [(3, 7)]


def test_a_gap_belongs_to_the_first_window_that_ends_after_it(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part(0), watermark_us=T0 + 30)
    source.commit(source.part(1), watermark_us=T0 + MINUTE + 30)
    source.commit(watermark_us=T0 + MINUTE + 30, gap="retention")
    seal(db, stream_id, T0 + 2 * MINUTE)
    seen = []

    def decide(facts: WindowFacts) -> Judgement:
        seen.append([gap.reason for gap in facts.gaps])
        incidents = [opened_incident(facts, "gap")] if facts.gaps else []
        return Judgement(window=judged_window_row(facts), incidents=incidents, gap_ids=[gap.id for gap in facts.gaps])

    for start in control.due_windows(stream_id):
        judge_stored_window(control, stream_id, start, decide)
    assert seen == [[], ["retention"]]
    assert fetch_rows(db, "SELECT g.incident_id = i.id FROM gaps g, incidents i") in ([(1,)], [(True,)])


def test_the_table_rejects_a_second_open_incident_of_a_kind(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part(0), source.part(1))
    seal(db, stream_id, T0 + 2 * MINUTE)
    judge_stored_window(control, stream_id, T0, judge_spike)
    with pytest.raises(Exception, match=r"(?i)unique|uq_incidents_open"):
        judge_stored_window(control, stream_id, T0 + MINUTE, judge_spike)
    assert (count_rows(db, "windows"), count_rows(db, "incidents")) == (1, 1)


def test_the_seal_facts_have_every_source_and_one_of_many_seals_moves(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part(3), watermark_us=T0 + 4 * MINUTE)
    CommittingSource(db, stream_id, 1).commit(ended=True)
    seen: list[SealFacts] = []

    def decide(facts: SealFacts) -> int | None:
        seen.append(facts)
        return T0 if facts.sealed_until_us is None else None

    assert sorted(run_concurrently(*[lambda: control.seal(stream_id, decide)] * 3), key=str) == sorted(
        [T0, None, None], key=str
    )
    assert [(each.watermark_us, each.idle, each.ended) for each in seen[0].sources] == [
        (T0 + 4 * MINUTE, False, False),
        (None, True, True),
        (None, False, False),
    ]
    assert (seen[0].first_part_end_us, seen[0].last_part_end_us) == (T0 + 4 * MINUTE, T0 + 4 * MINUTE)


def test_a_seal_that_does_not_move_writes_nothing(db: Database, stream_id: int) -> None:
    with Database(db._url.render_as_string(hide_password=False), read_only=True) as reader:
        assert WindowStore(reader).seal(stream_id, lambda _: None) is None
        with pytest.raises(RuntimeError, match="read-only"):
            WindowStore(reader).seal(stream_id, lambda _: T0)


def test_sealed_windows_that_are_not_judged_still_need_their_tick(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part(0), source.part(7))
    seal(db, stream_id, T0 + 5 * MINUTE)
    seen: list[SealFacts] = []
    control.seal(stream_id, seen.append)  # type: ignore[func-returns-value]
    assert seen[0].first_part_end_us == T0 + MINUTE
    assert ThresholdStore(db).tick_facts(stream_id).first_part_end_us == T0 + MINUTE
    judge_stored_window(control, stream_id, T0, judge_clean)
    source.commit(source.part(0, events=0, late=1), source.part(0, events=0, dead=1))
    control.seal(stream_id, seen.append)  # type: ignore[func-returns-value]
    assert (seen[1].first_part_end_us, seen[1].last_judged_end_us) == (T0 + 8 * MINUTE, T0 + MINUTE)


def test_no_commit_adds_events_to_a_window_that_is_sealed_at_the_same_time(db: Database) -> None:
    stream_id = open_stream(db, partitions=3)
    control, n = WindowStore(db), 60
    done = threading.Event()

    def feed(number: int) -> None:
        source = CommittingSource(db, stream_id, number)
        for i in range(n):
            window = i // 6
            if isinstance(source.commit(source.part(window), watermark_us=T0 + window * MINUTE), Stale):
                assert isinstance(source.commit(source.part(window, events=0, late=1)), Committed)

    def seal_and_judge() -> None:
        # Seals one window ahead of the slowest source, so that some of its commits are late.
        def decide(facts: SealFacts) -> int | None:
            watermarks = [source.watermark_us for source in facts.sources if source.watermark_us is not None]
            target = min(watermarks) + MINUTE if len(watermarks) == 3 else None
            moves = target is not None and (facts.sealed_until_us is None or target > facts.sealed_until_us)
            return target if moves else None

        while not done.is_set():
            control.seal(stream_id, decide)
            for start in control.due_windows(stream_id):
                judge_stored_window(control, stream_id, start, judge_clean)

    holders = [threading.Thread(target=seal_and_judge) for _ in range(2)]
    for holder in holders:
        holder.start()
    try:
        run_concurrently(*(lambda number=number: feed(number) for number in range(3)))
    finally:
        done.set()
        for holder in holders:
            holder.join()
    seal(db, stream_id, T0 + 100 * MINUTE)
    for start in control.due_windows(stream_id):
        judge_stored_window(control, stream_id, start, judge_clean)
    assert [int(str(cell)) for cell in fetch_rows(db, "SELECT sum(events + late), count(*) FROM windows")[0]] == [
        3 * n,
        10,
    ]
    assert count_rows(db, "window_parts") == 0


def test_a_stream_has_ended_when_all_its_sources_have_ended(db: Database, control: WindowStore) -> None:
    stream_id = open_stream(db, partitions=2)
    CommittingSource(db, stream_id, 0).commit(ended=True)
    assert not control.all_ended(stream_id)
    CommittingSource(db, stream_id, 1).commit(ended=True)
    assert control.all_ended(stream_id)
    source_id = Ledger(db).active_sources(stream_id)[0].source_id
    Ledger(db).claim_source(source_id, "another")
    assert not control.all_ended(stream_id)


def test_a_re_created_log_no_longer_counts_for_the_seal(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(watermark_us=T0)
    Ledger(db).register_sources(stream_id, [NewSource(topic=TOPIC, partition=0, identity="another log", next_offset=0)])
    seen: list[SealFacts] = []
    control.seal(stream_id, seen.append)  # type: ignore[func-returns-value]
    assert [each.watermark_us for each in seen[0].sources] == [None, None, None]


def test_unprintable_characters_are_stored_as_replacement_characters(
    db: Database, stream_id: int, source: CommittingSource, control: WindowStore
) -> None:
    source.commit(source.part())
    seal(db, stream_id, T0 + MINUTE)

    def decide(facts: WindowFacts) -> Judgement:
        incident = opened_incident(facts, "drift", ("ops",))
        assert incident.transition is not None
        transition = replace(incident.transition, summary="a\x00b \udcff", details={"feature": "a\x00b \udcff"})
        return Judgement(
            window=judged_window_row(facts), incidents=[replace(incident, summary="a\x00b", transition=transition)]
        )

    assert judge_stored_window(control, stream_id, T0, decide)
    message = Outbox(db).claim("ops", MINUTE)
    assert message is not None
    assert message.summary == "a\ufffdb \ufffd"
    assert json.loads(build_body(message))["summary"] == message.summary
