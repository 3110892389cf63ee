"""Storage room: the stored windows of a stream, read back for a back-test; read-only, in short transactions."""

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
    """A judged window with its merged statistics, and the model that scored it."""

    window_start_us: int
    window_end_us: int
    model_id: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRange:
    """How many windows there are from `since_us` on, and where the last one ends."""

    since_us: int
    end_us: int
    windows: int


class RecordedWindows:
    """The judged windows of one stream."""

    def __init__(self, db: Database, stream_id: int) -> None:
        self._db = db
        self._judged = (
            windows.c.stream_id == stream_id,
            windows.c.judged_at_us.is_not(None),
            windows.c.payload.is_not(None),
        )
        self._stream_id = stream_id

    def find_range(self, since: TimeBound | None) -> RecordedRange | None:
        """Return what there is since a time, or a duration back from the latest event; None where there is nothing.

        Raises:
            ConfigError: The time cannot be read.
        """
        query = sa.select(sa.func.max(positions.c.last_event_us)).where(positions.c.stream_id == self._stream_id)
        counted = sa.select(
            sa.func.min(windows.c.window_start_us), sa.func.max(windows.c.window_end_us), sa.func.count()
        )
        with self._db.read() as conn:
            since_us = resolve_time_bound(since, conn.execute(query).scalar_one_or_none()) or 0
            first, end, n = conn.execute(counted.where(*self._judged, windows.c.window_end_us > since_us)).one()
        return None if not n else RecordedRange(since_us=max(first, since_us), end_us=end, windows=n)

    def read_windows(self, since_us: int) -> Iterator[RecordedWindow]:
        """Give the windows that end after a time, in their order."""
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
        """Return what models saw of judged windows in the shadow of another one, in the order of the windows."""
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
            return [RecordedWindow(**row._mapping) for row in conn.execute(query)]  # noqa: SLF001 - its name

    def read_activations(self) -> list[tuple[int, Activation]]:
        """Return each model with the time at which it became active, in the order of storing; some come twice."""
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
