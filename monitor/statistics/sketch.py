"""The energy distribution of many windows: quantiles and tails, exact where the lists of largest energies reach. Pure.

Ranks follow the plotting position of Weibull: the value at fraction p of n energies has descending rank (1 - p)(n + 1).
For any distribution, a new energy exceeds this value with probability 1 - p on average over samples.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.part import BIN_WIDTH, LAST_BIN, Float32, Float64, Int64, Part, Scale, bin_edges, sum_histograms

MAX_EXACT_ENERGIES = 2**18
"""Maximum number of energies that a sketch stores exactly: 1 MiB, enough for the p99 of 26 million events."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EnergySketch:
    """The distribution of `n` energies.

    `top` holds the largest energies in descending order: all of those above `complete_above` and none below it.
    `counts` holds the remaining energies by bin, from -500 to 500; none of them is above `complete_above`. The bounds
    of each bin and the cumulative counts from above are cached, because one threshold needs some hundred quantiles.
    """

    n: int
    top: Float32
    complete_above: float
    counts: Int64
    scale: Scale
    _low: Float64 = field(init=False, repr=False)
    _high: Float64 = field(init=False, repr=False)
    _from_above: Int64 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        low, high = _bin_bounds(self.scale, self.complete_above)
        object.__setattr__(self, "_low", low)
        object.__setattr__(self, "_high", high)
        object.__setattr__(self, "_from_above", len(self.top) + np.cumsum(self.counts[::-1]))

    @staticmethod
    def from_part(part: Part, scale: Scale) -> "EnergySketch":
        """Return the sketch of one window."""
        return EnergySketch.from_parts([part], scale)

    @staticmethod
    def from_parts(parts: Iterable[Part], scale: Scale) -> "EnergySketch":
        """Return the sketch of many windows of one model."""
        parts = list(parts)
        ascending = np.sort(np.concatenate([np.empty(0, np.float32), *(part.top for part in parts)]))
        floor = max((part.complete_above for part in parts), default=-np.inf)
        return EnergySketch.from_sums(ascending, floor, sum_histograms(parts), scale)

    @staticmethod
    def from_sums(ascending: Float32, floor: float, dense: Int64, scale: Scale) -> "EnergySketch":
        """Return the sketch of windows whose statistics are already summed.

        Args:
            ascending: The lists of largest energies of all windows, ascending.
            floor: The energy above which every list is complete.
            dense: The sum of the histograms.
            scale: Scale of the energies.
        """
        listed = ascending[np.searchsorted(ascending, _round_up(floor)) :]
        if len(listed) > MAX_EXACT_ENERGIES:
            listed = listed[-MAX_EXACT_ENERGIES:]
            floor = float(listed[0])
        top = np.ascontiguousarray(listed[::-1])
        counts = dense - _count_by_bin(listed, scale)
        return EnergySketch(n=int(dense.sum()), top=top, complete_above=floor, counts=counts, scale=scale)

    def count_above(self, energy: float) -> float:
        """Return the number of energies above: exact from `complete_above` on, within one bin below it."""
        if energy >= self.complete_above:
            return float(count_listed_above(self.top, energy))
        index = _find_bin(energy, self.scale)
        above = len(self.top) + int(self.counts[index + 1 :].sum())
        lower, upper = float(self._low[index]), float(self._high[index])
        if energy >= upper or not self.counts[index]:
            return float(above)
        span = _warp(upper, self.scale) - _warp(lower, self.scale)
        share = (_warp(upper, self.scale) - _warp(max(energy, lower), self.scale)) / span if span > 0 else 1.0
        return above + float(self.counts[index]) * min(max(share, 0.0), 1.0)

    def survival(self, energy: float) -> float:
        """Return the share of energies above.

        Raises:
            ValueError: The sketch is empty.
        """
        self._check_not_empty()
        return self.count_above(energy) / self.n

    def quantile(self, p: float) -> float:
        """Return the energy at fraction `p`.

        Raises:
            ValueError: The sketch is empty.
        """
        return float(self.quantiles(np.array([p]))[0])

    def quantiles(self, p: Float64) -> Float64:
        """Return the energies at fractions `p`, interpolated between two exact energies or inside the bin of the rank.

        Raises:
            ValueError: The sketch is empty.
        """
        self._check_not_empty()
        rank = np.clip((1.0 - p) * (self.n + 1), 1, self.n)
        reached = rank <= len(self.top)
        energies = np.empty(len(rank))
        energies[reached] = self._interpolate_exact(rank[reached])
        energies[~reached] = self._interpolate_in_bin(rank[~reached])
        return energies

    def binned_median(self) -> float:
        """Return the centre of the bin of the median: the same for any division of the energies into windows.

        Raises:
            ValueError: The sketch is empty.
        """
        self._check_not_empty()
        counts = self.counts + _count_by_bin(np.ascontiguousarray(self.top[::-1]), self.scale)
        number = int(np.searchsorted(np.cumsum(counts), (self.n + 1) // 2)) - LAST_BIN
        return float(self.scale.median + self.scale.iqr * np.sinh(BIN_WIDTH * (number + 0.5)))

    def bracket(self, p: float) -> tuple[float, float]:
        """Return certain bounds of the energy at fraction `p`: two exact neighbours, or the edges of its bin."""
        self._check_not_empty()
        rank = float(np.clip((1.0 - p) * (self.n + 1), 1, self.n))
        below, above = np.ceil(rank), np.floor(rank)
        last = len(self.top)
        lower = self.top[int(below) - 1] if below <= last else self._low[self._bin_of_rank(np.array([below]))[0]]
        upper = self.top[int(above) - 1] if above <= last else self._high[self._bin_of_rank(np.array([above]))[0]]
        return float(lower), float(upper)

    def _check_not_empty(self) -> None:
        if not self.n:
            raise ValueError("a sketch of no events has no quantiles: merge windows with events first")

    def _interpolate_exact(self, rank: Float64) -> Float64:
        """Interpolate between neighbours in the exact list."""
        above, below = np.floor(rank).astype(np.int64) - 1, np.ceil(rank).astype(np.int64) - 1
        high, low = self.top[above].astype(np.float64), self.top[below].astype(np.float64)
        share = rank - np.floor(rank)
        return np.where(high == low, high, high * (1 - share) + low * share)

    def _bin_of_rank(self, rank: Float64) -> Int64:
        """Return the index of the bin of each descending rank, the nearer one between two bins."""
        index = np.searchsorted(self._from_above + 0.5, rank, side="left")
        return np.maximum(len(self.counts) - 1 - index, 0)

    def _interpolate_in_bin(self, rank: Float64) -> Float64:
        """Return the energy of each rank, with the events of a bin spread evenly in asinh((energy - median) / IQR)."""
        index = self._bin_of_rank(rank)
        low, high = self._low[index], self._high[index]
        above = self._from_above[len(self.counts) - 1 - index] - self.counts[index]
        share = np.clip((rank - above - 0.5) / np.maximum(self.counts[index], 1), 0, 1)
        upper = np.arcsinh((high - self.scale.median) / self.scale.iqr)
        lower = np.arcsinh((low - self.scale.median) / self.scale.iqr)
        value = self.scale.median + self.scale.iqr * np.sinh(upper - share * (upper - lower))
        return np.asarray(np.clip(value, low, high), np.float64)


def _bin_bounds(scale: Scale, complete_above: float) -> tuple[Float64, Float64]:
    """Return the lower and upper bounds of each bin, cut at `complete_above`.

    The lowest bin has no lower edge. It is given the width of a bin, because no threshold lies there.
    """
    edges = bin_edges(scale)
    lowest = scale.median - scale.iqr * np.sinh(BIN_WIDTH * LAST_BIN)
    low = np.concatenate([[lowest], edges])
    high = np.concatenate([edges, [max(complete_above, float(edges[-1]))]])
    return np.minimum(low, complete_above), np.minimum(high, complete_above)


def count_listed_above(descending: Float32, energy: float) -> int:
    """Return the number of energies above in a list in descending order."""
    return bisect_left(descending, -energy, key=lambda listed: -float(listed))


def _count_by_bin(ascending: Float32, scale: Scale) -> Int64:
    """Return the number of energies of an ascending list in each bin, by the same comparisons as `bin_index`."""
    passed = np.searchsorted(ascending, _float32_edges(scale), side="left")
    return np.diff(np.concatenate([[0], passed, [len(ascending)]])).astype(np.int64)


@lru_cache(maxsize=16)
def _float32_edges(scale: Scale) -> Float32:
    """Return for each edge the smallest float32 that is not below it: a float32 energy is above both or neither."""
    edges = bin_edges(scale)
    with np.errstate(over="ignore"):  # an edge beyond every float32 is infinite among them
        nearest = edges.astype(np.float32)
        below = nearest.astype(np.float64) < edges
        nearest[below] = np.nextafter(nearest[below], np.float32(np.inf))
    return nearest


def _round_up(energy: float) -> np.float32:
    """Return the smallest float32 that is not below the energy."""
    rounded = np.float32(energy)
    return rounded if float(rounded) >= energy else np.nextafter(rounded, np.float32(np.inf))


def _warp(energy: float, scale: Scale) -> float:
    return float(np.arcsinh((energy - scale.median) / scale.iqr))


def _find_bin(energy: float, scale: Scale) -> int:
    """Return the index of the bin of an energy in float64, which may lie between float32 values."""
    return int(np.searchsorted(bin_edges(scale), energy, side="right"))


def order_statistic_quantiles(ascending: NDArray[np.floating], p: Float64) -> Float64:
    """Return the energies at fractions `p` of an ascending sample, with the same ranks as an `EnergySketch`."""
    n = len(ascending)
    index = np.clip(p * (n + 1) - 1, 0, n - 1)
    below = np.floor(index).astype(np.int64)
    above = np.minimum(below + 1, n - 1)
    low, high = ascending[below].astype(np.float64), ascending[above].astype(np.float64)
    share = index - below
    return np.where(low == high, low, low * (1 - share) + high * share)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowEnergies:
    """Energies of a window that are stored in its row, in nats."""

    p50: float
    p99: float
    maximum: float


def summarise_energies(part: Part, scale: Scale) -> WindowEnergies | None:
    """Return median, 99th percentile and maximum of the energies of a window. None for a window without events."""
    return _compute_window_energies(
        _PartKey((part.top.tobytes(), part.bins.tobytes(), part.counts.tobytes(), scale), part)
    )


@dataclass(frozen=True, slots=True)
class _PartKey:
    """Cache key of a part by its energies alone: parts in a back-test may differ only in their outlier counts."""

    key: tuple[bytes, bytes, bytes, Scale]
    part: Part = field(compare=False)


@lru_cache(maxsize=32)
def _compute_window_energies(same: _PartKey) -> WindowEnergies | None:
    part, scale = same.part, same.key[-1]
    if not part.events:
        return None
    p50, p99 = EnergySketch.from_part(part, scale).quantiles(np.array([0.5, 0.99]))
    return WindowEnergies(p50=float(p50), p99=float(p99), maximum=float(part.top[0]))
