"""The stored windows of a stream as input of a back-test, read in short read-only transactions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from storage.control.models import Activation
from storage.database.engine import Database
from storage.database.tables import positions, shadow_windows, thresholds, windows
from storage.queries.times import TimeBound, resolve_time_bound

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedWindow:
    """A judged window with its encoded merged part and the model that scored it."""

    window_start_us: int
    window_end_us: int
    model_id: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRange:
    """Time range [since_us, end_us) of the stored windows and their number."""

    since_us: int
    end_us: int
    windows: int


class RecordedWindows:
    """Reads the judged windows of one stream."""

    def __init__(self, db: Database, stream_id: int) -> None:
        self._db = db
        self._judged = (
            windows.c.stream_id == stream_id,
            windows.c.judged_at_us.is_not(None),
            windows.c.payload.is_not(None),
        )
        self._stream_id = stream_id

    def find_range(self, since: TimeBound | None) -> RecordedRange | None:
        """Return the range of windows since a time, or since a duration back from the latest event; None if empty.

        Raises:
            ConfigError: The bound is neither a time nor a duration.
        """
        latest_event = sa.select(sa.func.max(positions.c.last_event_us)).where(positions.c.stream_id == self._stream_id)
        extent = sa.select(
            sa.func.min(windows.c.window_start_us), sa.func.max(windows.c.window_end_us), sa.func.count()
        )
        with self._db.read() as conn:
            since_us = resolve_time_bound(since, conn.execute(latest_event).scalar_one_or_none()) or 0
            first_us, end_us, n = conn.execute(extent.where(*self._judged, windows.c.window_end_us > since_us)).one()
        return None if not n else RecordedRange(since_us=max(first_us, since_us), end_us=end_us, windows=n)

    def read_windows(self, since_us: int) -> Iterator[RecordedWindow]:
        """Yield the windows that end after `since_us`, by start."""
        after_us = -1
        while True:
            query = (
                sa.select(windows.c.window_start_us, windows.c.window_end_us, thresholds.c.model_id, windows.c.payload)
                .join(thresholds, thresholds.c.id == windows.c.threshold_id)
                .where(*self._judged, windows.c.window_end_us > since_us, windows.c.window_start_us > after_us)
                .order_by(windows.c.window_start_us)
                .limit(_CHUNK)
            )
            with self._db.read() as conn:
                rows = conn.execute(query).all()
            for row in rows:
                yield RecordedWindow(**row._mapping)  # noqa: SLF001 - SQLAlchemy's name for a row's mapping
            if len(rows) < _CHUNK:
                return
            after_us = rows[-1].window_start_us

    def read_shadow_windows(self) -> list[RecordedWindow]:
        """Return the judged windows as scored by shadow models, by window start."""
        query = (
            sa.select(
                windows.c.window_start_us,
                windows.c.window_end_us,
                shadow_windows.c.model_id,
                shadow_windows.c.payload,
            )
            .join(shadow_windows, shadow_windows.c.window_start_us == windows.c.window_start_us)
            .where(*self._judged, shadow_windows.c.stream_id == self._stream_id)
            .order_by(windows.c.window_start_us)
        )
        with self._db.read() as conn:
            return [RecordedWindow(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001 - as above

    def read_activations(self) -> list[tuple[int, Activation]]:
        """Return (model id, activation) pairs in the order of storing; a model that was active twice occurs twice."""
        before = sa.func.lag(thresholds.c.model_id).over(order_by=thresholds.c.id)
        rows = (
            sa.select(thresholds, before.label("model_before"))
            .where(thresholds.c.stream_id == self._stream_id)
            .order_by(thresholds.c.id)
            .subquery()
        )
        query = (
            sa.select(rows.c.model_id, rows.c.valid_from_us, rows.c.computed_at_us)
            .where(rows.c.model_before.is_distinct_from(rows.c.model_id))
            .order_by(rows.c.id)
        )
        with self._db.read() as conn:
            return [
                (model_id, Activation(valid_from_us=valid_from, computed_at_us=computed_at))
                for model_id, valid_from, computed_at in conn.execute(query)
            ]
