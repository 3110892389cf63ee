"""Events and outliers by key of the windows of a back-test over recorded events. Stored windows have no keys."""

from collections.abc import Mapping, Sequence

from consumers.window_schedule import WindowSchedule
from monitor.pipeline.fold import ScoredEvents
from storage.control.evidence import MAX_COUNTED_KEYS
from storage.control.records import OffsetRange


class MemoryKeyCounts:
    """The counts of the windows that are not judged yet, of one cell."""

    def __init__(self, windows: WindowSchedule) -> None:
        self._windows = windows
        self._counts: dict[int, dict[str, list[int]]] = {}

    def add_events(self, scored: ScoredEvents) -> None:
        """Count the events of one commit that are not late."""
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

    def count_keys(
        self, _ranges: Sequence[OffsetRange], start_us: int, _end_us: int, tracked: Sequence[str]
    ) -> Mapping[str, tuple[int, int]]:
        """Return events and outliers of the keys of a window that have outliers or are tracked."""
        self._counts = {start: counts for start, counts in self._counts.items() if start >= start_us}
        window = self._counts.get(start_us, {})
        with_outliers = sorted(
            (key for key, counts in window.items() if counts[1]), key=lambda key: (-window[key][1], key)
        )
        wanted = {*with_outliers[:MAX_COUNTED_KEYS], *tracked}
        return {key: (counts[0], counts[1]) for key, counts in window.items() if key in wanted}
