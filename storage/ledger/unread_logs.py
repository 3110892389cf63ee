"""Gaps of logs that were replaced before they were read to their end: a deleted topic, or another file."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database
from storage.database.tables import FOREVER_US, gaps, positions

LOG_REPLACED = "log_replaced"
"""The reason of such a gap. Its length is unknown: it begins and ends at the position of the old log."""


def record_unread_logs(db: Database, connection: Connection, source_ids: Sequence[int]) -> None:
    """Insert a gap for each of these sources that was not seen at the end of its log since its last commit.

    The caller holds the lock on the stream's row. The old log is gone, so its end cannot be read any more.
    """
    if not source_ids:
        return
    unread = sa.select(
        positions.c.source_id,
        positions.c.next_offset.label("from_offset"),
        positions.c.next_offset.label("to_offset"),
        sa.literal(LOG_REPLACED).label("reason"),
        db.clock_expression().label("recorded_at_us"),
        positions.c.watermark_us.label("event_time_us"),
    ).where(
        positions.c.source_id.in_(source_ids),
        positions.c.idle_until_us != FOREVER_US,
        sa.func.coalesce(positions.c.committed_at_us, 0) > sa.func.coalesce(positions.c.idle_seen_us, 0),
    )
    columns = ["source_id", "from_offset", "to_offset", "reason", "recorded_at_us", "event_time_us"]
    connection.execute(sa.insert(gaps).from_select(columns, unread))
