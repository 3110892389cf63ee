"""Sources at the end of their log that bring no events: they hold no window open for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.tables import positions

IDLE_LEASE_US = 5_000_000
"""Time after which a source is no longer idle, unless its owner sees it at the end of its log again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleSource:
    """A claimed source whose position is the end of its log."""

    source_id: int
    epoch: int
    next_offset: int


def mark_idle(db: Database, idle_sources: Sequence[IdleSource], seen_us: int) -> set[int]:
    """Mark sources as idle for `IDLE_LEASE_US`, in one transaction.

    Args:
        db: The database.
        idle_sources: The sources. One that has another owner, or another position, is not idle.
        seen_us: The time on the database's clock at which their logs were known to end at these positions, or earlier.

    Returns:
        The ids of the sources that are idle now.
    """
    if not idle_sources:
        return set()
    expected = {each.source_id: (each.epoch, each.next_offset) for each in idle_sources}
    with db.write() as connection:
        locked = connection.execute(
            sa.select(positions.c.source_id, positions.c.epoch, positions.c.next_offset)
            .where(positions.c.source_id.in_(expected), positions.c.active)
            .order_by(positions.c.source_id)
            .with_for_update()
        )
        idle = {row.source_id for row in locked if expected[row.source_id] == (row.epoch, row.next_offset)}
        until = sa.literal(seen_us + IDLE_LEASE_US, sa.BigInteger)
        seen = sa.literal(seen_us, sa.BigInteger)
        if idle:
            connection.execute(
                sa.update(positions)
                .where(positions.c.source_id.in_(idle))
                .values(
                    idle_until_us=sa.case((positions.c.idle_until_us > until, positions.c.idle_until_us), else_=until),
                    idle_seen_us=sa.case((positions.c.idle_seen_us > seen, positions.c.idle_seen_us), else_=seen),
                )
            )
        return idle
