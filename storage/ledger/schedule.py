"""The threshold rows of a stream as the pipeline reads them, and the record of their use.

A row is valid from `valid_from_us` until the next row in the order of (`valid_from_us`, `id`); of rows with equal
starts the last one is valid. The first row is valid for all earlier times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from config.time_format import MINUTE_US
from storage.database.engine import Database
from storage.database.tables import thresholds

USE_RESOLUTION_US = MINUTE_US
"""`thresholds.used_at_us` is at most this much older than the newest score under the row."""

_MAX_TRACKED = 1_000
_ORDER = (thresholds.c.valid_from_us, thresholds.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledThreshold:
    """A stored threshold; it applies from the window that begins at `valid_from_us`."""

    id: int
    model_id: int
    valid_from_us: int
    threshold: float


def read_schedule(
    db: Database, stream_id: int, *, after_id: int = 0, from_us: int | None = None
) -> list[ScheduledThreshold]:
    """Return the threshold rows of a stream in the order of their validity.

    Args:
        db: The database.
        stream_id: The stream.
        after_id: Return only rows with a larger id.
        from_us: Return only the rows that are valid at or after this event time. None: all rows.
    """
    query = _select(stream_id).where(thresholds.c.id > after_id).order_by(*_ORDER)
    with db.read() as connection:
        if from_us is not None:
            first = _read_row_at(connection, stream_id, from_us)
            query = query.where(thresholds.c.valid_from_us >= (from_us if first is None else first.valid_from_us))
        return [ScheduledThreshold(**row) for row in connection.execute(query).mappings()]


def read_thresholds_at(db: Database, stream_id: int, times_us: Sequence[int]) -> list[ScheduledThreshold]:
    """Return the threshold rows that are valid at the given event times, in the order of their validity.

    One indexed read for each returned row, independent of the number of rows of the stream.
    """
    found: dict[int, ScheduledThreshold] = {}
    valid_from_us: int | None = None
    with db.read() as connection:
        for time_us in sorted(set(times_us), reverse=True):
            if valid_from_us is not None and time_us >= valid_from_us:
                continue  # the row that was found for a later time is valid at this one
            row = _read_row_at(connection, stream_id, time_us) or _read_first_row(connection, stream_id)
            if row is None:
                break
            found[row.id] = row
            valid_from_us = row.valid_from_us
    return sorted(found.values(), key=lambda row: (row.valid_from_us, row.id))


def _select(stream_id: int) -> sa.Select[Any]:
    columns = (thresholds.c.id, thresholds.c.model_id, thresholds.c.valid_from_us, thresholds.c.threshold)
    return sa.select(*columns).where(thresholds.c.stream_id == stream_id)


def _read_row_at(connection: Connection, stream_id: int, time_us: int) -> ScheduledThreshold | None:
    valid = _select(stream_id).where(thresholds.c.valid_from_us <= time_us)
    row = connection.execute(valid.order_by(*(column.desc() for column in _ORDER)).limit(1)).mappings().first()
    return None if row is None else ScheduledThreshold(**row)


def _read_first_row(connection: Connection, stream_id: int) -> ScheduledThreshold | None:
    row = connection.execute(_select(stream_id).order_by(*_ORDER).limit(1)).mappings().first()
    return None if row is None else ScheduledThreshold(**row)


def find_used(threshold_ids: NDArray[np.int64]) -> list[int]:
    """Return the distinct ids of the threshold rows of a commit's events, ascending."""
    if not len(threshold_ids):
        return []
    changes = np.flatnonzero(threshold_ids[1:] != threshold_ids[:-1]) + 1
    return sorted({int(threshold_ids[0]), *threshold_ids[changes].tolist()})


class ThresholdUse:
    """The times at which this process last recorded the use of threshold rows.

    A row is recorded once a minute, so that most commits write nothing for it. Used by all threads of a process.
    """

    def __init__(self) -> None:
        self._recorded_us: dict[int, int] = {}

    def find_due(self, threshold_ids: Sequence[int], now_us: int) -> list[int]:
        """Return the rows of which no use was recorded within the last minute."""
        recorded = self._recorded_us
        # A recorded time in the future is from before the clock was set back.
        return [each for each in threshold_ids if not 0 <= now_us - recorded.get(each, -1) < USE_RESOLUTION_US]

    def mark_recorded(self, threshold_ids: Sequence[int], now_us: int) -> None:
        """Note that the use of rows was recorded by a transaction that is committed."""
        if len(self._recorded_us) > _MAX_TRACKED:
            self._recorded_us = {}
        self._recorded_us |= dict.fromkeys(threshold_ids, now_us)


def record_use(connection: Connection, threshold_ids: Sequence[int], now_us: int) -> bool:
    """Record the use of threshold rows at `now_us`; return False if one of them no longer exists.

    The updated rows stay locked until the transaction ends, so that retention cannot delete them meanwhile. They are
    updated in the order of their ids, so that two commits cannot wait for each other.
    """
    for threshold_id in sorted(threshold_ids):
        updated = connection.execute(
            sa.update(thresholds).where(thresholds.c.id == threshold_id).values(used_at_us=now_us)
        )
        if updated.rowcount != 1:
            return False
    return True
