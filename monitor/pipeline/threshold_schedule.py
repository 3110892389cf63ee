"""The threshold rows of a stream as arrays: which threshold and which model apply to a window. Pure functions."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from consumers.windows import NO_WATERMARK_US
from storage.control.shadows import ScheduledShadow
from storage.ledger.schedule import ScheduledThreshold

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdSchedule:
    """Threshold rows of a stream, and with them the models, in the order of the start of their validity.

    The schedule holds every row that is valid at or after `complete_from_us`. Rows that are valid only before that time
    are missing; a batch with earlier events needs `with_rows`.
    """

    valid_from_us: Int64
    threshold_ids: Int64
    model_ids: Int64
    thresholds: NDArray[np.float64]
    newest_id: int
    rows: tuple[ScheduledThreshold, ...]
    complete_from_us: int = NO_WATERMARK_US
    shadows: tuple[ScheduledShadow, ...] = ()

    @staticmethod
    def from_rows(
        rows: Sequence[ScheduledThreshold], *, complete_from_us: int = NO_WATERMARK_US
    ) -> "ThresholdSchedule":
        """Build the schedule of stored rows. Of rows that are valid from the same time the last one applies."""
        ordered = sorted(rows, key=lambda row: (row.valid_from_us, row.id))
        return ThresholdSchedule(
            valid_from_us=np.array([row.valid_from_us for row in ordered], np.int64),
            threshold_ids=np.array([row.id for row in ordered], np.int64),
            model_ids=np.array([row.model_id for row in ordered], np.int64),
            thresholds=np.array([row.threshold for row in ordered], np.float64),
            newest_id=max((row.id for row in rows), default=0),
            rows=tuple(ordered),
            complete_from_us=complete_from_us,
        )

    def extend(self, rows: Sequence[ScheduledThreshold], *, sealed_until_us: int | None = None) -> "ThresholdSchedule":
        """Return the schedule with further rows, without the rows that are valid only before `sealed_until_us`."""
        if not rows:
            return self
        all_rows = sorted([*self.rows, *rows], key=lambda row: (row.valid_from_us, row.id))
        first = 0
        if sealed_until_us is not None:
            first = max(bisect_right(all_rows, sealed_until_us, key=lambda row: row.valid_from_us) - 1, 0)
        complete_from_us = all_rows[first].valid_from_us if first else self.complete_from_us
        extended = ThresholdSchedule.from_rows(all_rows[first:], complete_from_us=complete_from_us)
        return replace(extended, shadows=self.shadows)

    def with_rows(self, rows: Sequence[ScheduledThreshold]) -> "ThresholdSchedule":
        """Return the schedule with the rows that are valid at all earlier windows of one batch, for its fold alone.

        It counts as complete even if retention has deleted rows of these windows.
        """
        known = set(self.threshold_ids.tolist())
        further = [row for row in rows if row.id not in known]
        return replace(ThresholdSchedule.from_rows([*self.rows, *further]), shadows=self.shadows)

    def rows_at(self, window_starts_us: Int64) -> Int64:
        """Return the index of the row that is valid for each window; the first row is valid for all earlier ones."""
        rows = np.searchsorted(self.valid_from_us, window_starts_us, side="right") - 1
        return np.maximum(rows, 0)
