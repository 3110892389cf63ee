"""Storage room: the incidents of a stream, their transitions, and the messages that these call for.

Whatever finds something (judging, a threshold tick, drift, silence, a person) changes incidents here, under the
stream's row, so that at most one of a kind is open and every message is stored with its reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from storage.control.records import IncidentRow, StoredIncident, TransitionRow
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import incidents, notifications, transitions


def change_incidents(
    db: Database, stream_id: int, stream: str, decide: Callable[[Sequence[StoredIncident]], Sequence[IncidentRow]]
) -> list[int]:
    """Let `decide` say what becomes of the open incidents, and write it in the same transaction; return the ids."""
    with db.write() as conn:
        lock_stream(conn, stream_id)
        return [write_incident(db, conn, stream_id, stream, row) for row in decide(open_incidents(conn, stream_id))]


def open_incidents(conn: sa.Connection, stream_id: int) -> list[StoredIncident]:
    """Return the stream's open incidents, oldest first."""
    rows = conn.execute(
        sa.select(incidents)
        .where(incidents.c.stream_id == stream_id, incidents.c.status == "open")
        .order_by(incidents.c.id)
    )
    return [
        StoredIncident(
            id=row.id,
            kind=row.kind,
            severity=row.severity,
            window_start_us=row.window_start_us,
            opened_at_us=row.opened_at_us,
            last_told_us=row.last_told_us,
            clean_windows=row.clean_windows,
            windows_fired=row.windows_fired,
            summary=row.summary,
            details=json.loads(row.details or "{}"),
        )
        for row in rows
    ]


def write_incident(db: Database, conn: sa.Connection, stream_id: int, stream: str, row: IncidentRow) -> int:
    """Write an incident, and its transition with a notification for each channel; return its id.

    The caller holds the stream's row (`lock_stream`): at most one incident of a kind is open.
    """
    values = {
        "severity": row.severity,
        "status": row.status,
        "last_told_us": row.last_told_us,
        "clean_windows": row.clean_windows,
        "windows_fired": row.windows_fired,
        "resolved_at_us": row.resolved_at_us,
        "summary": row.summary,
        "details": json.dumps(row.details, ensure_ascii=False),
    }
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


def _write_transition(
    db: Database,
    conn: sa.Connection,
    stream_id: int,
    stream: str,
    incident_id: int,
    row: IncidentRow,
    step: TransitionRow,
) -> None:
    """Write a transition and its messages; one that was written early gets its final numbers, and nobody a second one.

    Whom only the final severity calls for is told then.
    """
    now_us = db.now_us(conn)
    early = None if row.id is None else _find_early_transition(conn, incident_id, step)
    if early is not None and early.at_us != step.at_us:
        # Another step that begins where this one does (ten minutes that drift, then their hour): it is told by its end.
        early, step = None, replace(step, window_start_us=step.at_us)
    told = {"at_us": step.at_us, "summary": step.summary, "details": json.dumps(step.details, ensure_ascii=False)}
    if early is None:
        fixed = {"incident_id": incident_id, "stream_id": stream_id, "transition": step.transition}
        fixed |= {"window_start_us": step.window_start_us, "recorded_at_us": now_us}
        insert = transitions.insert().values(**fixed, **told, severity=row.severity)
        transition_id: int = conn.execute(insert.returning(transitions.c.id)).scalar_one()
        written = set[str]()
    else:
        transition_id = early.id
        conn.execute(transitions.update().where(transitions.c.id == early.id).values(**told, severity=row.severity))
        mine = sa.select(notifications.c.id).where(notifications.c.transition_id == early.id)
        written = set(conn.execute(mine).scalars())
    for channel, pending in _find_channels(conn, incident_id, step).items():
        message_id = notification_id(stream, row, step, channel)
        if message_id in written:
            continue
        conn.execute(
            notifications.insert().values(
                id=message_id,
                incident_id=incident_id,
                transition_id=transition_id,
                channel=channel,
                state="pending" if pending else "skipped",
                next_attempt_at_us=now_us if pending else None,
                created_at_us=now_us,
            )
        )


def _find_early_transition(conn: sa.Connection, incident_id: int, step: TransitionRow) -> sa.Row[Any, Any] | None:
    return conn.execute(
        sa.select(transitions.c.id, transitions.c.at_us).where(
            transitions.c.incident_id == incident_id,
            transitions.c.transition == step.transition,
            transitions.c.window_start_us == step.window_start_us,
        )
    ).one_or_none()


def _find_channels(conn: sa.Connection, incident_id: int, step: TransitionRow) -> dict[str, bool]:
    """Return the channels of a step, and whether each is told or only has a row that is never sent.

    The end of an incident is told to those who were told of it and to nobody else, whomever the routes name by then
    and however old it is: a page without its end stays open for ever, and an end without a page means nothing.
    """
    named = {channel: channel not in step.skipped_channels for channel in step.channels}
    if step.transition != "resolved":
        return named
    states = sa.select(notifications.c.channel, notifications.c.state).where(notifications.c.incident_id == incident_id)
    rows = conn.execute(states.order_by(notifications.c.transition_id, notifications.c.channel)).all()
    told = {row.channel for row in rows if row.state != "skipped"}
    everybody = dict.fromkeys([*named, *(row.channel for row in rows)])
    return {channel: channel in told or (channel == "log" and named.get(channel, False)) for channel in everybody}


def notification_id(stream: str, incident: IncidentRow, step: TransitionRow, channel: str) -> str:
    """Return the id of the message about one transition on one channel: the same on every repeat of the work.

    Two incidents of a kind may begin at the same event time (ten minutes that drifted, and the hour that they are part
    of), but they do not open at the same time.
    """
    of_incident = (stream, incident.kind, incident.window_start_us, incident.opened_at_us)
    named = (*of_incident, step.transition, step.window_start_us, channel)
    return hashlib.sha256("|".join(map(str, named)).encode()).hexdigest()[:32]
