"""Events and outliers by key of the windows of a back-test over recorded events. Stored windows have no keys."""

from collections.abc import Sequence

import numpy as np

from consumers.window_schedule import WindowSchedule
from monitor.pipeline.fold import ScoredEvents
from storage.control.evidence import MAX_COUNTED_KEYS, WindowKeys
from storage.control.records import OffsetRange


class MemoryKeyCounts:
    """The counts of the windows that are not judged yet, of one cell."""

    def __init__(self, windows: WindowSchedule) -> None:
        self._windows = windows
        self._counts: dict[int, dict[str, list[int]]] = {}
        self._largest: dict[int, dict[str | None, float]] = {}

    def add_events(self, scored: ScoredEvents) -> None:
        """Count the events of one commit that are not late."""
        self._add_largest(scored)
        keys = scored.events.keys
        if keys is None:
            return
        starts = self._windows.starts(scored.events.times_us).tolist()
        for start_us, key, is_outlier, is_late in zip(
            starts, keys, scored.is_outlier.tolist(), scored.is_late.tolist(), strict=True
        ):
            if key is not None and not is_late:
                counts = self._counts.setdefault(start_us, {}).setdefault(key, [0, 0])
                counts[0] += 1
                counts[1] += is_outlier

    def _add_largest(self, scored: ScoredEvents) -> None:
        """Keep the largest energy of the outliers of each key that are not late."""
        rows = np.flatnonzero(scored.is_outlier & ~scored.is_late)
        starts = self._windows.starts(scored.events.times_us[rows]).tolist()
        for row, start_us, energy in zip(rows.tolist(), starts, scored.energies[rows].tolist(), strict=True):
            largest = self._largest.setdefault(start_us, {})
            key = None if scored.events.keys is None else scored.events.keys[row]
            largest[key] = max(energy, largest.get(key, energy))

    def count_keys(
        self, _ranges: Sequence[OffsetRange], start_us: int, _end_us: int, tracked: Sequence[str]
    ) -> WindowKeys:
        """Return the keys of a window that have outliers or are tracked, as `EvidenceStore.count_keys` does."""
        self._counts = {start: counts for start, counts in self._counts.items() if start >= start_us}
        self._largest = {start: largest for start, largest in self._largest.items() if start >= start_us}
        window, largest = self._counts.get(start_us, {}), self._largest.get(start_us, {})
        with_outliers = sorted(
            (key for key, counts in window.items() if counts[1]), key=lambda key: (-window[key][1], key)
        )
        wanted = {*with_outliers[:MAX_COUNTED_KEYS], *tracked}
        return WindowKeys(
            counts={key: (counts[0], counts[1]) for key, counts in window.items() if key in wanted},
            largest={key: energy for key, energy in largest.items() if key is not None and key in wanted},
            largest_of_others=max((each for key, each in largest.items() if key not in wanted), default=None),
        )
