"""Spikes opened before their window is sealed: one incident with the same rows, on both databases."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from storage.control.records import Judgement, WindowFacts
from storage.control.windows import WindowStore
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from tests.integration.control.simulation import (
    Rows,
    SimulatedWriter,
    SimulationSettings,
    make_control_plane,
    make_records,
    read_decisions,
)
from tests.integration.control.source_commits import (
    CommittingSource,
    judge_clean,
    judge_stored_window,
    judged_window_row,
    opened_incident,
)
from tests.integration.control.worker_bench import MINUTE, SECOND, T0, fetch_rows, open_stream
from tests.rules import make_rules

BURST = SimulationSettings(
    rules=make_rules(size_us=MINUTE, grace_us=5 * SECOND, ahead_us=2 * MINUTE, max_future_us=None),
    refresh=timedelta(minutes=5),
    look_back=timedelta(minutes=30),
    sources=[make_records(21, n=1_500, span_s=1_500, anomalous=(0.6, 0.72), share=0.8)],
)


@dataclass
class EarlyRun:
    """The rows of a run, and the number of incidents opened by a window before its seal."""

    rows: dict[str, Rows]
    early: int


def run_simulation(db: Database, *, early: bool) -> EarlyRun:
    stream_id = open_stream(db, 1, BURST.rules)
    writer, plane, seen = (
        SimulatedWriter(db, stream_id, BURST, 0),
        make_control_plane(db, stream_id, BURST, early=early),
        0,
    )
    while not writer.ended:
        writer.commit(10)
        plane.run_due()
        seen += len(
            fetch_rows(
                db,
                "SELECT i.id FROM incidents i JOIN streams s ON s.id = i.stream_id "
                "WHERE i.status = 'open' AND i.window_start_us >= s.sealed_until_us",
            )
        )
        if early and seen == 1:  # a restart between opening and judging
            plane = make_control_plane(db, stream_id, BURST)
    plane.run_due()
    return EarlyRun(rows=read_decisions(db), early=seen)


def test_an_early_incident_has_the_same_rows_as_one_opened_after_the_seal(db: Database, tmp_path: Path) -> None:
    early_run = run_simulation(db, early=True)
    assert early_run.early > 0
    assert [row[0] for row in early_run.rows["incidents"]].count("spike") == 1
    assert len(early_run.rows["notifications"]) == 2 * len(early_run.rows["transitions"])
    with Database(f"sqlite:///{tmp_path / 'sealed.db'}") as other:
        upgrade(other)
        sealed_run = run_simulation(other, early=False)
    assert sealed_run.early == 0
    del early_run.rows["scores"]  # the databases write float32 in different ways
    for name, found in early_run.rows.items():
        assert comparable(found) == comparable(sealed_run.rows[name]), name


def comparable(found: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Return rows in a form that both databases share: bytes in place of memory views."""
    return [tuple(bytes(cell) if isinstance(cell, memoryview) else cell for cell in row) for row in found]


def test_the_message_of_an_early_incident_keeps_its_id(db: Database, stream_id: int, source: CommittingSource) -> None:
    control = WindowStore(db)
    control.seal(stream_id, lambda _: T0)
    source.commit(source.part(0, events=3))
    facts = control.read_window(stream_id, T0)
    assert facts is not None
    source.commit(source.part(0, events=2))  # further parts of an open window do not invalidate its incident
    assert control.open_incidents_early(stream_id, "payments", facts, [opened_incident(facts)])
    before = fetch_rows(db, "SELECT id, state FROM notifications")
    control.seal(stream_id, lambda _: T0 + MINUTE)

    def judge(facts: WindowFacts) -> Judgement:
        (incident,) = facts.open_incidents
        row = replace(opened_incident(facts, channels=("log", "ops")), id=incident.id, severity="critical")
        return Judgement(window=judged_window_row(facts), incidents=[row])

    assert judge_stored_window(control, stream_id, T0, judge)
    after = fetch_rows(db, "SELECT id, state FROM notifications")
    assert set(before) < set(after)
    assert len(after) == 2
    assert fetch_rows(db, "SELECT severity FROM transitions") == [("critical",)]


def test_only_the_first_unsealed_window_opens_an_incident_early(
    db: Database, stream_id: int, source: CommittingSource
) -> None:
    control = WindowStore(db)
    control.seal(stream_id, lambda _: T0)
    source.commit(source.part(0, events=3), source.part(1, events=4))
    window = control.first_open_window(stream_id)
    assert window is not None
    assert (window.window_start_us, window.events, window.threshold_id) == (T0, 3, source.threshold_id)
    facts = control.read_window(stream_id, T0 + MINUTE)
    assert facts is not None
    rows = [opened_incident(facts)]
    assert not control.open_incidents_early(stream_id, "payments", facts, rows)
    control.seal(stream_id, lambda _: T0 + MINUTE)
    assert not control.open_incidents_early(stream_id, "payments", facts, rows), "the window before it is not judged"
    assert judge_stored_window(control, stream_id, T0, judge_clean)
    assert not control.open_incidents_early(stream_id, "payments", facts, rows), "the facts have changed"
    facts = control.read_window(stream_id, T0 + MINUTE)
    assert facts is not None
    assert control.open_incidents_early(stream_id, "payments", facts, rows)
