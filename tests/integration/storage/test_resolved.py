"""Retention of incidents with their transitions and notifications, of notifications and of gaps."""

from typing import Any

import pytest
import sqlalchemy as sa

from config.settings import RetentionSettings
from config.time_format import DAY_US
from storage import resolved, retention
from storage.database import tables
from storage.database.engine import Database
from tests.integration.storage.commits import T0, ClaimedStream, count_rows, fetch_rows

_RETENTION = RetentionSettings()


def _ago_us(db: Database, days: float) -> int:
    with db.read() as connection:
        return db.now_us(connection) - int(days * DAY_US)


def _insert(db: Database, table: sa.Table, **values: Any) -> Any:
    with db.write() as connection:
        return connection.execute(sa.insert(table).values(values)).inserted_primary_key[0]  # type: ignore[index]


def _add_incident(feed: ClaimedStream, days: float, *, status: str = "resolved", state: str = "delivered") -> int:
    """Add an incident with a transition and a notification that were stored `days` days ago; return its id."""
    db, at_us = feed.db, _ago_us(feed.db, days)
    incident_id = int(
        _insert(
            db,
            tables.incidents,
            stream_id=feed.stream_id,
            kind="spike",
            severity="warning",
            status=status,
            window_start_us=T0,
            opened_at_us=T0,
            resolved_at_us=None if status == "open" else T0,
            last_told_us=T0,
            clean_windows=0,
            windows_fired=1,
            summary="a spike",
        )
    )
    transition_id = _insert(
        db,
        tables.transitions,
        incident_id=incident_id,
        stream_id=feed.stream_id,
        transition="opened",
        window_start_us=T0,
        at_us=T0,
        summary="a spike",
        recorded_at_us=at_us,
    )
    _insert(
        db,
        tables.notifications,
        id=f"n{incident_id}",
        incident_id=incident_id,
        transition_id=transition_id,
        channel="ops",
        state=state,
        created_at_us=at_us,
    )
    return incident_id


def _delete(db: Database) -> retention.DeletedRows:
    return retention.delete_expired(db, _RETENTION, _ago_us(db, 0))


def _ids(db: Database, table: str) -> list[Any]:
    return [row[0] for row in fetch_rows(db, f"SELECT id FROM {table} ORDER BY id")]


def test_old_resolved_incidents_are_deleted_with_their_transitions_and_notifications(feed: ClaimedStream) -> None:
    _add_incident(feed, 401)
    young, newest = _add_incident(feed, 399), _add_incident(feed, 1)
    deleted = _delete(feed.db)
    assert (deleted.incidents, deleted.notifications) == (1, 2)
    assert _ids(feed.db, "incidents") == [young, newest]
    assert count_rows(feed.db, "transitions") == 2
    assert _ids(feed.db, "notifications") == [f"n{newest}"], "notifications are kept for 90 days"


@pytest.mark.parametrize("kept_by", ["open", "pending", "gap", "reference"])
def test_incidents_in_use_are_kept(feed: ClaimedStream, kept_by: str) -> None:
    db = feed.db
    status = "open" if kept_by == "open" else "resolved"
    old = _add_incident(feed, 1000, status=status, state="pending" if kept_by == "pending" else "delivered")
    _add_incident(feed, 1)
    if kept_by == "gap":
        feed.commit(0, end=5, gap_reason="retention")
        with db.write() as connection:
            connection.execute(sa.update(tables.gaps).values(incident_id=old))
    if kept_by == "reference":
        with db.read() as connection:
            model_id = connection.scalar(sa.select(tables.models.c.id))
        reference = {"energies": b"", "at_us": T0, "recorded_at_us": _ago_us(db, 1000)}
        _insert(
            db,
            tables.accepted_references,
            stream_id=feed.stream_id,
            model_id=model_id,
            incident_id=old,
            **reference,
        )
    assert _delete(db).incidents == 0
    assert old in _ids(db, "incidents")
    if kept_by in ("open", "pending"):
        assert f"n{old}" in _ids(db, "notifications"), "its resolution is sent to the channels of its notifications"


def test_the_newest_incident_is_kept_so_that_its_number_is_not_given_again(feed: ClaimedStream) -> None:
    newest = _add_incident(feed, 1000)
    assert _delete(feed.db).incidents == 0
    assert _ids(feed.db, "incidents") == [newest]
    assert _add_incident(feed, 0) == newest + 1
    assert _delete(feed.db).incidents == 1


def test_old_gaps_are_deleted_but_not_those_of_an_unresolved_incident(feed: ClaimedStream) -> None:
    db = feed.db
    open_id = _add_incident(feed, 1000, status="open")
    for begin, days in ((0, 401), (5, 401), (10, 399)):
        feed.commit(0, end=begin + 5, gap_reason="retention")
        of_range = tables.gaps.c.from_offset == begin
        with db.write() as connection:
            connection.execute(sa.update(tables.gaps).where(of_range).values(recorded_at_us=_ago_us(db, days)))
    with db.write() as connection:
        connection.execute(sa.update(tables.gaps).where(tables.gaps.c.from_offset == 5).values(incident_id=open_id))
    assert _delete(db).gaps == 1
    assert fetch_rows(db, "SELECT from_offset FROM gaps ORDER BY 1") == [(5,), (10,)]


def test_incidents_are_deleted_in_transactions_of_bounded_size(
    feed: ClaimedStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolved, "_INCIDENTS_PER_TRANSACTION", 3)
    for _ in range(8):
        _add_incident(feed, 401)
    calls = iter([False, True])
    cut_us = _ago_us(feed.db, 400)
    assert resolved.delete_incidents(feed.db, feed.stream_id, cut_us, lambda: next(calls)) == 3
    assert resolved.delete_incidents(feed.db, feed.stream_id, cut_us, lambda: False) == 4
    assert len(_ids(feed.db, "incidents")) == 1
