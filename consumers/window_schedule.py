"""The windows of a stream whose size and waiting times change with event time. Pure functions.

The size of a window is that of the rules that are valid at its start. Rules begin at a boundary of the windows before
them, so that the windows are disjoint and cover all times. A late event belongs to the window of its own time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from config.stream_rules import WindowRules
from consumers.batch import Int64, Mask
from consumers.windows import window_start


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowSchedule:
    """The rules of the windows over event time, at least one, and the same as columns in the order of validity."""

    rules: tuple[WindowRules, ...]
    valid_from_us: Int64
    sizes_us: Int64
    graces_us: Int64
    sample_sizes: Int64

    def starts(self, times_us: Int64) -> Int64:
        """Return the start of the window of each time."""
        if len(self.rules) == 1:
            return window_start(times_us, self.rules[0].size_us)
        return times_us - times_us % self.sizes_us[self._rows(times_us)]

    def ends(self, starts_us: Int64) -> Int64:
        """Return the end of each window, given its start."""
        if len(self.rules) == 1:
            return starts_us + self.rules[0].size_us
        return starts_us + self.sizes_us[self._rows(starts_us)]

    def sample_sizes_at(self, starts_us: Int64) -> Int64:
        """Return the number of events to sample of each window, given its start."""
        return self.sample_sizes[self._rows(starts_us)]

    def late_mask(self, starts_us: Int64, watermarks_us: Int64, sealed_until_us: int | None) -> Mask:
        """Return a mask of the late events.

        An event is late if its window's end plus the grace period of the window is not after its own source's
        watermark at earlier offsets, or if its window is sealed. Lateness therefore does not depend on the progress of
        other sources.

        Args:
            starts_us: The start of the window of each event.
            watermarks_us: The watermark of its source before each event.
            sealed_until_us: The end of the sealed windows; None if no window is sealed.
        """
        ends = self.ends(starts_us)
        graces = self.rules[0].grace_us if len(self.rules) == 1 else self.graces_us[self._rows(starts_us)]
        late: Mask = ends + graces <= watermarks_us
        if sealed_until_us is not None:
            late |= ends <= sealed_until_us
        return late

    def rules_at(self, time_us: int) -> WindowRules:
        """Return the rules of the window of a time."""
        return self.rules[self._row(time_us)]

    def floor_us(self, time_us: int) -> int:
        """Return the last window boundary at or before a time."""
        return time_us - time_us % self.rules_at(time_us).size_us

    def ceil_us(self, time_us: int) -> int:
        """Return the first window boundary at or after a time."""
        return time_us + -time_us % self.rules_at(time_us).size_us

    def end_us(self, start_us: int) -> int:
        """Return the end of the window that starts at a time."""
        return start_us + self.rules_at(start_us).size_us

    def lead_end_us(self, sealed_until_us: int | None) -> int:
        """Return the event time from which on no event may be stored yet."""
        sealed_us = sealed_until_us or 0
        return sealed_us + self.rules_at(sealed_us).lead_us

    def passed_us(self, time_us: int) -> int:
        """Return the end of the last window such that the grace of it and of all earlier windows has passed at a time.

        Where a longer grace precedes a shorter one, the later windows wait for the earlier ones.
        """
        for row, rules in enumerate(self.rules):
            passed_us = (time_us - rules.grace_us) // rules.size_us * rules.size_us
            is_last = row + 1 == len(self.rules)
            if not is_last and self.rules[row + 1].valid_from_us == rules.valid_from_us:
                continue  # replaced before its first window
            if is_last or passed_us < self.rules[row + 1].valid_from_us:
                return max(passed_us, rules.valid_from_us)
        raise AssertionError("a schedule has at least one row")

    def _row(self, time_us: int) -> int:
        return max(bisect_right(self.rules, time_us, key=lambda rules: rules.valid_from_us) - 1, 0)

    def _rows(self, times_us: Int64) -> Int64:
        return np.maximum(np.searchsorted(self.valid_from_us, times_us, side="right") - 1, 0)


@lru_cache(maxsize=64)
def make_window_schedule(rules: tuple[WindowRules, ...]) -> WindowSchedule:
    """Return the schedule of rules, at least one, in the order of validity; of equal starts the last one holds."""
    return WindowSchedule(
        rules=rules,
        valid_from_us=_column([each.valid_from_us for each in rules]),
        sizes_us=_column([each.size_us for each in rules]),
        graces_us=_column([each.grace_us for each in rules]),
        sample_sizes=_column([each.sample_size for each in rules]),
    )


def _column(values: Sequence[int]) -> Int64:
    return np.array(values, np.int64)
