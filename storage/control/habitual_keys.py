"""Reads and writes of habitual keys: keys whose events are usually outliers. People and views read these rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import sqlalchemy as sa

from storage.control.records import HabitualKeyRow
from storage.database.engine import Database
from storage.database.tables import habitual_keys, streams


def write_habitual_keys(conn: sa.Connection, stream_id: int, rows: Sequence[HabitualKeyRow], now_us: int) -> None:
    """Insert the rows of keys that become habitual, and set end and acceptance of the others.

    `recorded_at_us` is the time of the last change: retention keeps the row while its outliers are kept.
    """
    for row in rows:
        table = habitual_keys.c
        of_row = (table.stream_id == stream_id, table.key == row.key, table.since_us == row.since_us)
        changed = {
            "until_us": row.until_us,
            "accepted_by": row.accepted_by,
            "accepted_at_us": row.accepted_at_us,
            "recorded_at_us": now_us,
        }
        updated = conn.execute(habitual_keys.update().where(*of_row).values(changed))
        if updated.rowcount:
            continue
        conn.execute(
            habitual_keys.insert().values(
                stream_id=stream_id,
                key=row.key,
                since_us=row.since_us,
                rate=row.rate,
                windows=row.windows,
                **changed,
            )
        )


def load_habitual_keys(db: Database, stream_id: int, limit: int = 100) -> list[HabitualKeyRow]:
    """Return the keys that are habitual at the end of the sealed windows, those with the highest rate first."""
    table = habitual_keys.c
    query = (
        sa.select(*(table[each.name] for each in fields(HabitualKeyRow)))
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
