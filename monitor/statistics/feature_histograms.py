"""Distributions of a feature side by side: histograms with common bins, and quantiles with their error. Pure functions.

A distribution comes from a weighted sample of events, or from 63 stored quantiles between 64 bins of equal share. A
sample of m events has an error: the share of events below a value has the standard error sqrt(p (1 - p) / m). For
each quantile it is given as the interval of values that holds the true quantile with 95% probability. 63 quantiles are
exact in each of their ranks, and bound a quantile between them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.training_profile import N_BINS

Float64 = NDArray[np.float64]

BINS = 24
LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
"""The quantiles that are told of each distribution."""

_STORED_LEVELS = np.arange(1, N_BINS) / N_BINS
_Z95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distribution:
    """Values of D features: each column ascending, with the share of events up to each value.

    Attributes:
        values: Values, (m, D).
        ends: Share of the events up to each value, (m, D).
        ranks: The middle of each value's own share, (m, D); of stored quantiles their levels.
        sampled: Number of events that the values come from.
        effective: Number of equally weighted events with the same error; None for stored quantiles.
        complete: Whether the sample holds all events.
    """

    values: Float64
    ends: Float64
    ranks: Float64
    sampled: int
    effective: float | None
    complete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDistribution:
    """The distribution of one feature, for a person.

    `shares` are those of the 24 bins; the first and the last are open. `quantiles` are at 5, 25, 50, 75 and 95%;
    `lower` and `upper` bound each of them with 95% probability.
    """

    sampled: int
    quantiles: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureHistogram:
    """One feature in training, before and in a horizon, in common bins with 25 `edges`. None: not known any more."""

    feature: str
    edges: tuple[float, ...]
    training: FeatureDistribution | None
    before: FeatureDistribution | None
    after: FeatureDistribution | None


def from_sample(values: Float64, weights: Float64) -> Distribution:
    """Return the distribution of weighted events, (m, D) and (m,); m is at least 1.

    A weight is the number of events that a sampled one stands for.
    """
    order = np.argsort(values, axis=0, kind="stable")
    weight = weights[order] / weights.sum()
    ends = np.cumsum(weight, axis=0)
    return Distribution(
        values=np.take_along_axis(values, order, axis=0),
        ends=ends,
        ranks=ends - weight / 2,
        sampled=len(values),
        effective=float(weights.sum() ** 2 / (weights**2).sum()),
        complete=bool((weights == 1).all()),
    )


def from_quantiles(quantiles: Float64, sampled: int) -> Distribution:
    """Return the distribution with these 63 quantiles of each feature, (D, 63)."""
    values = np.ascontiguousarray(quantiles.T, np.float64)
    ranks = np.broadcast_to(_STORED_LEVELS[:, None], values.shape)
    return Distribution(values=values, ends=ranks, ranks=ranks, sampled=sampled, effective=None)


def to_quantiles(distribution: Distribution) -> Float64:
    """Return the 63 quantiles of each feature, (D, 63)."""
    columns = zip(distribution.values.T, distribution.ranks.T, strict=True)
    return np.array([np.interp(_STORED_LEVELS, ranks, values) for values, ranks in columns])


def encode_quantiles(quantiles: Float64) -> bytes:
    """Return 63 quantiles of each feature, (D, 63), as bytes."""
    return quantiles.astype("<f8").tobytes()


def decode_quantiles(payload: bytes) -> Float64:
    """Return the quantiles that `encode_quantiles` wrote, (D, 63)."""
    return np.frombuffer(payload, "<f8").astype(np.float64).reshape(-1, N_BINS - 1)


def compare(
    names: tuple[str, ...],
    *,
    training: Distribution | None,
    before: Distribution | None,
    after: Distribution | None,
    only: str | None = None,
) -> list[FeatureHistogram]:
    """Return the histograms of the named features, the columns of each distribution, in common bins; or `only` one."""
    sides = {"training": training, "before": before, "after": after}
    known = {name: side for name, side in sides.items() if side is not None}
    histograms = []
    for column, feature in enumerate(names):
        if only not in (None, feature):
            continue
        edges = _find_edges([(side.values[:, column], side.ranks[:, column]) for side in known.values()])
        told = {name: _describe(side, column, edges) for name, side in known.items()}
        histograms.append(
            FeatureHistogram(
                feature=feature,
                edges=tuple(edges.tolist()),
                training=told.get("training"),
                before=told.get("before"),
                after=told.get("after"),
            )
        )
    return histograms


def quantiles_of(side: Distribution, column: int) -> tuple[float, ...]:
    """Return the quantiles of one feature at `LEVELS`."""
    return tuple(np.interp(LEVELS, side.ranks[:, column], side.values[:, column]).tolist())


def mean_of(side: Distribution, column: int) -> float:
    """Return the mean of one feature; of stored quantiles that of these, so that the outermost 64ths count less."""
    if side.effective is None:
        return float(side.values[:, column].mean())
    return float(side.values[:, column] @ np.diff(side.ends[:, column], prepend=0.0))


def _find_edges(columns: list[tuple[Float64, Float64]]) -> Float64:
    """Return 25 edges of equal distance over the inner 98% of each distribution."""
    outer = np.array([1, N_BINS - 1]) / N_BINS
    ends = np.array([np.interp(outer, ranks, values) for values, ranks in columns]).reshape(-1, 2)
    low, high = (float(ends[:, 0].min()), float(ends[:, 1].max())) if len(ends) else (0.0, 1.0)
    if not low < high:  # a constant feature
        margin = max(abs(low), 1.0) / 2
        low, high = low - margin, high + margin
    return np.linspace(low, high, BINS + 1)


def _describe(side: Distribution, column: int, edges: Float64) -> FeatureDistribution:
    values, ranks = side.values[:, column], side.ranks[:, column]
    # Stored quantiles bound a rank between two of them; a sample has the error of a binomial share.
    error = 1 / N_BINS if side.effective is None else _Z95 * np.sqrt(LEVELS * (1 - LEVELS) / side.effective)
    quantiles, lower, upper = (
        tuple(np.interp(np.clip(level, 0.0, 1.0), ranks, values).tolist())
        for level in (LEVELS, LEVELS - error, LEVELS + error)
    )
    below = _share_below(edges[1:-1], side, column)
    return FeatureDistribution(
        sampled=side.sampled,
        quantiles=quantiles,
        lower=lower,
        upper=upper,
        shares=tuple(np.diff(below, prepend=0.0, append=1.0).tolist()),
    )


def _share_below(edges: Float64, side: Distribution, column: int) -> Float64:
    """Return the share of events below each inner edge, ascending."""
    values, ends = side.values[:, column], side.ends[:, column]
    place = np.searchsorted(values, edges, side="left")
    if side.effective is not None:
        return np.where(place > 0, ends[np.maximum(place - 1, 0)], 0.0)
    # The events between two stored quantiles are spread evenly.
    low, high = np.maximum(place - 1, 0), np.minimum(place, len(values) - 1)
    width = values[high] - values[low]
    within = np.divide(edges - values[low], width, out=np.zeros_like(edges), where=width > 0)
    inner = ends[low] + np.clip(within, 0.0, 1.0) * (ends[high] - ends[low])
    return np.where(place == 0, 0.0, np.where(place == len(values), 1.0, inner))
