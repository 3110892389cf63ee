"""Arrival times of events and the pauses between windows, for the detection of silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from storage.control.incidents import open_incidents
from storage.control.records import Incident
from storage.control.window_facts import judged_with_events
from storage.database.engine import Database
from storage.database.tables import FOREVER_US, leases, positions, streams, windows

_MAX_WINDOWS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalFacts:
    """Arrival of the events of a stream.

    Attributes:
        now_us: Current time on the database's clock.
        last_arrival_us: Time of the last commit with events, on the database's clock.
        last_event_us: The largest event time.
        at_end: Every source has recently been read to its end.
        ended: Every source has ended; no event will follow.
        last_window_us: Start of the newest judged window with events.
    """

    now_us: int
    last_arrival_us: int | None
    last_event_us: int | None
    at_end: bool
    ended: bool
    last_window_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A time without events between two windows with events; half of each window counts as part of the pause."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseHistory:
    """Number of windows with events in a look-back, and the pauses between those that are not adjacent, in order."""

    start_us: int
    end_us: int
    windows: int
    pauses: Sequence[Pause]


class SilenceStore:
    """Reads the input of the silence watch; `change_incidents` writes its incidents."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find_stream(self, stream: str) -> int | None:
        """Return the id of a stream; None before its first run."""
        with self._db.read() as conn:
            stream_id: int | None = conn.scalar(sa.select(streams.c.id).where(streams.c.name == stream))
            return stream_id

    def is_lease_held(self, lease: str, holder: str) -> bool:
        """Return whether this holder currently holds the lease."""
        query = sa.select(leases.c.name).where(
            leases.c.name == lease, leases.c.holder == holder, leases.c.expires_at_us > self._db.clock_expression()
        )
        with self._db.read() as conn:
            return conn.execute(query).first() is not None

    def open_incidents(self, stream_id: int) -> list[Incident]:
        """Return the open incidents of a stream, of every kind."""
        with self._db.read() as conn:
            return open_incidents(conn, stream_id)

    def arrival_facts(self, stream_id: int) -> ArrivalFacts:
        """Return the arrival times of a stream and the state of its sources."""
        with self._db.read() as conn:
            now_us = self._db.now_us(conn)
            rows = conn.execute(
                sa.select(positions.c.committed_at_us, positions.c.last_event_us, positions.c.idle_until_us).where(
                    positions.c.stream_id == stream_id, positions.c.active
                )
            ).all()
            last_window_us = conn.scalar(
                sa.select(windows.c.window_start_us)
                .where(*judged_with_events(stream_id))
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
        """Return the pauses between windows since an event time, at most those of the latest `_MAX_WINDOWS` windows."""
        latest = (
            sa.select(windows.c.window_start_us, windows.c.window_end_us)
            .where(*judged_with_events(stream_id), windows.c.window_start_us >= since_us)
            .order_by(windows.c.window_start_us.desc())
            .limit(_MAX_WINDOWS)
            .subquery()
        )
        previous_end = sa.func.lag(latest.c.window_end_us).over(order_by=latest.c.window_start_us)
        windows_with_previous = sa.select(
            latest.c.window_start_us,
            (latest.c.window_end_us - latest.c.window_start_us).label("size"),
            previous_end.label("previous_end"),
        ).subquery()
        after_pause = (
            sa.select(windows_with_previous)
            .where(windows_with_previous.c.window_start_us > windows_with_previous.c.previous_end)
            .order_by(windows_with_previous.c.window_start_us)
        )
        extent = sa.select(sa.func.count(), sa.func.min(latest.c.window_start_us), sa.func.max(latest.c.window_end_us))
        with self._db.read() as conn:
            count, start_us, end_us = conn.execute(extent).one()
            rows = conn.execute(after_pause).all()
        pauses = [
            Pause(start_us=row.previous_end - row.size // 2, end_us=row.window_start_us + row.size // 2) for row in rows
        ]
        return PauseHistory(start_us=start_us or 0, end_us=end_us or 0, windows=int(count), pauses=pauses)
