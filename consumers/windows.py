"""Event-time functions on columns: window starts and watermarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from consumers.batch import Int64

NO_WATERMARK_US = int(np.iinfo(np.int64).min)
"""The watermark of a source without events. It is less than every time."""

ENDED_WATERMARK_US = int(np.iinfo(np.int64).max)
"""The watermark of a source that has ended. It is greater than every time."""


def window_start(times_us: Int64, size_us: int) -> Int64:
    """Return the start of the tumbling window of each time. Windows are aligned to 1970-01-01."""
    return times_us - times_us % size_us


def watermark_before(times_us: Int64, before_us: int | None) -> Int64:
    """Return the source's watermark before each event: the largest time at earlier offsets.

    `before_us` is the watermark before the first of these events, or None if there was no event.
    """
    running = np.empty(len(times_us), np.int64)
    if len(times_us):
        running[0] = NO_WATERMARK_US if before_us is None else before_us
        np.maximum.accumulate(times_us[:-1], out=running[1:])
        np.maximum(running, running[0], out=running)
    return running


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceWatermarks:
    """The watermark of a source over the offsets of one batch.

    `marks_us` has one element more than `offsets`: element i is the largest time before offset `offsets[i]`, and the
    last one the largest of all; `NO_WATERMARK_US` before the first event of the source.
    """

    offsets: Int64
    marks_us: Int64

    @staticmethod
    def of(offsets: Int64, times_us: Int64, before_us: int | None) -> SourceWatermarks:
        """Return the watermarks of records with times that are believed; `before_us` is the watermark before them."""
        return SourceWatermarks(offsets=offsets, marks_us=watermark_before(np.append(times_us, 0), before_us))

    @property
    def newest_us(self) -> int | None:
        """Return the watermark after the batch; None without an event so far."""
        newest_us = int(self.marks_us[-1])
        return None if newest_us == NO_WATERMARK_US else newest_us

    def before(self, offsets: Int64) -> Int64:
        """Return the watermark before each offset."""
        if len(offsets) == len(self.offsets) and np.array_equal(offsets, self.offsets):
            return self.marks_us[:-1]
        return self.marks_us[np.searchsorted(self.offsets, offsets)]

    def after(self, offsets: Int64) -> Int64:
        """Return the watermark after each offset."""
        return self.marks_us[np.searchsorted(self.offsets, offsets, side="right")]


def count_before_lead_end(times_us: Int64, limit_us: int) -> int:
    """Return the index of the first event at or after `limit_us`, or the number of events if there is none."""
    beyond = times_us >= limit_us
    return int(beyond.argmax()) if beyond.any() else len(times_us)
