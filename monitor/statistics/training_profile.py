"""The training profile for the drift test: quantiles, means and deviations of each feature. Pure functions.

The rank of a value among the training values is one of 64 bins between training quantiles. Equal quantiles, as in
discrete features, share their ranks (mid-ranks), so that a frequent training value lies in the middle of its ranks.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.precision import needs_float64

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
Int8 = NDArray[np.int8]
Int64 = NDArray[np.int64]
_Float = TypeVar("_Float", np.float32, np.float64)

N_BINS = 64
"""Bins between training quantiles. They cost a mean rank 0.02% of its precision."""

_MAX_ROWS = 100_000
"""Maximum number of training rows for the quantiles, evenly spaced. The quantiles are off by at most 0.5% of a rank."""

RANK_UNIT = float(np.sqrt(1 / 12))
"""Standard deviation of the rank of one training event, for a continuous feature."""

SPREAD_UNIT = float(np.sqrt(1 / 180))
"""Standard deviation of the squared distance of the rank from the middle, for one event of a continuous feature."""

_CHUNK_COLUMNS = 8
_MAX_FLOAT32 = float(np.finfo(np.float32).max)

_MIN_UNIT = 0.1
"""Smallest deviation of a feature as a share of these units. A constant feature has a deviation of zero."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureProfile:
    """Statistics of the training values of D features.

    `edges` are the 63 quantiles between the 64 bins of each feature, (D, 63), ascending: float32, or float64 where
    float32 would hide differences between the training values (`needs_float64`). `centre` and `deviation` are
    mean and standard deviation, (D,). `rank_deviation` and `spread_deviation` are the standard deviations of the rank
    of one event and of its squared distance from the middle, (D,).
    """

    edges: Floats
    centre: Float64
    deviation: Float64
    rank_deviation: Float64
    spread_deviation: Float64

    @property
    def feature_dtype(self) -> np.dtype[Any]:
        """The precision in which the model takes features: that of the edges."""
        return self.edges.dtype

    def head(self, n_features: int) -> "FeatureProfile":
        """Return the profile of the first features."""
        return FeatureProfile(
            edges=self.edges[:n_features],
            centre=self.centre[:n_features],
            deviation=self.deviation[:n_features],
            rank_deviation=self.rank_deviation[:n_features],
            spread_deviation=self.spread_deviation[:n_features],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingProfile:
    """The reference of the drift test. `energy_edges` are the quantiles of the model's reference energies, (63,)."""

    features: FeatureProfile
    energy_edges: Float32


def build_feature_profile(rows: NDArray[np.floating]) -> FeatureProfile:
    """Return the profile of training events, (n, D). The values must be finite."""
    sample = rows if len(rows) <= _MAX_ROWS else rows[np.linspace(0, len(rows) - 1, _MAX_ROWS).astype(np.int64)]
    columns: Floats
    if needs_float64(rows):
        columns = np.ascontiguousarray(sample.T, dtype=np.float64)
    else:
        columns = np.ascontiguousarray(np.clip(sample.T, -_MAX_FLOAT32, _MAX_FLOAT32), dtype=np.float32)
    edges = np.stack([quantile_edges(column) for column in columns])
    ranks = centred_ranks(columns, edges)
    spreads = np.square(ranks, dtype=np.int16)
    return FeatureProfile(
        edges=edges,
        centre=rows.mean(axis=0, dtype=np.float64),
        deviation=rows.std(axis=0, dtype=np.float64),
        rank_deviation=np.maximum(ranks.std(axis=1) / (2 * N_BINS), _MIN_UNIT * RANK_UNIT),
        spread_deviation=np.maximum(spreads.std(axis=1) / (2 * N_BINS) ** 2, _MIN_UNIT * SPREAD_UNIT),
    )


def quantile_edges(values: NDArray[_Float]) -> NDArray[_Float]:
    """Return the 63 values that split the sorted ones into 64 bins.

    They are members of the sample, so that nothing is rounded.
    """
    ordered = np.sort(values)
    return np.ascontiguousarray(ordered[np.arange(1, N_BINS) * len(ordered) // N_BINS])


def centred_ranks(columns: Floats, edges: Floats) -> Int8:
    """Return twice the distance of each value's rank from the middle, in bins: integers from -63 to 63.

    For a value between two edges with bin b (0 to 63) the result is 2 b - 63. For a value equal to edges it is the
    middle of the bins on both sides. The mean over the training values is near 0, with any ties. Comparing every value
    with every edge takes a quarter of the time of a binary search: there are no branches, and all vector lanes are
    used.

    Args:
        columns: Finite values, (D, n).
        edges: Edges of each column, (D, 63), in the precision of the values.
    """
    centred = np.full(columns.shape, 1 - N_BINS, np.int8)
    for at in range(0, len(columns), _CHUNK_COLUMNS):
        block = slice(at, at + _CHUNK_COLUMNS)
        exceeded = np.empty(columns[block].shape, np.bool_)
        for edge in edges[block].T[:, :, None]:
            for exceeds in (np.greater, np.greater_equal):
                exceeds(columns[block], edge, out=exceeded)
                np.add(centred[block], exceeded.view(np.int8), out=centred[block])
    return centred


def value_at_rank(mean_rank: float, edges: Floats) -> float:
    """Return the training value at a rank in [0, 1], to express a mean rank in the unit of the feature."""
    return float(np.interp(mean_rank, np.arange(1, N_BINS) / N_BINS, edges.astype(np.float64)))
