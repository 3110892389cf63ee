"""Explainer of the energies of one mixture: factors, a typical event, usual ranges and lines, computed once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.explain.attribution import MAX_EXPECTED, log_joint
from monitor.detectors.explain.derived import FeatureSource, find_sources
from monitor.detectors.explain.expected import compare_with_other_lines
from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.explain.lines import find_lines, join_unusual_pairs
from monitor.detectors.explain.prefixes import (
    PrefixFactors,
    additive_contributions,
    baseline_rows,
    make_prefix_factors,
)
from monitor.detectors.explain.typical import TYPICAL_PERCENTILE, USUAL_RANKS, usual_range
from monitor.detectors.inputs.checks import FloatArray
from monitor.statistics.training_profile import FeatureProfile

F64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_SEED = 0
_CHUNK_ROWS = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MixtureExplainer:
    """The fitted mixture, in the form for explanations.

    Attributes:
        factors: The factors of the mixture.
        typical: The mean contribution of each feature to the energy of a typical event, (D,), in nats.
        usual: The ends of the usual range of each feature, (2, D).
        lines: The line of each feature within each component, (K, D).
        features: The D feature names.
        sources: The field that each feature is or is derived from, (D,).
    """

    factors: PrefixFactors
    typical: F64
    usual: F64
    lines: Int64
    features: tuple[str, ...]
    sources: tuple[FeatureSource, ...]

    def explain(self, x: F64) -> Explanation:
        """Explain the energies of events (n, D)."""
        factors = self.factors
        component = log_joint(x, factors.weights, factors.means, factors.inverse).argmax(axis=1)
        contribution = additive_contributions(x, factors) - self.typical
        moving_together = self.lines[component]
        z, cost, expected = (np.empty(x.shape) for _ in range(3))
        alternatives = np.empty((*x.shape, MAX_EXPECTED - 1))
        for at in range(0, len(x), _CHUNK_ROWS):
            rows = slice(at, at + _CHUNK_ROWS)
            given_others = compare_with_other_lines(x[rows], moving_together[rows], factors)
            z[rows], cost[rows], expected[rows] = given_others.z, given_others.cost, given_others.expected
            alternatives[rows] = given_others.alternatives()
        return Explanation(
            features=self.features,
            value=x,
            contribution=contribution,
            typical_energy=float(self.typical.sum()),
            z=z,
            cost=cost,
            expected=expected,
            alternatives=alternatives,
            low=np.broadcast_to(self.usual[0], x.shape),
            high=np.broadcast_to(self.usual[1], x.shape),
            # Features that are strange as a pair do predict each other, those that move together do not.
            line=join_unusual_pairs(x, moving_together, contribution, factors),
            sources=self.sources,
        )


def make_explainer(
    weights: F64,
    means: F64,
    lower: F64,
    inverse: F64,
    *,
    features: tuple[str, ...],
    profile: FeatureProfile | None,
    typical: F64 | None,
    derived: Mapping[str, FeatureSource] | None = None,
) -> MixtureExplainer:
    """Build the explainer of a mixture.

    Args:
        weights: (K,), with sum 1.
        means: (K, D).
        lower: The lower Cholesky factors of the covariances, (K, D, D).
        inverse: Their inverses, (K, D, D).
        features: The D feature names.
        profile: The training profile with the usual ranges. Without one they come from events drawn from the mixture.
        typical: See `MixtureExplainer`. With None it comes from events drawn from the mixture.
        derived: The source of each feature that is derived from a field.
    """
    factors = make_prefix_factors(weights, means, lower, inverse)
    if typical is None:
        typical = typical_contributions(_draw(weights, means, lower), factors)
    if profile is None:
        usual: F64 = np.quantile(_draw(weights, means, lower), USUAL_RANKS, axis=0)
    else:
        usual = usual_range(profile)
    sources = find_sources(features, derived)
    return MixtureExplainer(
        factors=factors,
        typical=typical,
        usual=usual,
        lines=find_lines(lower, [source.field for source in sources]),
        features=features,
        sources=sources,
    )


def typical_contributions(rows: FloatArray, factors: PrefixFactors) -> F64:
    """Return the mean contribution of each feature over events below the 95th percentile of their energy, (D,).

    The events above it are left out, because a single gross event would move the mean. At most 1,000 rows are used,
    evenly spaced.
    """
    limit = baseline_rows(len(factors.means), rows.shape[1])
    sample = rows if len(rows) <= limit else rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]
    contributions = additive_contributions(sample.astype(np.float64), factors)
    energies = contributions.sum(axis=1)
    typical: F64 = contributions[energies <= np.percentile(energies, TYPICAL_PERCENTILE)].mean(axis=0)
    return typical


def _draw(weights: F64, means: F64, lower: F64) -> F64:
    """Return events drawn from the mixture with a fixed seed, (n, D)."""
    rng = np.random.default_rng(_SEED)
    n = baseline_rows(*means.shape)
    labels = np.repeat(np.arange(len(weights)), rng.multinomial(n, weights / weights.sum()))
    noise = rng.standard_normal((n, means.shape[1]))
    drawn = means[labels]
    for component in np.unique(labels):
        rows = labels == component
        drawn[rows] += noise[rows] @ lower[component].T
    return drawn
