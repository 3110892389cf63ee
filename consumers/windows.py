"""Consumers: event time as pure functions on columns (windows, watermarks, lateness, stray times)."""

from __future__ import annotations

import numpy as np

from consumers.batch import Int64, Mask

NO_WATERMARK_US = int(np.iinfo(np.int64).min)
"""The watermark of a source that has had no event; below every time."""

ENDED_WATERMARK_US = int(np.iinfo(np.int64).max)
"""The watermark of a source that has ended; above every time."""

CONFIRMING_EVENTS = 2
"""So many events have to follow a jump in a file without going back before the jump is believed."""


def window_start(times_us: Int64, size_us: int) -> Int64:
    """Return the start of the tumbling window of each time; windows are aligned to 1970."""
    return times_us - times_us % size_us


def watermark_before(times_us: Int64, before_us: int | None) -> Int64:
    """Return the source's watermark before each event: the largest time at earlier offsets.

    `before_us` is the watermark before the first of these events; None where there was no event yet.
    """
    running = np.empty(len(times_us), np.int64)
    if len(times_us):
        running[0] = NO_WATERMARK_US if before_us is None else before_us
        np.maximum.accumulate(times_us[:-1], out=running[1:])
        np.maximum(running, running[0], out=running)
    return running


def late_mask(times_us: Int64, size_us: int, grace_us: int, watermark_us: Int64, sealed_until_us: int | None) -> Mask:
    """Say which events are late, `watermark_us` being the watermark before each of them.

    An event is late if its window's end plus the grace is not after its own source's watermark at earlier
    offsets, or if its window is sealed. So lateness depends on the source alone, not on the others' pace.
    """
    window_end = window_start(times_us, size_us) + size_us
    late = window_end + grace_us <= watermark_us
    if sealed_until_us is not None:
        late |= window_end <= sealed_until_us
    return late


def count_before_lead_end(times_us: Int64, limit_us: int) -> int:
    """Return the index of the first event at or beyond the limit; where there is none, their number."""
    beyond = times_us >= limit_us
    return int(beyond.argmax()) if beyond.any() else len(times_us)


def find_stray_times(times_us: Int64, watermark_us: int | None, max_future_us: int, *, final: bool) -> tuple[Mask, int]:
    """Say which events of a file carry a stray time of the future, and how many events are settled.

    A file has no broker's timestamp to compare with. An event beyond the watermark + `max_future_us` (the
    first event of all is one) is stray if one of the next two events goes back by more than
    `max_future_us`; otherwise the jump is believed. Stray events do not move the watermark.

    Returns:
        The mask, and the index from which on nothing is said because too few events follow; with `final`
        (nothing will follow) everything is settled.
    """
    n = len(times_us)
    stray = np.zeros(n, np.bool_)
    jumps = times_us - max_future_us > watermark_before(times_us, watermark_us)
    if not jumps.any():
        return stray, n
    times = times_us.tolist()
    i = int(jumps.argmax())
    mark = NO_WATERMARK_US if watermark_us is None else watermark_us
    mark = max(mark, *times[:i]) if i else mark
    for i in range(i, n):  # noqa: B020 - it goes on from the first jump
        if times[i] - max_future_us > mark:
            following = times[i + 1 : i + 1 + CONFIRMING_EVENTS]
            stray[i] = any(time < times[i] - max_future_us for time in following)
            if not stray[i] and len(following) < CONFIRMING_EVENTS and not final:
                return stray, i
        if not stray[i]:
            mark = max(mark, times[i])
    return stray, n
