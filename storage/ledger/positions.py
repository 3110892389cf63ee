"""Position rows inside a commit: locked in the order of their ids, compared with the commits, advanced together."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.tables import FOREVER_US, positions, streams
from storage.ledger.commit import Commit, Fenced, Stale, StreamControl

_POSTGRESQL_ADVANCE = """UPDATE positions SET
  next_offset = new.next_offset, cursor = new.cursor, watermark_us = new.watermark_us,
  last_event_us = new.last_event_us, idle_until_us = new.idle_until_us, committed_at_us = %s
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
  AS new(next_offset, cursor, watermark_us, last_event_us, idle_until_us, source_id)
WHERE positions.source_id = new.source_id"""
_SQLITE_ADVANCE = """UPDATE positions SET
  next_offset = ?, cursor = ?, watermark_us = ?, last_event_us = ?, idle_until_us = ?, committed_at_us = ?
WHERE source_id = ?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPosition:
    """The position of an active source as stored."""

    source_id: int
    epoch: int
    next_offset: int
    cursor: int | None
    watermark_us: int | None
    last_event_us: int | None


def select_positions(connection: Connection, source_ids: Sequence[int], *, lock: bool) -> dict[int, StoredPosition]:
    """Return the positions of the active sources among `source_ids`.

    Args:
        connection: The transaction.
        source_ids: The sources.
        lock: Lock the rows until the transaction ends, in the order of their ids, as every transaction does that locks
            several of them: no two of them can wait for each other.
    """
    query = (
        sa.select(
            positions.c.source_id,
            positions.c.epoch,
            positions.c.next_offset,
            positions.c.cursor,
            positions.c.watermark_us,
            positions.c.last_event_us,
        )
        .where(positions.c.source_id.in_(source_ids), positions.c.active)
        .order_by(positions.c.source_id)
    )
    rows = connection.execute(query.with_for_update() if lock else query).mappings()
    return {row["source_id"]: StoredPosition(**row) for row in rows}


def read_control(connection: Connection, stream_id: int) -> StreamControl:
    """Return the state of a stream that the control plane sets."""
    return read_control_at(connection, stream_id, sa.literal(0))[0]


def read_control_at(connection: Connection, stream_id: int, clock: sa.ColumnElement[int]) -> tuple[StreamControl, int]:
    """Return the state of a stream that the control plane sets, and the time of the database's clock."""
    columns = (streams.c.sealed_until_us, streams.c.revision, streams.c.last_tick_us, streams.c.settings_revision)
    query = sa.select(clock.label("now_us"), *columns).where(streams.c.id == stream_id)
    values = dict(connection.execute(query).mappings().one())
    return StreamControl(**{column.name: values[column.name] for column in columns}), int(values["now_us"])


def find_rejection(commit: Commit, stored: StoredPosition | None, control: StreamControl) -> Fenced | Stale | None:
    """Return why a commit must not be stored; None if it may be.

    Args:
        commit: The commit.
        stored: The locked position of its source; None if the source is not active.
        control: The state of the stream, read after the position was locked.
    """
    if stored is None or (stored.epoch, stored.next_offset) != (commit.epoch, commit.begin):
        return Fenced()
    assumed, sealed_us = commit.assumed_control, control.sealed_until_us
    has_sealed_window = sealed_us is not None and any(
        part.events > 0 and part.window_end_us <= sealed_us for part in commit.parts
    )
    if has_sealed_window or _revisions(control) != _revisions(assumed):
        return Stale(control=control)
    return None


def _revisions(control: StreamControl) -> tuple[int, int]:
    return control.revision, control.settings_revision


def advance_positions(
    connection: Connection, commits: Sequence[Commit], stored: Mapping[int, StoredPosition], stored_at_us: int
) -> None:
    """Advance the locked positions of commits in one statement.

    Args:
        connection: The transaction.
        commits: The commits, each of another source.
        stored: The locked position of each source.
        stored_at_us: The time of storing.
    """
    rows = [_next_values(commit, stored[commit.source_id]) for commit in commits]
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        driver.executemany(_SQLITE_ADVANCE, [(*row[:-1], stored_at_us, row[-1]) for row in rows])
        return
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(type(driver))
    with driver.cursor() as cursor:
        cursor.execute(_POSTGRESQL_ADVANCE, [stored_at_us, *(list(column) for column in zip(*rows, strict=True))])


def _next_values(commit: Commit, stored: StoredPosition) -> tuple[int | None, ...]:
    """Return next offset, cursor, watermark, last event and end of the idle lease after a commit, and the source."""
    newest_us = int(commit.scores.times_us.max()) if len(commit.scores) else None
    return (
        commit.end,
        # A commit that only advances the watermark has no cursor, and must not overwrite the stored one.
        commit.end_cursor if commit.end != commit.begin else stored.cursor,
        _latest(stored.watermark_us, commit.watermark_us),
        _latest(stored.last_event_us, newest_us),
        # A commit that advances, or reports a head event, shows that the source is not idle.
        FOREVER_US if commit.ended else 0,
        commit.source_id,
    )


def _latest(stored_us: int | None, new_us: int | None) -> int | None:
    return max((time_us for time_us in (stored_us, new_us) if time_us is not None), default=None)
