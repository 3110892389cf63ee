"""The largest energies of many windows, kept in order while windows are added and evicted."""

from collections.abc import Callable, Hashable, Iterable

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.part import MAX_LARGEST, Float32, Int64, Part

_INITIAL_ROWS = 64
_INITIAL_COLUMNS = 8


class LargestEnergies:
    """The lists of largest energies of the current windows.

    They are stored in two forms: all energies in ascending order for ranks over all windows, and one row for each
    window for counts by window. Adding and evicting costs time in proportion to the change. The ascending list is
    updated when it is read.
    """

    def __init__(self) -> None:
        self._rows = np.full((_INITIAL_ROWS, MAX_LARGEST), -np.inf, np.float32)
        self._events = np.zeros(_INITIAL_ROWS, np.int64)
        self._floor = np.full(_INITIAL_ROWS, -np.inf, np.float64)
        self._row_of: dict[Hashable, int] = {}
        self._free = list(range(_INITIAL_ROWS))
        self._ascending = np.empty(0, np.float32)
        self._added: list[Float32] = []
        self._removed: list[Float32] = []

    def copy(self) -> "LargestEnergies":
        """Return a copy that changes on its own."""
        made = LargestEnergies()
        made._rows, made._events, made._floor = self._rows.copy(), self._events.copy(), self._floor.copy()
        made._row_of, made._free = dict(self._row_of), list(self._free)
        made._ascending, made._added, made._removed = self._ascending, list(self._added), list(self._removed)
        return made

    def add(self, window: Hashable, part: Part) -> None:
        """Add a window that is not contained yet."""
        if not self._free:
            self._grow()
        row = self._row_of[window] = self._free.pop()
        self._rows[row, : len(part.top)] = part.top
        self._events[row] = part.events
        self._floor[row] = part.complete_above
        self._added.append(part.top)

    def evict(self, window: Hashable, part: Part) -> None:
        """Remove a window that is contained."""
        row = self._row_of.pop(window)
        self._rows[row] = -np.inf
        self._events[row] = 0
        self._floor[row] = -np.inf
        self._free.append(row)
        self._removed.append(part.top)

    def _grow(self) -> None:
        rows = len(self._events)
        self._rows = np.concatenate([self._rows, np.full((rows, MAX_LARGEST), -np.inf, np.float32)])
        self._events = np.concatenate([self._events, np.zeros(rows, np.int64)])
        self._floor = np.concatenate([self._floor, np.full(rows, -np.inf)])
        self._free = list(range(rows, 2 * rows))

    @property
    def complete_above(self) -> float:
        """Return the energy above which every list is complete: -infinity if all lists hold every event."""
        return float(self._floor.max())

    def ascending(self) -> Float32:
        """Return all listed energies in ascending order. The array is read-only."""
        if self._added:
            added = np.sort(np.concatenate(self._added))
            self._ascending = np.insert(self._ascending, np.searchsorted(self._ascending, added), added)
            self._added.clear()
        if self._removed:
            removed = np.sort(np.concatenate(self._removed))
            # Equal energies are adjacent: the k-th of them to remove is k places after the first.
            duplicate_rank = np.arange(len(removed)) - np.searchsorted(removed, removed)
            self._ascending = np.delete(self._ascending, np.searchsorted(self._ascending, removed) + duplicate_rank)
            self._removed.clear()
        return self._ascending

    def largest_of_each(self, most: Callable[[Int64], Int64]) -> Float32:
        """Return the largest energies of each window, not more than a number of them, in descending order.

        Args:
            most: Returns the number for windows of these numbers of events, at least 1 each.
        """
        filled = np.flatnonzero(self._events)
        if not len(filled):
            return np.empty(0, np.float32)
        numbers = np.minimum(most(self._events[filled]), MAX_LARGEST)
        width = int(numbers.max())
        rows = self._rows[filled, :width]
        listed = rows[(np.arange(width) < numbers[:, None]) & (rows > -np.inf)]
        return np.ascontiguousarray(np.sort(listed)[::-1])

    def row_indices(self, windows: Iterable[Hashable]) -> NDArray[np.intp]:
        """Return the row of each window, for `events` and `count_above`.

        They are valid until a window is added or evicted.
        """
        return np.fromiter(map(self._row_of.__getitem__, windows), np.intp)

    def events(self, rows: NDArray[np.intp]) -> Int64:
        """Return the number of events of each window."""
        return self._events[rows]

    def count_above(self, rows: NDArray[np.intp], energy: float) -> tuple[Int64, NDArray[np.bool_]]:
        """Return the number of listed energies above for each row, and whether it counts all energies of the window."""
        bound, width = _round_down(energy), _INITIAL_COLUMNS
        # Lists descend: if no energy of a column is above, none of the later columns is.
        while width < MAX_LARGEST and bool((self._rows[:, width - 1] > bound).any()):
            width *= 2
        counts = (self._rows[:, :width] > bound).sum(axis=1)
        return counts[rows], energy >= self._floor[rows]


def _round_down(energy: float) -> np.float32:
    """Return the largest float32 that is not above the energy: a listed energy is above both or neither."""
    with np.errstate(over="ignore"):
        rounded = np.float32(energy)
    return rounded if float(rounded) <= energy else np.nextafter(rounded, np.float32(-np.inf))
