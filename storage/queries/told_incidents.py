"""Incidents that a channel was told of, with the transitions that it has got: the state of its receiver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.control.outbox import Message, select_messages, to_message
from storage.database.engine import Database
from storage.database.tables import incidents, notifications, transitions

_TOLD_STATES = ("delivered", "dead")
"""A message that was given up counts as told: the receiver is told of the state again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldTransition:
    """A transition that a channel has got.

    Attributes:
        transition: Type of the transition.
        severity: Severity of the incident at the transition.
        recorded_at_us: Time at which it was stored, on the database's clock.
        told_at_us: Time at which it was delivered, on the same clock; that of storing for one that was given up.
    """

    transition: str
    severity: str
    recorded_at_us: int
    told_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldIncident:
    """An incident as a channel was told of it: its transitions in order, and the last one as a message."""

    incident_id: int
    transitions: Sequence[ToldTransition]
    latest: Message


def read_told_incidents(
    db: Database, channel: str, *, recent_us: int, after_id: int, limit: int
) -> tuple[int, list[ToldIncident]]:
    """Return the time on the database's clock, and incidents of a channel in the order of their ids.

    Args:
        db: The database.
        channel: Name of the channel.
        recent_us: Resolved incidents are included if a message of theirs was delivered within this time.
        after_id: Only incidents with a larger id.
        limit: Maximum number of incidents.
    """
    with db.read() as conn:
        now_us = db.now_us(conn)
        ids = list(conn.scalars(_select_ids(channel, now_us - recent_us, after_id, limit)))
        told = _read_transitions(conn, channel, ids)
        last = [rows[-1].notification_id for rows in told.values()]
        latest = {
            message.incident_id: message
            for message in map(to_message, conn.execute(select_messages().where(notifications.c.id.in_(last))))
        }
    return now_us, [
        ToldIncident(incident_id=each, transitions=list(map(_to_transition, told[each])), latest=latest[each])
        for each in told
    ]


def read_told_transitions(db: Database, channel: str, incident_id: int, before: int) -> list[ToldTransition]:
    """Return the transitions of an incident that a channel has got, before the one with the id `before`."""
    with db.read() as conn:
        told = _read_transitions(conn, channel, [incident_id])
    return [_to_transition(row) for row in told.get(incident_id, ()) if row.id < before]


def _select_ids(channel: str, since_us: int, after_id: int, limit: int) -> sa.Select[Any]:
    has_told = sa.exists().where(
        notifications.c.incident_id == incidents.c.id,
        notifications.c.channel == channel,
        notifications.c.state.in_(_TOLD_STATES),
    )
    # A literal, not a parameter: SQLite uses the index of open incidents only for its own condition.
    is_open = incidents.c.status == sa.literal_column("'open'")
    still_open = sa.select(incidents.c.id.label("id")).where(is_open, incidents.c.id > after_id, has_told)
    recent = sa.select(notifications.c.incident_id.label("id")).where(
        notifications.c.channel == channel,
        notifications.c.delivered_at_us > since_us,
        notifications.c.incident_id > after_id,
    )
    both = still_open.union(recent).subquery()
    return sa.select(both.c.id).order_by(both.c.id).limit(limit)


def _read_transitions(conn: Connection, channel: str, ids: Sequence[int]) -> dict[int, list[Any]]:
    """Return the rows of the transitions that the channel has got, by incident, both in the order of their ids."""
    query = (
        sa.select(
            transitions.c.id,
            notifications.c.id.label("notification_id"),
            notifications.c.incident_id,
            transitions.c.transition,
            sa.func.coalesce(transitions.c.severity, incidents.c.severity).label("severity"),
            transitions.c.recorded_at_us,
            notifications.c.delivered_at_us,
        )
        .join(transitions, transitions.c.id == notifications.c.transition_id)
        .join(incidents, incidents.c.id == notifications.c.incident_id)
        .where(
            notifications.c.incident_id.in_(ids),
            notifications.c.channel == channel,
            notifications.c.state.in_(_TOLD_STATES),
        )
        .order_by(notifications.c.incident_id, transitions.c.id)
    )
    told: dict[int, list[Any]] = {}
    for row in conn.execute(query):
        told.setdefault(row.incident_id, []).append(row)
    return told


def _to_transition(row: sa.Row[Any]) -> ToldTransition:
    return ToldTransition(
        transition=row.transition,
        severity=row.severity,
        recorded_at_us=row.recorded_at_us,
        told_at_us=max(row.recorded_at_us, row.delivered_at_us or 0),
    )
