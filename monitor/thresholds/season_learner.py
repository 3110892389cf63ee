"""The counts that a season is learned from, carried from tick to tick, and the season at a tick.

The counts are a cache over stored windows of all models: rebuilt from the stored windows they are identical.
"""

from typing import Protocol

import numpy as np

from config.stream_rules import StreamRules
from config.time_format import DAY_US, HOUR_US
from monitor.statistics.season import SeasonState, is_season_due
from monitor.statistics.season_fit import LEARNING_DAYS, CellCounts, decide_season
from storage.control.thresholds import WindowCounts

_KEPT_US = (LEARNING_DAYS + 2) * DAY_US
"""Counts are kept for two days longer than the season needs: local days differ from those of UTC."""


class WindowCountReader(Protocol):
    """A source of window counts, implemented by `storage.control.thresholds.ThresholdStore` and by the back-test."""

    def window_counts(self, stream_id: int, after_us: int, before_us: int) -> list[WindowCounts]:
        """Return the judged windows with events that start in [after_us, before_us), of all models, in order."""
        ...


class SeasonLearner:
    """Learns the season of one stream. A tick only reads the windows that were judged since the last test."""

    def __init__(self, stream_id: int) -> None:
        self._stream_id = stream_id
        self._acceptances: int | None = None
        self._read_until_us: int | None = None
        self._cells: dict[int, tuple[int, int]] = {}
        self._rises: dict[int, int] = {}

    def find_season(
        self, store: WindowCountReader, before: SeasonState | None, tick_us: int, rules: StreamRules, acceptances: int
    ) -> SeasonState | None:
        """Return the season at a tick; None where `threshold.season` is none.

        Args:
            store: The stored windows.
            before: The season of the threshold before the tick.
            tick_us: Event time of the tick.
            rules: The rules of the stream.
            acceptances: Number of accepted incidents. Their windows count in full, so that the counts are read again.
        """
        if rules.season == "none":
            return None
        if before is not None and not is_season_due(before, rules.season, rules.timezone, tick_us):
            return before
        if acceptances != self._acceptances:
            self._acceptances, self._read_until_us, self._cells, self._rises = acceptances, None, {}, {}
        self._read_windows(store, tick_us)
        return decide_season(
            self._count_cells(tick_us, rules.adopt_after_us),
            before,
            rules.season,
            rules.timezone,
            tick_us=tick_us,
            size_us=rules.size_us,
        )

    def _read_windows(self, store: WindowCountReader, tick_us: int) -> None:
        """Add the windows that end at or before the tick, day by day, and drop the old ones."""
        oldest_us = tick_us - _KEPT_US
        after_us = oldest_us if self._read_until_us is None else max(self._read_until_us, oldest_us)
        while after_us < tick_us:
            before_us = min(after_us + DAY_US, tick_us)
            for window in store.window_counts(self._stream_id, after_us, before_us):
                if window.window_end_us <= tick_us:
                    self._add_window(window)
            after_us = before_us
        self._cells = {mid_us: counts for mid_us, counts in self._cells.items() if mid_us >= oldest_us}
        self._rises = {since_us: end_us for since_us, end_us in self._rises.items() if end_us >= oldest_us}

    def _add_window(self, window: WindowCounts) -> None:
        self._read_until_us = window.window_end_us
        mid_us = (window.window_start_us + window.window_end_us) // 2
        if window.window_end_us - window.window_start_us <= HOUR_US:
            mid_us = mid_us // HOUR_US * HOUR_US + HOUR_US // 2
        events, outliers = self._cells.get(mid_us, (0, 0))
        self._cells[mid_us] = (events + window.events, outliers + window.clipped_outliers)
        if window.rise_since_us is not None:
            self._rises[window.rise_since_us] = window.window_end_us

    def _count_cells(self, tick_us: int, adopt_after_us: int) -> CellCounts:
        """Return the counts without those of a slow rise that is younger than `threshold.adopt_after`."""
        young = [(since_us, end_us) for since_us, end_us in self._rises.items() if tick_us - since_us < adopt_after_us]
        mids = [
            mid_us
            for mid_us in sorted(self._cells)
            if not any(since_us - HOUR_US < mid_us < end_us + HOUR_US for since_us, end_us in young)
        ]
        return CellCounts(
            mid_us=np.array(mids, np.int64),
            events=np.array([self._cells[mid_us][0] for mid_us in mids], np.int64),
            outliers=np.array([self._cells[mid_us][1] for mid_us in mids], np.int64),
        )
