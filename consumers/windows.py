"""Event-time functions on columns: window starts, watermarks and stray times."""

from __future__ import annotations

import numpy as np

from consumers.batch import Int64, Mask

NO_WATERMARK_US = int(np.iinfo(np.int64).min)
"""The watermark of a source without events. It is less than every time."""

ENDED_WATERMARK_US = int(np.iinfo(np.int64).max)
"""The watermark of a source that has ended. It is greater than every time."""

CONFIRMING_EVENTS = 2
"""The number of following events that have to confirm a jump of the event time in a file."""


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


def count_before_lead_end(times_us: Int64, limit_us: int) -> int:
    """Return the index of the first event at or after `limit_us`, or the number of events if there is none."""
    beyond = times_us >= limit_us
    return int(beyond.argmax()) if beyond.any() else len(times_us)


def find_stray_times(times_us: Int64, watermark_us: int | None, max_future_us: int, *, final: bool) -> tuple[Mask, int]:
    """Find the events of a file with a stray time in the future.

    A file has no broker timestamps to compare with. An event beyond the watermark + `max_future_us` is a
    jump. The first event of a file is always a jump. A jump is stray if one of the next two events is earlier
    by more than `max_future_us`, otherwise it is accepted. Stray events do not advance the watermark.

    Returns:
        The mask of stray events, and the number of decided events. Events after that number are undecided
        because too few events follow. With `final` (no events will follow) all events are decided.
    """
    n = len(times_us)
    stray = np.zeros(n, np.bool_)
    jumps = times_us - max_future_us > watermark_before(times_us, watermark_us)
    if not jumps.any():
        return stray, n
    times = times_us.tolist()
    i = int(jumps.argmax())
    watermark = NO_WATERMARK_US if watermark_us is None else watermark_us
    watermark = max(watermark, *times[:i]) if i else watermark
    for i in range(i, n):  # noqa: B020 - continues from the first jump
        if times[i] - max_future_us > watermark:
            following = times[i + 1 : i + 1 + CONFIRMING_EVENTS]
            stray[i] = any(time < times[i] - max_future_us for time in following)
            if not stray[i] and len(following) < CONFIRMING_EVENTS and not final:
                return stray, i
        if not stray[i]:
            watermark = max(watermark, times[i])
    return stray, n
