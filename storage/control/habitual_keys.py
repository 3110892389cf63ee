"""Reads and writes of habitual keys: keys whose events are usually outliers. People and views read these rows."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from storage.control.records import HabitualKeyRow
from storage.database.engine import Database
from storage.database.tables import habitual_keys, streams


def write_habitual_keys(conn: sa.Connection, stream_id: int, rows: Sequence[HabitualKeyRow], now_us: int) -> None:
    """Insert the rows of keys that become habitual, and set the end of those that end to be."""
    for row in rows:
        table = habitual_keys.c
        of_row = (table.stream_id == stream_id, table.key == row.key, table.since_us == row.since_us)
        updated = conn.execute(habitual_keys.update().where(*of_row).values(until_us=row.until_us))
        if updated.rowcount:
            continue
        conn.execute(
            habitual_keys.insert().values(
                stream_id=stream_id,
                key=row.key,
                since_us=row.since_us,
                until_us=row.until_us,
                rate=row.rate,
                windows=row.windows,
                recorded_at_us=now_us,
            )
        )


def load_habitual_keys(db: Database, stream_id: int, limit: int = 100) -> list[HabitualKeyRow]:
    """Return the keys that are habitual at the end of the sealed windows, those with the highest rate first."""
    table = habitual_keys.c
    query = (
        sa.select(table.key, table.rate, table.windows, table.since_us, table.until_us)
        .join(streams, streams.c.id == table.stream_id)
        .where(
            table.stream_id == stream_id,
            table.since_us <= streams.c.sealed_until_us,
            table.until_us > streams.c.sealed_until_us,
        )
        .order_by(table.rate.desc(), table.key)
        .limit(limit)
    )
    with db.read() as conn:
        return [HabitualKeyRow(**row) for row in conn.execute(query).mappings()]
