"""Incidents of a stream, their transitions and the notifications of each transition.

Judging, threshold ticks, the drift step, the silence watch and acceptance write incidents through this module while
they hold the lock on the stream's row. At most one incident of a kind is therefore open, and every notification is
stored in the transaction of its transition.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from storage.control.contributions import find_contributions
from storage.control.mutes import MutableMessage, hold_back, suspect_keys
from storage.control.records import Incident, Transition
from storage.control.reopening import reopen_incident
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import incidents, notifications, transitions

_TOLD_TYPES = frozenset({"acknowledged", "resolved"})
"""Transitions that are told to the channels that were notified of the incident; no mute holds them back."""

_OPEN_INCIDENTS = (
    sa.select(incidents)
    # A literal, not a parameter: SQLite uses the index of open incidents only for its own condition.
    .where(incidents.c.stream_id == sa.bindparam("stream_id"), incidents.c.status == sa.literal_column("'open'"))
    .order_by(incidents.c.id)
)


def change_incidents(
    db: Database, stream_id: int, stream: str, decide: Callable[[Sequence[Incident]], Sequence[Incident]]
) -> list[int]:
    """Pass the open incidents to `decide` and write the returned rows in one transaction; return the incident ids."""
    with db.write() as conn:
        lock_stream(conn, stream_id)
        return [write_incident(db, conn, stream_id, stream, row) for row in decide(open_incidents(conn, stream_id))]


def open_incidents(conn: sa.Connection, stream_id: int) -> list[Incident]:
    """Return the stream's open incidents, oldest first."""
    return [to_incident(row) for row in conn.execute(_OPEN_INCIDENTS, {"stream_id": stream_id})]


def to_incident(row: sa.Row[Any]) -> Incident:
    """Return a row of the table as an incident without a transition."""
    return Incident(
        id=row.id,
        kind=row.kind,
        severity=row.severity,
        status=row.status,
        window_start_us=row.window_start_us,
        opened_at_us=row.opened_at_us,
        last_told_us=row.last_told_us,
        clean_windows=row.clean_windows,
        windows_fired=row.windows_fired,
        summary=row.summary,
        details=json.loads(row.details or "{}"),
        resolved_at_us=row.resolved_at_us,
        acknowledged_until_us=row.acknowledged_until_us,
        reopen_until_us=row.reopen_until_us,
    )


def write_incident(db: Database, conn: sa.Connection, stream_id: int, stream: str, row: Incident) -> int:
    """Write an incident, its transition and a notification for each channel; return the incident id.

    A new incident that follows one of its kind closely opens that one again (`storage.control.reopening`). The caller
    holds the lock on the stream's row (`lock_stream`), so that at most one incident of a kind is open.
    """
    if row.id is None:
        row = _reopen_recent(conn, stream_id, row)
    values: dict[str, Any] = {
        "severity": row.severity,
        "status": row.status,
        "last_told_us": row.last_told_us,
        "clean_windows": row.clean_windows,
        "windows_fired": row.windows_fired,
        "resolved_at_us": row.resolved_at_us,
        "acknowledged_until_us": row.acknowledged_until_us,
        "reopen_until_us": row.reopen_until_us,
        "summary": row.summary,
        "details": json.dumps(row.details, ensure_ascii=False),
    }
    contributions = None if row.transition is None else find_contributions(row.transition.details)
    if contributions is not None:
        values["contributions"] = json.dumps(contributions, ensure_ascii=False)
    if row.status == "open" and row.acknowledged_until_us is None:
        values |= {"acknowledged_at_us": None, "acknowledged_by": None}
    if row.id is None:
        opened = {"stream_id": stream_id, "kind": row.kind, "window_start_us": row.window_start_us}
        opened["opened_at_us"] = row.opened_at_us
        incident_id: int = conn.execute(
            incidents.insert().values(**opened, **values).returning(incidents.c.id)
        ).scalar_one()
    else:
        incident_id = row.id
        conn.execute(incidents.update().where(incidents.c.id == row.id).values(**values))
    if row.transition is not None:
        _write_transition(db, conn, stream_id, stream, incident_id, row, row.transition)
    return incident_id


def _reopen_recent(conn: sa.Connection, stream_id: int, row: Incident) -> Incident:
    """Return the resolved incident that a new one opens again; the new one if there is none."""
    recent = conn.execute(
        sa.select(incidents)
        .where(
            incidents.c.stream_id == stream_id,
            incidents.c.reopen_until_us > row.opened_at_us,
            incidents.c.kind == row.kind,
            incidents.c.status != "open",
        )
        .order_by(incidents.c.resolved_at_us.desc(), incidents.c.id.desc())
        .limit(1)
    ).first()
    return row if recent is None else reopen_incident(to_incident(recent), row)


