"""The largest energies of many windows, kept in order while windows come and go."""

from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.part import MAX_LARGEST, Float32, Int64, Part

_INITIAL_ROWS = 64
_INITIAL_COLUMNS = 8


class LargestEnergies:
    """The lists of largest energies of the windows that are in it.

    In two forms: all of them ascending, for ranks over the whole, and a row for each window, for counts by window.
    Adding and taking away costs what changes, not what is in it; the whole is brought up to date when it is asked for.
    """

    def __init__(self) -> None:
        self._rows = np.full((_INITIAL_ROWS, MAX_LARGEST), -np.inf, np.float32)
        self._events = np.zeros(_INITIAL_ROWS, np.int64)
        self._floor = np.full(_INITIAL_ROWS, -np.inf, np.float64)
        self._row_of: dict[Hashable, int] = {}
        self._free = list(range(_INITIAL_ROWS))
        self._ascending = np.empty(0, np.float32)
        self._came: list[Float32] = []
        self._gone: list[Float32] = []

    def add(self, window: Hashable, part: Part) -> None:
        """Add a window that is not in it."""
        if not self._free:
            self._grow()
        row = self._row_of[window] = self._free.pop()
        self._rows[row, : len(part.top)] = part.top
        self._events[row] = part.events
        self._floor[row] = part.complete_above
        self._came.append(part.top)

    def evict(self, window: Hashable, part: Part) -> None:
        """Take a window out that is in it."""
        row = self._row_of.pop(window)
        self._rows[row] = -np.inf
        self._events[row] = 0
        self._floor[row] = -np.inf
        self._free.append(row)
        self._gone.append(part.top)

    def _grow(self) -> None:
        rows = len(self._events)
        self._rows = np.concatenate([self._rows, np.full((rows, MAX_LARGEST), -np.inf, np.float32)])
        self._events = np.concatenate([self._events, np.zeros(rows, np.int64)])
        self._floor = np.concatenate([self._floor, np.full(rows, -np.inf)])
        self._free = list(range(rows, 2 * rows))

    @property
    def complete_above(self) -> float:
        """Return the energy above which no list misses anything: -infinity where they hold every event."""
        return float(self._floor.max())

    def ascending(self) -> Float32:
        """Return all that is listed, ascending; not to be written to."""
        if self._came:
            came = np.sort(np.concatenate(self._came))
            self._ascending = np.insert(self._ascending, np.searchsorted(self._ascending, came), came)
            self._came.clear()
        if self._gone:
            gone = np.sort(np.concatenate(self._gone))
            # Equal energies stand side by side: the second of them to go is the one after the first.
            again = np.arange(len(gone)) - np.searchsorted(gone, gone)
            self._ascending = np.delete(self._ascending, np.searchsorted(self._ascending, gone) + again)
            self._gone.clear()
        return self._ascending

    def row_indices(self, windows: Iterable[Hashable]) -> NDArray[np.intp]:
        """Return where windows stand, to be asked for by `events` and `above` until one comes or goes."""
        return np.fromiter(map(self._row_of.__getitem__, windows), np.intp)

    def events(self, rows: NDArray[np.intp]) -> Int64:
        """Return the number of events of each window."""
        return self._events[rows]

    def count_above(self, rows: NDArray[np.intp], energy: float) -> tuple[Int64, NDArray[np.bool_]]:
        """Return how many listed energies of each window are above, and for which windows these are all of them."""
        bound, width = _round_down(energy), _INITIAL_COLUMNS
        # Lists descend: where nothing of a column is above, nothing behind it is.
        while width < MAX_LARGEST and bool((self._rows[:, width - 1] > bound).any()):
            width *= 2
        counts = (self._rows[:, :width] > bound).sum(axis=1)
        return counts[rows], energy >= self._floor[rows]


def _round_down(energy: float) -> np.float32:
    """Return the largest float32 that is no larger: what is listed is above both or neither."""
    with np.errstate(over="ignore"):
        rounded = np.float32(energy)
    return rounded if float(rounded) <= energy else np.nextafter(rounded, np.float32(-np.inf))
