"""Lists of incidents for the page: the open ones, and the others by their time of opening."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.tables import incident_verbs, incidents, streams, transitions


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedIncident:
    """An incident in a list; `note` is that of the last verb on it."""

    id: int
    stream: str
    stream_id: int
    kind: str
    severity: str
    status: str
    window_start_us: int
    opened_at_us: int
    resolved_at_us: int | None
    summary: str
    acknowledged_by: str | None
    acknowledged_at_us: int | None
    is_acknowledged: bool
    verdict: str | None
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentFilter:
    """What a list holds; None does not restrict it. `before` is the (opened_at_us, id) that the list follows."""

    stream: str | None = None
    kind: str | None = None
    status: str | None = None
    before: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentCounts:
    """The open incidents and those of them that are acknowledged, and the time at which the oldest opened."""

    opened: int
    acknowledged: int
    oldest_us: int | None


def list_incidents(conn: Connection, wanted: IncidentFilter, *, limit: int) -> list[ListedIncident]:
    """Return incidents, the newest first, stable under new ones by the last row of the page before.

    Args:
        conn: Connection to the database.
        wanted: The incidents to list.
        limit: Largest number of incidents.
    """
    table = incidents.c
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.stream is not None:
        conditions.append(streams.c.name == wanted.stream)
    if wanted.kind is not None:
        conditions.append(table.kind == wanted.kind)
    if wanted.status is not None:
        conditions.append(table.status == wanted.status)
    if wanted.before is not None:
        at_us, last_id = wanted.before
        conditions.append(sa.or_(table.opened_at_us < at_us, sa.and_(table.opened_at_us == at_us, table.id < last_id)))
    return _read(conn, conditions, limit)


def list_recent_incidents(conn: Connection, *, limit: int) -> list[ListedIncident]:
    """Return the open incidents, the newest first, then resolved ones up to the limit."""
    opened = _read(conn, [incidents.c.status == "open"], limit)
    resolved = _read(conn, [incidents.c.status != "open"], limit - len(opened)) if len(opened) < limit else []
    return opened + resolved


def count_open_incidents(conn: Connection) -> IncidentCounts:
    """Return how many incidents are open and acknowledged."""
    row = conn.execute(
        sa.select(
            sa.func.count().label("opened"),
            sa.func.count(incidents.c.acknowledged_until_us).label("acknowledged"),
            sa.func.min(incidents.c.opened_at_us).label("oldest_us"),
        ).where(incidents.c.status == "open")
    ).one()
    return IncidentCounts(opened=row.opened, acknowledged=row.acknowledged, oldest_us=row.oldest_us)


def _read(conn: Connection, conditions: list[sa.ColumnElement[bool]], limit: int) -> list[ListedIncident]:
    table = incidents.c
    names = (
        "id",
        "stream_id",
        "kind",
        "severity",
        "status",
        "window_start_us",
        "opened_at_us",
        "resolved_at_us",
        "summary",
        "acknowledged_by",
        "acknowledged_at_us",
        "verdict",
    )
    verbs = incident_verbs.c
    note = (
        sa.select(verbs.note)
        .where(verbs.incident_id == table.id)
        .order_by(verbs.id.desc())
        .limit(1)
        .correlate(incidents)
        .scalar_subquery()
    )
    rows = conn.execute(
        sa.select(
            *(table[name] for name in names),
            streams.c.name.label("stream"),
            table.acknowledged_until_us.is_not(None).label("is_acknowledged"),
            note.label("note"),
        )
        .join(streams, streams.c.id == table.stream_id)
        .where(*conditions)
        .order_by(table.opened_at_us.desc(), table.id.desc())
        .limit(limit)
    )
    return [ListedIncident(**{**row, "is_acknowledged": bool(row["is_acknowledged"])}) for row in rows.mappings()]


def read_last_changes(conn: Connection) -> tuple[int, int]:
    """Return the ids of the last transition of an incident and of the last verb; 0 if there is none."""
    row = conn.execute(
        sa.select(
            sa.select(sa.func.max(transitions.c.id)).scalar_subquery(),
            sa.select(sa.func.max(incident_verbs.c.id)).scalar_subquery(),
        )
    ).one()
    return row[0] or 0, row[1] or 0