def _write_transition(
    db: Database,
    conn: sa.Connection,
    stream_id: int,
    stream: str,
    incident_id: int,
    row: Incident,
    transition: Transition,
) -> None:
    """Write a transition and its notifications.

    A transition that was written before its window was sealed is updated with the final numbers. Channels that have a
    notification for it do not get a second one; channels that only the final severity routes to get theirs now.
    """
    now_us = db.now_us(conn)
    early = None if row.id is None else _find_early_transition(conn, incident_id, transition)
    if early is not None and early.at_us != transition.at_us:
        # A different transition with the same window start, such as a drift of ten minutes followed by the drift of the
        # hour that contains them: its end distinguishes it.
        early, transition = None, replace(transition, window_start_us=transition.at_us)
    values = {
        "at_us": transition.at_us,
        "summary": transition.summary,
        "details": json.dumps(transition.details, ensure_ascii=False),
    }
    if early is None:
        identity = {"incident_id": incident_id, "stream_id": stream_id, "transition": transition.type}
        identity |= {"window_start_us": transition.window_start_us, "recorded_at_us": now_us}
        insert = transitions.insert().values(**identity, **values, severity=row.severity)
        transition_id: int = conn.execute(insert.returning(transitions.c.id)).scalar_one()
        existing_ids = set[str]()
    else:
        transition_id = early.id
        conn.execute(transitions.update().where(transitions.c.id == early.id).values(**values, severity=row.severity))
        query = sa.select(notifications.c.id).where(notifications.c.transition_id == early.id)
        existing_ids = set(conn.execute(query).scalars())
    messages = {
        notification_id(stream, row, transition, channel): (channel, pending)
        for channel, pending in _find_channels(conn, incident_id, transition).items()
    }
    new = {message_id: message for message_id, message in messages.items() if message_id not in existing_ids}
    is_muted = transition.type not in _TOLD_TYPES and hold_back(
        conn,
        MutableMessage(stream=stream, kind=row.kind, incident_id=incident_id, keys=suspect_keys(row)),
        now_us=now_us,
        timezone=transition.timezone,
        messages=sum(pending for _, pending in new.values()),
    )
    for message_id, (channel, pending) in new.items():
        state = "skipped" if not pending else "muted" if is_muted else "pending"
        conn.execute(
            notifications.insert().values(
                id=message_id,
                incident_id=incident_id,
                transition_id=transition_id,
                channel=channel,
                state=state,
                next_attempt_at_us=now_us if state == "pending" else None,
                created_at_us=now_us,
            )
        )


def _find_early_transition(conn: sa.Connection, incident_id: int, transition: Transition) -> sa.Row[Any, Any] | None:
    return conn.execute(
        sa.select(transitions.c.id, transitions.c.at_us).where(
            transitions.c.incident_id == incident_id,
            transitions.c.transition == transition.type,
            transitions.c.window_start_us == transition.window_start_us,
        )
    ).one_or_none()


def _find_channels(conn: sa.Connection, incident_id: int, transition: Transition) -> dict[str, bool]:
    """Map each channel of a transition to True if it is notified, or to False if its notification is skipped.

    A resolution or an acknowledgement is sent exactly to the channels that were notified of the incident, independently
    of the current routes and of the age of the incident. Otherwise an alert could stay open in a receiving
    system, or a resolution could arrive without its alert. An incident that opens again is told to these channels and
    to those of the routes.
    """
    routed = {channel: channel not in transition.skipped_channels for channel in transition.channels}
    if transition.type not in {*_TOLD_TYPES, "reopened"}:
        return routed
    states = sa.select(notifications.c.channel, notifications.c.state).where(notifications.c.incident_id == incident_id)
    rows = conn.execute(states.order_by(notifications.c.transition_id, notifications.c.channel)).all()
    notified = {row.channel for row in rows if row.state not in {"skipped", "muted"}}
    if transition.type == "reopened":
        return routed | dict.fromkeys(notified, True)
    all_channels = dict.fromkeys([*routed, *(row.channel for row in rows)])
    return {
        channel: channel in notified or (channel == "log" and routed.get(channel, False)) for channel in all_channels
    }


def notification_id(stream: str, incident: Incident, transition: Transition, channel: str) -> str:
    """Return a deterministic id for the notification of one transition on one channel.

    A repeated call gives the same id. The id contains the start and the opening time of the incident: two incidents of
    a kind may start at the same event time, such as a drift of ten minutes and the drift of the hour that contains
    them, but they do not open at the same time.
    """
    incident_key = (stream, incident.kind, incident.window_start_us, incident.opened_at_us)
    key = (*incident_key, transition.type, transition.window_start_us, channel)
    return hashlib.sha256("|".join(map(str, key)).encode()).hexdigest()[:32]
