"""The statistics of the drift test: names, means and units of the sums of a window. Pure functions."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.drift_summary import ValueSummary, summarise_ranks
from monitor.statistics.drift_sums import MAX_PAIRED_FEATURES, SCORE_UNIT, SHARE_UNIT, DriftSums, feature_pair
from monitor.statistics.training_profile import N_BINS, RANK_UNIT, SPREAD_UNIT, TrainingProfile, value_at_rank

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_MIN_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftStatistic:
    """One statistic: its name and its feature, which is empty for a statistic of the whole stream."""

    name: str
    feature: str

    def __str__(self) -> str:
        return f"{self.name} of {self.feature}" if self.feature else self.name


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftStatistics:
    """The J statistics of one model, in the order of the joined sums.

    `rank` is the mean rank among the training values and `spread` the mean squared distance of the rank from the
    middle, both for each feature and for the energy. `occupancy` is the mean share of a component. `pair` is the mean
    product of two standardised features, which is near their correlation. `shape` holds the numbers of ranks,
    components and pairs. `components` are the names of the components by their centres, such as "near amount 20".
    """

    features: tuple[str, ...]
    shape: tuple[int, int, int]
    profile: TrainingProfile
    components: tuple[str, ...] = ()

    @property
    def n_watched(self) -> int:
        """Return the number of features that are tested one by one."""
        return self.shape[0] - 1

    @property
    def energy_rank_index(self) -> int:
        """Return the index of the mean rank of the energy."""
        return self.n_watched

    def __len__(self) -> int:
        ranks, components, pairs = self.shape
        return 2 * ranks + components + pairs

    @property
    def n_without_pairs(self) -> int:
        """Return the number of statistics that are not pairs; these come first."""
        return len(self) - self.shape[2]

    def statistic_at(self, index: int) -> DriftStatistic:
        """Return the statistic at an index."""
        return _name_statistics(self.features, self.shape, self.components)[index]

    @property
    def all_statistics(self) -> tuple[DriftStatistic, ...]:
        """Return the statistics in their order."""
        return _name_statistics(self.features, self.shape, self.components)

    def groups(self) -> list[slice]:
        """Return the index range of each statistic name that occurs."""
        _, components, pairs = self.shape
        sizes = [self.n_watched, 1, self.n_watched, 1, components, pairs]
        ends = np.cumsum(sizes).tolist()
        return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True) if size]

    def means(self, sums: Int64, events: int | Int64) -> Float64:
        """Return the means of joined sums over a number of events, (J,); of several horizons, (W, J), with (W, 1)."""
        means = sums / _unit_scales(self.shape) / events
        means[..., : self.shape[0]] += 0.5
        return np.asarray(means, np.float64)

    def units(self, base_means: Float64) -> Float64:
        """Return the training deviation of one event in each statistic, (J,)."""
        ranks, components, pairs = self.shape
        profile, d = self.profile.features, self.n_watched
        shares = np.clip(base_means[2 * ranks : 2 * ranks + components], _MIN_SHARE, 1 - _MIN_SHARE)
        return np.concatenate(
            [
                [*profile.rank_deviation[:d], RANK_UNIT],
                [*profile.spread_deviation[:d], SPREAD_UNIT],
                np.sqrt(shares * (1 - shares)),
                np.ones(pairs),
            ]
        )

    def largest_units(self) -> Float64:
        """Return the deviation of one event in each statistic for features of many values, (J,)."""
        ranks, components, pairs = self.shape
        return np.repeat([RANK_UNIT, SPREAD_UNIT, 0.5, 1.0], [ranks, ranks, components, pairs])

    def sampling_deviations(self, means: Float64, variance_factor: float) -> Float64:
        """Return the deviation of each occupancy with independent events, (J,), and 0 for the other statistics.

        Args:
            means: Expected means, (J,).
            variance_factor: Variance of the change as a multiple of the variance of one event.
        """
        ranks, components, _ = self.shape
        own = slice(2 * ranks, 2 * ranks + components)
        shares = np.clip(means[own], 0.0, 1.0)
        deviations = np.zeros(len(self))
        deviations[own] = np.sqrt(shares * (1 - shares) * variance_factor)
        return deviations

    def summarise_values(self, index: int, means: Float64) -> ValueSummary | None:
        """Return mean, median and usual range of the feature of a rank or spread, in its unit; else None.

        Args:
            index: Index of the statistic.
            means: Means of all statistics, (J,).
        """
        ranks = self.shape[0]
        if index >= 2 * ranks:
            return None
        j = index % ranks
        moments = float(means[j]), float(means[ranks + j])
        if j == self.n_watched:
            return summarise_ranks(*moments, self.profile.energy_edges, None)
        return summarise_ranks(*moments, self.profile.features.edges[j], float(self.profile.features.centre[j]))

    def in_feature_units(self, index: int, mean: float) -> float | None:
        """Return a mean rank as the training value with this rank. None for other statistics."""
        if index == self.energy_rank_index:
            return value_at_rank(mean, self.profile.energy_edges)
        return value_at_rank(mean, self.profile.features.edges[index]) if index < self.n_watched else None


@lru_cache(maxsize=32)
def _name_statistics(
    features: tuple[str, ...], shape: tuple[int, int, int], components: tuple[str, ...]
) -> tuple[DriftStatistic, ...]:
    """Return the statistics in their order."""
    ranks, n_components, pairs = shape
    watched = features[: ranks - 1]
    named = (
        components if len(components) == n_components else tuple(f"component {at + 1}" for at in range(n_components))
    )
    paired = [feature_pair(at, len(features)) for at in range(pairs)]
    return (
        *(DriftStatistic(name="rank", feature=feature) for feature in watched),
        DriftStatistic(name="energy_rank", feature=""),
        *(DriftStatistic(name="spread", feature=feature) for feature in watched),
        DriftStatistic(name="energy_spread", feature=""),
        *(DriftStatistic(name="occupancy", feature=name) for name in named),
        *(DriftStatistic(name="pair", feature=f"{features[one]} * {features[two]}") for one, two in paired),
    )


@lru_cache(maxsize=32)
def _unit_scales(shape: tuple[int, int, int]) -> Float64:
    """Return the integer that represents 1 in the sums of each statistic."""
    ranks, components, pairs = shape
    return np.repeat([2.0 * N_BINS, (2.0 * N_BINS) ** 2, SHARE_UNIT, SCORE_UNIT**2], [ranks, ranks, components, pairs])


def join_sums(sums: DriftSums) -> Int64:
    """Return all sums as one array, (J,)."""
    parts = [sums.ranks, sums.squares, sums.occupancy, sums.pairs]
    return np.concatenate([part for part in parts if part is not None])


def is_valid_shape(shape: tuple[int, int, int], n_features: int) -> bool:
    """Return True if sums of a shape can belong to a model with this number of features."""
    ranks, _, pairs = shape
    paired = n_features * (n_features - 1) // 2 if n_features <= MAX_PAIRED_FEATURES else 0
    return ranks - 1 in (0, n_features) and pairs in (0, paired)
