"""The dead letters of a stream by reason, with an example of each."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.tables import dead_letters, sources

_SHOWN_BYTES = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterGroup:
    """A reason with the number of records, and the place, the detail and the first bytes of the newest one."""

    reason: str
    count: int
    topic: str
    partition: int
    source_offset: int
    detail: str | None
    payload: str


def read_dead_letter_reasons(
    conn: Connection, stream_id: int, *, since_us: int, until_us: int
) -> list[DeadLetterGroup]:
    """Return the reasons of the dead letters that were recorded in [since, until), the most frequent first."""
    table = dead_letters.c
    source_ids = list(conn.scalars(sa.select(sources.c.id).where(sources.c.stream_id == stream_id)))
    counts = (
        sa.select(table.reason, sa.func.sum(table.count).label("number"), sa.func.max(table.id).label("newest"))
        .where(table.source_id.in_(source_ids), table.recorded_at_us >= since_us, table.recorded_at_us < until_us)
        .group_by(table.reason)
    ).subquery()
    rows = conn.execute(
        sa.select(counts.c.number, dead_letters, sources.c.topic, sources.c.partition)
        .join(dead_letters, table.id == counts.c.newest)
        .join(sources, sources.c.id == table.source_id)
        .order_by(counts.c.number.desc(), table.reason)
    )
    return [
        DeadLetterGroup(
            reason=row.reason,
            count=int(row.number),
            topic=row.topic,
            partition=row.partition,
            source_offset=row.source_offset,
            detail=row.detail,
            payload=bytes(row.payload or b"")[:_SHOWN_BYTES].decode("utf-8", "replace"),
        )
        for row in rows
    ]
