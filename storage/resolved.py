"""Deletion of resolved incidents with their transitions, verbs and notifications; of old notifications, gaps and mutes.

Rows of an unresolved incident are never deleted: its resolution is sent to the channels that its notifications name.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from storage.database.chunks import CHUNK_ROWS, delete_in_chunks
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import (
    gaps,
    incident_verbs,
    incidents,
    metadata,
    mutes,
    notifications,
    posted_messages,
    transitions,
)

_PARTS = (posted_messages, notifications, transitions, incident_verbs)
"""Tables whose rows are deleted with their incident, in this order."""

_INCIDENTS_PER_TRANSACTION = 100
"""An incident that was repeated for weeks has some hundred transitions and notifications."""


def delete_notifications(db: Database, cut_us: int, stopped: Callable[[], bool]) -> int:
    """Delete notifications of resolved incidents that were created before a time and are not pending."""
    expired = (
        sa.select(notifications.c.id)
        .join(incidents, incidents.c.id == notifications.c.incident_id)
        .where(
            notifications.c.created_at_us < cut_us,
            notifications.c.state != "pending",
            incidents.c.status != "open",
        )
        .limit(CHUNK_ROWS)
    )
    return delete_in_chunks(db, sa.delete(notifications).where(notifications.c.id.in_(expired)), stopped)


def delete_gaps(db: Database, cut_us: int, stopped: Callable[[], bool]) -> int:
    """Delete gaps that were recorded before a time and belong to no unresolved incident."""
    unresolved = sa.exists().where(incidents.c.id == gaps.c.incident_id, incidents.c.status == "open")
    expired = (
        sa.select(gaps.c.id).where(gaps.c.recorded_at_us < cut_us, ~unresolved).order_by(gaps.c.id).limit(CHUNK_ROWS)
    )
    return delete_in_chunks(db, sa.delete(gaps).where(gaps.c.id.in_(expired)), stopped)


def delete_mutes(db: Database, cut_us: int, stopped: Callable[[], bool]) -> int:
    """Delete mutes that ended before a time."""
    expired = sa.select(mutes.c.id).where(mutes.c.ends_at_us < cut_us).order_by(mutes.c.id).limit(CHUNK_ROWS)
    return delete_in_chunks(db, sa.delete(mutes).where(mutes.c.id.in_(expired)), stopped)


def delete_incidents(db: Database, stream_id: int, cut_us: int, stopped: Callable[[], bool]) -> int:
    """Delete resolved incidents of a stream whose last transition was stored before a time; return their number.

    An incident with a pending notification is kept, and so is one that a kept gap, mute or accepted reference refers
    to. The verbs on an incident are kept as long as the incident.
    """
    total = 0
    while not stopped():
        with db.write() as connection:
            lock_stream(connection, stream_id)
            expired = connection.scalars(_select_expired(stream_id, cut_us)).all()
            for table in _PARTS:
                connection.execute(sa.delete(table).where(table.c.incident_id.in_(expired)))
            connection.execute(sa.delete(incidents).where(incidents.c.id.in_(expired)))
        total += len(expired)
        if len(expired) < _INCIDENTS_PER_TRANSACTION:
            break
    return total


def _select_expired(stream_id: int, cut_us: int) -> sa.Select[tuple[int]]:
    last_stored_us = (
        sa.select(sa.func.max(transitions.c.recorded_at_us))
        .where(transitions.c.incident_id == incidents.c.id)
        .scalar_subquery()
    )
    # An event time, for an incident that was stored without a transition.
    ended_us = sa.func.coalesce(incidents.c.resolved_at_us, incidents.c.opened_at_us)
    pending = sa.exists().where(notifications.c.incident_id == incidents.c.id, notifications.c.state == "pending")
    others = incidents.alias()
    # SQLite gives the id of the newest row to the next one, when the newest row is deleted.
    newest = sa.select(sa.func.max(others.c.id)).scalar_subquery()
    return (
        sa.select(incidents.c.id)
        .where(
            incidents.c.stream_id == stream_id,
            incidents.c.status != "open",
            sa.func.coalesce(last_stored_us, ended_us) < cut_us,
            incidents.c.id < newest,
            ~pending,
            *(~sa.exists().where(column == incidents.c.id) for column in _other_references()),
        )
        .order_by(incidents.c.id)
        .limit(_INCIDENTS_PER_TRANSACTION)
    )


def _other_references() -> list[sa.Column[int]]:
    """Return the columns that refer to incidents, apart from those of the rows that are deleted with an incident."""
    return [
        foreign_key.parent
        for table in metadata.sorted_tables
        if table not in _PARTS
        for foreign_key in table.foreign_keys
        if foreign_key.column is incidents.c.id
    ]
