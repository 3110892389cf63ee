"""Mergeable statistics of a window's events: counts, largest energies and a histogram of all energies. Pure functions.

A part is the contribution of one commit to one window. Merging adds integers and selects the largest values, so it is
associative and commutative and gives the same bytes for any split, restart or order. Thresholds that are computed from
merged parts therefore replay bit for bit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.drift_sums import DriftSums, WindowDriftSums, add_drift_sums

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int16 = NDArray[np.int16]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

MAX_LARGEST = 256
"""Maximum number of energies that a part stores exactly.

For a window of 50,000 events the p99.5 threshold lies within these energies.
"""

BIN_WIDTH = 0.02
"""Width of a bin in asinh((energy - median) / IQR): 0.02 IQR near the median, 2% of the distance far from it."""

LAST_BIN = 500
"""Bins run from -500 to 500, up to 11,000 IQR on either side. Energies beyond fall into the outermost bins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Centre and unit of the histogram in nats: median and interquartile range of the reference energies."""

    median: float
    iqr: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.median) and np.isfinite(self.iqr) and self.iqr > 0):
            raise ValueError(f"a scale needs a finite median and a positive finite IQR, not {self.median}, {self.iqr}")

    @staticmethod
    def from_energies(reference: Float32) -> "Scale":
        """Return the scale of the reference energies of a model.

        If half of the energies are equal, the IQR is below the float32 spacing at the median and would give bins
        without width. It is replaced by one nat, or by that spacing where it is larger.

        Raises:
            ValueError: There are no reference energies.
        """
        if not len(reference):
            raise ValueError("a scale needs at least one reference energy")
        low, median, high = np.quantile(reference.astype(np.float64), (0.25, 0.5, 0.75))
        spacing = float(np.spacing(np.float32(abs(median))))
        iqr = float(high - low)
        return Scale(median=float(median), iqr=iqr if iqr > spacing else max(1.0, spacing))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """The sums over some events of one window. Two parts are equal if `encode_part` gives the same bytes.

    `top` holds the largest energies in descending order with ties: all of them if there are at most 256. `bins` holds
    the non-empty bins of the histogram in ascending order and `counts` the number of events in each. `late` and `dead`
    count the late events and dead letters of the window's time; they are in none of the other statistics. `drift` is
    None without events and for models that were fitted without a training profile.
    """

    events: int
    outliers: int
    late: int
    dead: int
    top: Float32
    bins: Int16
    counts: Int64
    drift: DriftSums | None = None

    @staticmethod
    def without_events(*, late: int = 0, dead: int = 0) -> "Part":
        """Return a part without events."""
        return Part(
            events=0,
            outliers=0,
            late=late,
            dead=dead,
            top=np.empty(0, np.float32),
            bins=np.empty(0, np.int16),
            counts=np.empty(0, np.int64),
        )

    @property
    def complete_above(self) -> float:
        """Return the energy above which `top` is complete: -infinity if it holds every event."""
        return -np.inf if self.events <= len(self.top) else float(self.top[-1])


@lru_cache(maxsize=16)
def bin_edges(scale: Scale) -> Float64:
    """Return the 1,000 lower edges of bins -499 to 500, in nats. The array is read-only."""
    warped = BIN_WIDTH * np.arange(1 - LAST_BIN, LAST_BIN + 1)
    edges = np.asarray(scale.median + scale.iqr * np.sinh(warped), np.float64)
    edges.setflags(write=False)
    return edges


def bin_index(energies: Float32, scale: Scale) -> Int64:
    """Return the bin of each energy: floor(asinh((energy - median) / IQR) / 0.02), clipped to +-500.

    The last bit of asinh differs between processors. The bin is therefore decided by comparison with the edges, and the
    asinh only gives a first guess, so that parts from different machines add up to the same histogram.
    """
    edges = bin_edges(scale)
    exact = energies.astype(np.float64)
    guess = np.floor(np.arcsinh((exact - scale.median) / scale.iqr) * (1 / BIN_WIDTH))
    guess = np.clip(guess, -LAST_BIN, LAST_BIN).astype(np.int64)
    padded = np.concatenate([[-np.inf], edges, [np.inf]])
    guess += exact >= padded[guess + LAST_BIN + 1]
    guess -= exact < padded[guess + LAST_BIN]
    return guess


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowParts:
    """The parts of W windows of one model in columns of length W, for one pass over a batch.

    `top`, `bins` and `counts` hold the arrays of all windows one after another. The largest energies of window i end
    at `top_ends[i]`, its bins at `bin_ends[i]`. `drift` has sums of 0 for a window without events.
    """

    events: Int64
    outliers: Int64
    late: Int64
    dead: Int64
    top: Float32
    top_ends: Int64
    bins: Int16
    counts: Int64
    bin_ends: Int64
    drift: WindowDriftSums | None = None

    def __len__(self) -> int:
        return len(self.events)

    def window(self, index: int) -> Part:
        """Return the part of one window."""
        top = slice(int(self.top_ends[index - 1]) if index else 0, int(self.top_ends[index]))
        bins = slice(int(self.bin_ends[index - 1]) if index else 0, int(self.bin_ends[index]))
        return Part(
            events=int(self.events[index]),
            outliers=int(self.outliers[index]),
            late=int(self.late[index]),
            dead=int(self.dead[index]),
            top=self.top[top],
            bins=self.bins[bins],
            counts=self.counts[bins],
            drift=self.drift.window(index) if self.drift is not None and self.events[index] else None,
        )


def summarise(energies: Float32, outlier: Bool, scale: Scale) -> Part:
    """Return the part of the energies of one window.

    Args:
        energies: Finite energies of the events of the window, without late events.
        outlier: True for events above the threshold in force.
        scale: Scale of the model that computed the energies.

    Raises:
        ValueError: The arrays differ in length, or an energy is not finite.
    """
    return summarise_windows(energies, outlier, np.zeros(len(energies), np.int64), 1, scale).window(0)


def summarise_windows(energies: Float32, outlier: Bool, windows: Int64, n_windows: int, scale: Scale) -> WindowParts:
    """Return the parts of many windows in one pass over a batch, without late events and dead letters.

    Args:
        energies: Finite energies.
        outlier: True for events above the threshold in force.
        windows: Index of the window of each event, from 0 to `n_windows` - 1, in any order.
        n_windows: Number of windows; some may have no events.
        scale: Scale of the model that computed the energies.

    Raises:
        ValueError: The arrays differ in length, or an energy is not finite.
    """
    energies = _check_arrays(energies, outlier, windows)
    n_outliers = np.bincount(windows[outlier], minlength=n_windows)
    windows, energies = _sort_in_windows(windows, energies)
    events = np.bincount(windows, minlength=n_windows)
    top, n_top = _select_largest_by_window(energies, events)
    bins, counts, n_bins = _count_bins_by_window(windows, bin_index(energies, scale), n_windows)
    return WindowParts(
        events=events,
        outliers=n_outliers,
        late=np.zeros(n_windows, np.int64),
        dead=np.zeros(n_windows, np.int64),
        top=top,
        top_ends=np.cumsum(n_top),
        bins=bins,
        counts=counts,
        bin_ends=np.cumsum(n_bins),
    )


def _check_arrays(energies: Float32, outlier: Bool, windows: Int64) -> Float32:
    if not len(energies) == len(outlier) == len(windows):
        raise ValueError(f"{len(energies)} energies, {len(outlier)} flags and {len(windows)} windows do not match")
    if energies.dtype != np.float32:
        raise ValueError(f"energies must be float32, rounded once where they are computed, not {energies.dtype}")
    if not np.isfinite(energies).all():
        raise ValueError("an energy is not finite: the scorer must clip energies to the float32 range")
    return energies + np.float32(0)  # -0.0 becomes 0.0, so that equal energies have equal bytes


def _sort_in_windows(windows: Int64, energies: Float32) -> tuple[Int64, Float32]:
    """Sort the energies by window and, in each window, in ascending order.

    The bits of float32 values, with those below the sign bit inverted for negative values, are integers in the same
    order. One sort of integers, with the window in the upper half, is faster than a sort by two keys.
    """
    bits = _flip_negative(energies.view(np.int32))
    keys = np.sort((windows << 32) + bits)
    windows = (keys + (1 << 31)) >> 32
    return windows, _flip_negative((keys - (windows << 32)).astype(np.int32)).view(np.float32)


def _flip_negative(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _select_largest_by_window(ascending: Float32, events: Int64) -> tuple[Float32, Int64]:
    """Return the largest energies of each window in descending order, and their number by window."""
    n_top = np.minimum(events, MAX_LARGEST)
    ends, top_ends = np.cumsum(events), np.cumsum(n_top)
    of_window = np.repeat(np.arange(len(events)), n_top)
    rank = np.arange(len(of_window)) - (top_ends - n_top)[of_window]
    return ascending[ends[of_window] - 1 - rank], n_top


def _count_bins_by_window(windows: Int64, index: Int64, n_windows: int) -> tuple[Int16, Int64, Int64]:
    """Return the non-empty bins of each window, ascending, the events in each, and the number of bins by window."""
    begins_run = np.ones(len(index), np.bool_)
    begins_run[1:] = (index[1:] != index[:-1]) | (windows[1:] != windows[:-1])
    begins = np.flatnonzero(begins_run)
    counts = np.diff(begins, append=len(index))
    return index[begins].astype(np.int16), counts, np.bincount(windows[begins], minlength=n_windows)


def _to_sparse(dense: Int64) -> tuple[Int16, Int64]:
    filled = np.flatnonzero(dense)
    return (filled - LAST_BIN).astype(np.int16), dense[filled].astype(np.int64)


def _select_largest(energies: Float32) -> Float32:
    if len(energies) > MAX_LARGEST:
        energies = np.partition(energies, len(energies) - MAX_LARGEST)[-MAX_LARGEST:]
    return np.ascontiguousarray(np.sort(energies)[::-1])


def merge_parts(parts: Iterable[Part]) -> Part:
    """Return the part of all events of the parts, equal to `summarise` of all their events.

    The parts belong to one model: their histograms share a scale.
    """
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    bins, counts = _to_sparse(sum_histograms(parts))
    return Part(
        events=sum(part.events for part in parts),
        outliers=sum(part.outliers for part in parts),
        late=sum(part.late for part in parts),
        dead=sum(part.dead for part in parts),
        top=_select_largest(np.concatenate([np.empty(0, np.float32), *(part.top for part in parts)])),
        bins=bins,
        counts=counts,
        drift=_merge_drift([part for part in parts if part.events]),
    )


def sum_histograms(parts: Iterable[Part]) -> Int64:
    """Return the number of events of all parts in each bin, from -500 to 500."""
    dense = np.zeros(2 * LAST_BIN + 1, np.int64)
    for part in parts:
        dense[part.bins.astype(np.int64) + LAST_BIN] += part.counts
    return dense


def _merge_drift(parts: Sequence[Part]) -> DriftSums | None:
    """Return the sums over all events. None if the sums of some events are missing."""
    sums = [part.drift for part in parts if part.drift is not None]
    return reduce(add_drift_sums, sums) if sums and len(sums) == len(parts) else None
