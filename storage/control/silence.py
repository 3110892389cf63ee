"""Storage room: when events last came, and the pauses between them, for the detector of silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from storage.control.incidents import open_incidents
from storage.control.records import StoredIncident
from storage.database.engine import Database
from storage.database.tables import FOREVER_US, leases, positions, streams, windows

_MAX_WINDOWS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalFacts:
    """What has come of a stream; times on the database's clock but for `last_event_us`, which is event time.

    `at_end` says that each source has just been seen at its end with nothing left to read; `ended`, that nothing will
    ever come again. `last_window_us` is the newest judged window with events.
    """

    now_us: int
    last_arrival_us: int | None
    last_event_us: int | None
    at_end: bool
    ended: bool
    last_window_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A time without events between two windows that have some; half a window of each counts as part of it."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseHistory:
    """The windows with events of a look-back, and the pauses between those that do not follow each other, in order."""

    start_us: int
    end_us: int
    windows: int
    pauses: Sequence[Pause]


class SilenceStore:
    """Reads; what is found is written by `change_incidents`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find_stream(self, stream: str) -> int | None:
        """Return the stream's id, or None before its first run."""
        with self._db.read() as conn:
            found: int | None = conn.scalar(sa.select(streams.c.id).where(streams.c.name == stream))
            return found

    def is_lease_held(self, lease: str, holder: str) -> bool:
        """Return whether this holder has the lease now."""
        query = sa.select(leases.c.name).where(
            leases.c.name == lease, leases.c.holder == holder, leases.c.expires_at_us > self._db.clock_expression()
        )
        with self._db.read() as conn:
            return conn.execute(query).first() is not None

    def open_incidents(self, stream_id: int) -> list[StoredIncident]:
        """Return the stream's open incidents, of every kind."""
        with self._db.read() as conn:
            return open_incidents(conn, stream_id)

    def arrival_facts(self, stream_id: int) -> ArrivalFacts:
        """Return what has come."""
        with self._db.read() as conn:
            now_us = self._db.now_us(conn)
            rows = conn.execute(
                sa.select(positions.c.committed_at_us, positions.c.last_event_us, positions.c.idle_until_us).where(
                    positions.c.stream_id == stream_id, positions.c.active
                )
            ).all()
            last_window_us = conn.scalar(
                sa.select(windows.c.window_start_us)
                .where(*_judged_with_events(stream_id))
                .order_by(windows.c.window_start_us.desc())
                .limit(1)
            )
        return ArrivalFacts(
            now_us=now_us,
            last_arrival_us=max((row.committed_at_us for row in rows if row.committed_at_us is not None), default=None),
            last_event_us=max((row.last_event_us for row in rows if row.last_event_us is not None), default=None),
            at_end=bool(rows) and all(row.idle_until_us > now_us for row in rows),
            ended=bool(rows) and all(row.idle_until_us == FOREVER_US for row in rows),
            last_window_us=last_window_us,
        )

    def pause_history(self, stream_id: int, since_us: int) -> PauseHistory:
        """Return the pauses between the windows since an event time; of very many windows the latest."""
        latest = (
            sa.select(windows.c.window_start_us, windows.c.window_end_us)
            .where(*_judged_with_events(stream_id), windows.c.window_start_us >= since_us)
            .order_by(windows.c.window_start_us.desc())
            .limit(_MAX_WINDOWS)
            .subquery()
        )
        before = sa.func.lag(latest.c.window_end_us).over(order_by=latest.c.window_start_us)
        pairs = sa.select(
            latest.c.window_start_us,
            (latest.c.window_end_us - latest.c.window_start_us).label("size"),
            before.label("before"),
        ).subquery()
        skipping = sa.select(pairs).where(pairs.c.window_start_us > pairs.c.before).order_by(pairs.c.window_start_us)
        ends = sa.select(sa.func.count(), sa.func.min(latest.c.window_start_us), sa.func.max(latest.c.window_end_us))
        with self._db.read() as conn:
            count, begin_us, end_us = conn.execute(ends).one()
            found = conn.execute(skipping).all()
        pauses = [
            Pause(start_us=row.before - row.size // 2, end_us=row.window_start_us + row.size // 2) for row in found
        ]
        return PauseHistory(start_us=begin_us or 0, end_us=end_us or 0, windows=int(count), pauses=pauses)


def _judged_with_events(stream_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (windows.c.stream_id == stream_id, windows.c.events > 0, windows.c.judged_at_us.is_not(None))
