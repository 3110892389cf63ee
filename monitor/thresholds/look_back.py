"""The look-back: which windows a limit is computed from, and their merged statistics kept up to date."""

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from monitor.statistics.part import LAST_BIN, Bool, Int64, Part, Scale
from monitor.statistics.sketch import EnergySketch, count_listed_above
from monitor.thresholds.largest_energies import LargestEnergies

MAX_EXCLUDED_SHARE = 0.25
"""Share of the look-back that open incidents may keep out: without a bound a lasting change deadlocks."""


def select_calibration_windows(
    starts_us: Int64,
    ends_us: Int64,
    open_incidents: Sequence[tuple[int, int | None]],
    at_us: int,
    *,
    look_back_us: int,
    adopt_after_us: int,
    largest_left_out: float = MAX_EXCLUDED_SHARE,
) -> Bool:
    """Return which windows count for a threshold computed at event time `at_us`.

    Those that lie in the look-back count. Of them, windows of an open incident are left out while it is
    younger than `adopt_after_us`, the newest first and at most a quarter of all: what lasts is taken in as
    the new normal.

    Args:
        starts_us: Starts of the windows with events, ascending.
        ends_us: Their ends.
        open_incidents: Start of the first window and end of the last bad one of each; None where it is still
            bad.
        at_us: The tick.
        look_back_us: Length of the look-back.
        adopt_after_us: Age from which an open incident no longer keeps windows out.
        largest_left_out: Share of the look-back that may be left out. A limit is computed from three quarters of it
            at least, for it survives outliers; a law of counts does not, and is learned with 1.
    """
    inside = (starts_us >= at_us - look_back_us) & (ends_us <= at_us)
    bad = np.zeros(len(starts_us), np.bool_)
    for start_us, end_us in open_incidents:
        if at_us - start_us < adopt_after_us:
            bad |= (ends_us > start_us) & (starts_us < (at_us if end_us is None else end_us))
    left_out = np.flatnonzero(inside & bad)
    most = int(largest_left_out * int(inside.sum()))
    inside[left_out[max(len(left_out) - most, 0) :]] = False
    return inside


class LookBack:
    """The windows that a limit is computed from, added and evicted one by one.

    It is a cache over stored windows: integer counts are added and taken away exactly, and the lists of
    largest are kept per window, so that its sketch is to the bit the one of the same windows merged from
    nothing.
    """

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._dense = np.zeros(2 * LAST_BIN + 1, np.int64)
        self._parts: dict[Hashable, Part] = {}
        self._largest = LargestEnergies()

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, window: Hashable) -> bool:
        return window in self._parts

    @property
    def windows(self) -> list[Hashable]:
        """Return the windows that are in it, in the order of adding."""
        return list(self._parts)

    def part(self, window: Hashable) -> Part:
        """Return the part of a window that is in it."""
        return self._parts[window]

    def add(self, window: Hashable, part: Part) -> None:
        """Add a window. Raises ValueError where it is in already."""
        if window in self._parts:
            raise ValueError(f"window {window} is in the look-back already: evict it before it is added again")
        # What a limit does not need is not kept a day long.
        self._parts[window] = part if part.drift is None else replace(part, drift=None)
        self._dense[part.bins.astype(np.int64) + LAST_BIN] += part.counts
        self._largest.add(window, part)

    def evict(self, window: Hashable) -> None:
        """Take a window out. Raises KeyError where it is not in."""
        part = self._parts.pop(window)
        self._dense[part.bins.astype(np.int64) + LAST_BIN] -= part.counts
        self._largest.evict(window, part)

    def sketch(self) -> EnergySketch:
        """Return the sketch of the windows in it."""
        return EnergySketch.from_sums(self._largest.ascending(), self._largest.complete_above, self._dense, self.scale)

    def count_by_window(self, windows: Sequence[Hashable], energy: float) -> tuple[Int64, Int64]:
        """Return how many energies each window has, and how many above, rounded where its largest do not reach."""
        rows = self._largest.row_indices(windows)
        counts, exact = self._largest.count_above(rows, energy)
        for at in np.flatnonzero(~exact).tolist():
            counts[at] = count_above(self._parts[windows[at]], self.scale, energy)
        return self._largest.events(rows), counts


def count_above(part: Part, scale: Scale, energy: float) -> int:
    """Return how many energies of a window are above, rounded where its own largest do not reach."""
    if energy >= part.complete_above:
        return count_listed_above(part.top, energy)
    return round(EnergySketch.from_part(part, scale).count_above(energy))
