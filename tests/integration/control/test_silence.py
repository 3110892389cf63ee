"""Silence detection on stored rows: pauses between windows, arrival times, and the lease."""

import pytest
import sqlalchemy as sa

from config.settings import Settings
from monitor.cli.output.incident_text import format_incident
from monitor.daemon.silence_watch import SilenceWatch
from monitor.incidents.silence import SilenceRule
from storage.control.silence import Pause, SilenceStore
from storage.database.engine import Database
from storage.database.leases import Leases
from storage.database.tables import FOREVER_US, positions, windows
from storage.queries.incident_report import load_incident_report
from tests.integration.control.source_commits import CommittingSource
from tests.integration.control.worker_bench import MINUTE, SECOND, T0, fetch_rows
from tests.rules import make_rules

RULE = SilenceRule(after_us=30 * SECOND, idle_timeout_us=SECOND, size_us=MINUTE, max_event_age_us=60 * MINUTE)
RULES = make_rules(
    size_us=MINUTE,
    resolve_after=3,
    repeat_interval_us=240 * MINUTE,
    channels=lambda _kind, _severity: ("ops",),
    max_age_us=60 * MINUTE,
)


def add_windows(db: Database, stream_id: int, *minutes: int, events: int = 1) -> None:
    with db.write() as conn:
        conn.execute(
            windows.insert(),
            [
                {
                    "stream_id": stream_id,
                    "window_start_us": T0 + minute * MINUTE,
                    "window_end_us": T0 + (minute + 1) * MINUTE,
                    "events": events,
                    "outliers": 0,
                    "late": 0,
                    "dead": 0,
                    "judged_at_us": T0,
                }
                for minute in minutes
            ],
        )


def set_positions(db: Database, stream_id: int, **ago_us: int) -> None:
    """Set columns of all position rows, in microseconds before (or after) the database's clock."""
    with db.write() as conn:
        now_us = db.now_us(conn)
        values = {name: us if us == FOREVER_US else now_us - us for name, us in ago_us.items()}
        conn.execute(sa.update(positions).where(positions.c.stream_id == stream_id).values(values))


def make_watch(db: Database, owner: str = "me", rule: SilenceRule | None = RULE) -> SilenceWatch:
    return SilenceWatch(RULES, db, rule, owner=lambda: owner)


def settings(silence_after: str) -> Settings:
    stream = {"source": {"type": "synthetic"}, "alerts": {"silence_after": silence_after}}
    return Settings.model_validate({"streams": {"payments": stream}})


def transitions_of(db: Database) -> list[tuple[object, ...]]:
    return fetch_rows(db, "SELECT transition, channel, state FROM notification_history ORDER BY created_at_us, channel")


def test_pauses_lie_between_windows_with_events_that_are_not_adjacent(db: Database, stream_id: int) -> None:
    add_windows(db, stream_id, 0, 1, 2, 10, 11, 60)
    add_windows(db, stream_id, 20, events=0)
    half = MINUTE // 2
    history = SilenceStore(db).pause_history(stream_id, T0)
    assert (history.start_us, history.end_us, history.windows) == (T0, T0 + 61 * MINUTE, 6)
    assert list(history.pauses) == [
        Pause(start_us=T0 + 3 * MINUTE - half, end_us=T0 + 10 * MINUTE + half),
        Pause(start_us=T0 + 12 * MINUTE - half, end_us=T0 + 60 * MINUTE + half),
    ]
    assert SilenceStore(db).pause_history(stream_id, T0 + 5 * MINUTE).windows == 3


def test_stream_without_windows_has_no_pauses(db: Database, stream_id: int) -> None:
    history = SilenceStore(db).pause_history(stream_id, T0)
    assert (history.windows, list(history.pauses)) == (0, [])


def test_stream_is_at_its_end_only_while_every_source_is_idle(
    db: Database, stream_id: int, source: CommittingSource
) -> None:
    store = SilenceStore(db)
    assert store.arrival_facts(stream_id).last_arrival_us is None
    source.commit(source.part())
    assert not store.arrival_facts(stream_id).at_end
    set_positions(db, stream_id, idle_until_us=-MINUTE)
    facts = store.arrival_facts(stream_id)
    assert (facts.at_end, facts.ended) == (True, False)
    assert facts.last_arrival_us is not None
    assert 0 <= facts.now_us - facts.last_arrival_us < MINUTE
    set_positions(db, stream_id, idle_until_us=FOREVER_US)
    assert store.arrival_facts(stream_id).ended


def test_a_watch_follows_settings_that_another_process_has_changed(db: Database, silent_stream: int) -> None:
    present = settings("never")
    watch = SilenceWatch.from_settings(lambda: present, "payments", db, owner=lambda: "me")
    Leases(db).acquire("control:payments", "me", 60)
    watch.check()
    assert transitions_of(db) == []
    present = settings("30s")
    watch.check()
    assert [transition for transition, *_ in transitions_of(db)] == ["opened"]


@pytest.fixture
def silent_stream(db: Database, stream_id: int, source: CommittingSource) -> int:
    """A stream read to its end, with its last event a minute ago."""
    source.commit(source.part())
    set_positions(db, stream_id, committed_at_us=MINUTE, last_event_us=MINUTE, idle_until_us=-10 * MINUTE)
    return stream_id


def test_only_the_lease_holder_opens_an_incident_and_a_later_holder_resolves_it(
    db: Database, silent_stream: int
) -> None:
    make_watch(db).check()
    assert transitions_of(db) == []
    Leases(db).acquire("control:payments", "me", 60)
    make_watch(db, "you").check()
    assert transitions_of(db) == []
    make_watch(db).check()
    make_watch(db).check()
    assert transitions_of(db) == [("opened", "log", "pending"), ("opened", "ops", "pending")]
    Leases(db).release("control:payments", "me")
    Leases(db).acquire("control:payments", "you", 60)
    set_positions(db, silent_stream, committed_at_us=0)
    make_watch(db, "you").check()
    make_watch(db, "you").check()
    assert [row[0] for row in transitions_of(db)] == ["opened", "opened", "resolved", "resolved"]
    ((incident,),) = fetch_rows(db, "SELECT id FROM incidents")
    report = load_incident_report(db, int(str(incident)))
    assert report is not None
    assert "no event for" in format_incident(report)


def test_silence_after_never_still_resolves_an_incident_opened_before(db: Database, silent_stream: int) -> None:
    Leases(db).acquire("control:payments", "me", 60)
    make_watch(db, rule=None).check()
    assert transitions_of(db) == []
    make_watch(db).check()
    set_positions(db, silent_stream, committed_at_us=0)
    make_watch(db, rule=None).check()
    assert fetch_rows(db, "SELECT status FROM incidents") == [("resolved",)]


def test_second_silence_since_the_same_event_is_notified_again(db: Database, silent_stream: int) -> None:
    """The records between the two silences hold no event, or an earlier one: the newest event precedes both."""
    Leases(db).acquire("control:payments", "me", 60)
    make_watch(db).check()
    set_positions(db, silent_stream, committed_at_us=0)
    make_watch(db).check()
    set_positions(db, silent_stream, committed_at_us=MINUTE)
    make_watch(db).check()
    assert fetch_rows(db, "SELECT status FROM incidents ORDER BY id") == [("open",)]
    assert [row for row in transitions_of(db) if row[1] == "ops"] == [
        ("opened", "ops", "pending"),
        ("resolved", "ops", "pending"),
        ("reopened", "ops", "pending"),
    ]
