"""Roll-ups of judged windows: the windows to sum up, the rows to store, and what later changes of windows add to them.

Event time is divided into intervals of 15 minutes and of 6 hours. An interval is summed up once all windows that start
in it are sealed and judged; `streams.rolled_up_us` is the end of the last one. Late events, and dead letters of sources
that were idle, can change the counts of a window, or add a window, before that time: the transaction that stores them
adds them to the roll-ups as well. So the roll-ups are the sums over the stored windows at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from config.time_format import HOUR_US, MINUTE_US
from storage.control.window_facts import STREAM_ID, is_unjudged_part
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import streams, window_parts, window_rollups, windows

FINE_US, COARSE_US = 15 * MINUTE_US, 6 * HOUR_US
"""Lengths of the intervals, in microseconds."""

_CHUNK = 500
_NO_EVENTS: dict[str, Any] = {"fired": 0, "events": 0, "outliers": 0, "most_outliers": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupFacts:
    """Progress of the roll-ups of a stream.

    Attributes:
        rolled_up_us: Event time up to which windows are summed up; None before the first roll-up.
        sealed_until_us: The seal of the stream.
        next_window_us: Start of the first window at or after `rolled_up_us`; None without one.
        first_unjudged_us: Start of the first window that is not judged yet; None without one.
    """

    rolled_up_us: int | None
    sealed_until_us: int | None
    next_window_us: int | None
    first_unjudged_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledWindow:
    """A stored window; `judged` is False if it has late events only, and `fired` is True for one with an alarm."""

    start_us: int
    end_us: int
    threshold_id: int | None
    judged: bool
    fired: bool
    events: int
    outliers: int
    late: int
    dead: int
    filtered: int
    expected: float | None
    fires_at: int | None
    p_value: float | None
    payload: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupRow:
    """A row of `window_rollups`; the columns are described there."""

    resolution_us: int
    start_us: int
    end_us: int
    windows: int
    fired: int
    events: int
    outliers: int
    late: int
    dead: int
    filtered: int
    expected: float | None
    most_outliers: int
    fires_at: int | None
    p_value: float | None
    energy_p50: float | None
    energy_p99: float | None
    energy_max: float | None
    model_version: int | None


# The statements are built once: building one takes as long as running it, and the control plane runs them often.
_ROLLED_UP = sa.select(streams.c.rolled_up_us).where(streams.c.id == STREAM_ID)
_NEXT_WINDOW = sa.select(sa.func.min(windows.c.window_start_us)).where(
    windows.c.stream_id == STREAM_ID,
    windows.c.window_start_us >= sa.func.coalesce(_ROLLED_UP.scalar_subquery(), -(2**63)),
)
_FIRST_UNJUDGED = (
    sa.select(window_parts.c.window_start_us)
    .where(*is_unjudged_part(STREAM_ID))
    .order_by(window_parts.c.window_end_us)
    .limit(1)
)
_FACTS = sa.select(
    streams.c.rolled_up_us,
    streams.c.sealed_until_us,
    _NEXT_WINDOW.scalar_subquery().label("next_window_us"),
    _FIRST_UNJUDGED.scalar_subquery().label("first_unjudged_us"),
).where(streams.c.id == STREAM_ID)
_IN_INTERVAL = (
    windows.c.stream_id == STREAM_ID,
    windows.c.window_start_us >= sa.bindparam("from_us", type_=sa.BigInteger),
    windows.c.window_start_us < sa.bindparam("until_us", type_=sa.BigInteger),
)
_WINDOWS = (
    sa.select(
        windows.c.window_start_us.label("start_us"),
        windows.c.window_end_us.label("end_us"),
        windows.c.judged_at_us.is_not(None).label("judged"),
        windows.c.details.is_not(None).label("fired"),
        *(
            windows.c[name]
            for name in ("threshold_id", "events", "outliers", "late", "dead", "filtered", "expected", "fires_at")
        ),
        windows.c.p_value,
        windows.c.payload,
    )
    .where(*_IN_INTERVAL)
    .order_by(windows.c.window_start_us)
    .limit(_CHUNK)
)
_CHANGING_COUNTS = sa.select(
    sa.func.max(windows.c.window_end_us).label("end_us"),
    sa.func.count(windows.c.judged_at_us).label("windows"),
    *(sa.cast(sa.func.sum(windows.c[name]), sa.BigInteger).label(name) for name in ("late", "dead", "filtered")),
).where(*_IN_INTERVAL)


class RollupStore:
    """Reads judged windows and stores their roll-ups."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def rollup_facts(self, stream_id: int) -> RollupFacts:
        """Return the progress of the roll-ups of a stream."""
        with self._db.read() as conn:
            return RollupFacts(**conn.execute(_FACTS, {"stream_id": stream_id}).mappings().one())

    def rolled_windows(self, stream_id: int, from_us: int, until_us: int) -> Iterator[list[RolledWindow]]:
        """Yield the windows that start in [from, until) in order, in lists that bound the memory."""
        while True:
            interval = {"stream_id": stream_id, "from_us": from_us, "until_us": until_us}
            with self._db.read() as conn:
                rows = conn.execute(_WINDOWS, interval).mappings().all()
            if rows:
                yield [
                    RolledWindow(**{**row, "judged": bool(row["judged"]), "fired": bool(row["fired"])}) for row in rows
                ]
            if len(rows) < _CHUNK:
                return
            from_us = rows[-1]["start_us"] + 1

    def store_rollups(self, stream_id: int, rolled_up_us: int | None, until_us: int, rows: Sequence[RollupRow]) -> bool:
        """Store the roll-ups of the windows up to a time; return False if others were stored since `rolled_up_us`.

        The counts that late events change are read again under the lock of the stream's row.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            if conn.execute(_ROLLED_UP, {"stream_id": stream_id}).scalar_one() != rolled_up_us:
                return False
            now_us = self._db.now_us(conn)
            for row in rows:
                interval = {"from_us": row.start_us, "until_us": row.start_us + row.resolution_us}
                counts = conn.execute(_CHANGING_COUNTS, {"stream_id": stream_id, **interval}).mappings().one()
                values = asdict(row) | dict(counts)
                conn.execute(window_rollups.insert().values(stream_id=stream_id, recorded_at_us=now_us, **values))
            conn.execute(streams.update().where(streams.c.id == stream_id).values(rolled_up_us=until_us))
            return True


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowChange:
    """Counts that a window gains after the roll-ups of its time were stored; `windows` is 1 for a new judged window."""

    start_us: int
    end_us: int
    windows: int
    late: int
    dead: int
    filtered: int


def add_to_rollups(db: Database, conn: sa.Connection, stream_id: int, change: WindowChange) -> None:
    """Add a change of a window to the stored roll-ups of its time. The caller holds the lock on the stream's row."""
    rolled_up_us = conn.execute(_ROLLED_UP, {"stream_id": stream_id}).scalar_one()
    if rolled_up_us is None or change.start_us >= rolled_up_us:
        return
    table = window_rollups.c
    for resolution_us in (FINE_US, COARSE_US):
        start_us = change.start_us // resolution_us * resolution_us
        if start_us + resolution_us > rolled_up_us:
            continue
        key = {"stream_id": stream_id, "resolution_us": resolution_us, "start_us": start_us}
        values = _NO_EVENTS | asdict(change) | key
        insert = db.insert(window_rollups).values(recorded_at_us=db.now_us(conn), **values)
        added = {name: table[name] + insert.excluded[name] for name in ("windows", "late", "dead", "filtered")}
        last_us = sa.case((table.end_us < insert.excluded.end_us, insert.excluded.end_us), else_=table.end_us)
        conn.execute(insert.on_conflict_do_update(index_elements=list(key), set_=added | {"end_us": last_us}))
