"""The look-back: the windows that a threshold is computed from, and their merged statistics."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from monitor.statistics.part import LAST_BIN, Bool, Float32, Int64, Part, Scale
from monitor.statistics.sketch import EnergySketch, count_listed_above
from monitor.thresholds.largest_energies import LargestEnergies
from monitor.thresholds.pooled import bound_per_window

MAX_EXCLUDED_SHARE = 0.25
"""Share of the look-back that open incidents may exclude. Without a bound, a lasting change would block all updates."""


def select_calibration_windows(
    starts_us: Int64,
    ends_us: Int64,
    open_incidents: Sequence[tuple[int, int | None]],
    at_us: int,
    *,
    look_back_us: int,
    adopt_after_us: int,
    max_excluded_share: float = MAX_EXCLUDED_SHARE,
    confirmed: Sequence[tuple[int, int]] = (),
) -> Bool:
    """Return the mask of the windows that a threshold computed at event time `at_us` uses, (n,).

    Windows that lie in the look-back are used. Those of an open incident are excluded while the incident is younger
    than `adopt_after_us`, the newest first and at most a quarter of all windows: a lasting change becomes the new
    normal.

    Args:
        starts_us: Start times of the windows with events, ascending.
        ends_us: Their end times.
        open_incidents: Start of the first window and end of the last firing window of each open incident. The end is
            None while it still fires.
        at_us: Event time of the tick.
        look_back_us: Length of the look-back.
        adopt_after_us: Age from which an open incident no longer excludes windows.
        max_excluded_share: Share of the look-back that may be excluded. A threshold uses at least three quarters of it,
            because it is robust against outliers. A count model is not, and is learned with a share of 1.
        confirmed: The same times of incidents that a person has confirmed; they exclude windows at any age.
    """
    inside = (starts_us >= at_us - look_back_us) & (ends_us <= at_us)
    is_excluded = np.zeros(len(starts_us), np.bool_)
    for start_us, end_us in open_incidents:
        if at_us - start_us < adopt_after_us:
            is_excluded |= (ends_us > start_us) & (starts_us < (at_us if end_us is None else end_us))
    for start_us, end_us in confirmed:
        is_excluded |= (ends_us > start_us) & (starts_us < end_us)
    excluded = np.flatnonzero(inside & is_excluded)
    max_excluded = int(max_excluded_share * int(inside.sum()))
    inside[excluded[max(len(excluded) - max_excluded, 0) :]] = False
    return inside


class LookBack:
    """The windows that a threshold is computed from, added and evicted one by one.

    It is a cache over stored windows. Integer counts are added and subtracted exactly, and the lists of largest
    energies are stored by window. Its sketch is therefore bit for bit that of the same windows merged from scratch.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._dense = np.zeros(2 * LAST_BIN + 1, np.int64)
        self._parts: dict[Hashable, Part] = {}
        self._excluded: dict[Hashable, Part] = {}
        self._fired: frozenset[Hashable] = frozenset()
        self._largest = LargestEnergies()

    def copy(self) -> "LookBack":
        """Return a copy that changes on its own; the parts, which never change, are shared."""
        made = LookBack(self.scale)
        made._dense = self._dense.copy()
        made._parts, made._excluded, made._fired = dict(self._parts), self._excluded, self._fired
        made._largest = self._largest.copy()
        return made

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, window: Hashable) -> bool:
        return window in self._parts

    @property
    def windows(self) -> list[Hashable]:
        """Return the contained windows in the order of adding."""
        return list(self._parts)

    @property
    def excluded(self) -> Mapping[Hashable, Part]:
        """Return the windows of open incidents that the threshold does not use."""
        return self._excluded

    def set_excluded(self, windows: Mapping[Hashable, Part]) -> None:
        """Set the windows of open incidents that the threshold does not use."""
        self._excluded = dict(windows)

    @property
    def fired(self) -> frozenset[Hashable]:
        """Return the windows of incidents, used by the threshold or not."""
        return self._fired

    def set_fired(self, windows: Iterable[Hashable]) -> None:
        """Set the windows of incidents, used by the threshold or not."""
        self._fired = frozenset(windows)

    def part(self, window: Hashable) -> Part:
        """Return the part of a contained window."""
        return self._parts[window]

    def add(self, window: Hashable, part: Part) -> None:
        """Add a window.

        Raises:
            ValueError: The window is already contained.
        """
        if window in self._parts:
            raise ValueError(f"window {window} is in the look-back already: evict it before it is added again")
        # The drift sums are not needed for a threshold and would occupy memory for the whole look-back.
        self._parts[window] = part if part.drift is None else replace(part, drift=None)
        self._dense[part.bins.astype(np.int64) + LAST_BIN] += part.counts
        self._largest.add(window, part)

    def evict(self, window: Hashable) -> None:
        """Remove a window.

        Raises:
            KeyError: The window is not contained.
        """
        part = self._parts.pop(window)
        self._dense[part.bins.astype(np.int64) + LAST_BIN] -= part.counts
        self._largest.evict(window, part)

    def sketch(self) -> EnergySketch:
        """Return the sketch of the contained windows."""
        return EnergySketch.from_sums(self._largest.ascending(), self._largest.complete_above, self._dense, self.scale)

    def bounded_tail(self, a: float, dispersion: float) -> Float32:
        """Return the largest energies for a pooled percentile, descending, few of each window (`bound_per_window`)."""
        n = sum(part.events for part in self._parts.values())
        return self._largest.largest_of_each(lambda events: bound_per_window(events, n, a, dispersion))

    def count_by_window(self, windows: Sequence[Hashable], energy: float) -> tuple[Int64, Int64]:
        """Return the numbers of events and of energies above for each window.

        The second is approximate where the list of largest energies does not reach down to the energy.
        """
        rows = self._largest.row_indices(windows)
        counts, exact = self._largest.count_above(rows, energy)
        for index in np.flatnonzero(~exact).tolist():
            counts[index] = count_above(self._parts[windows[index]], self.scale, energy)
        return self._largest.events(rows), counts


def count_above(part: Part, scale: Scale, energy: float) -> int:
    """Return the number of energies of a window above, rounded below the largest energies that the part lists."""
    if energy >= part.complete_above:
        return count_listed_above(part.top, energy)
    return round(EnergySketch.from_part(part, scale).count_above(energy))
