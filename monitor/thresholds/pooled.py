"""Thresholds of few live energies: the percentile of reference and look-back together, each with its weight. Pure.

The error of the reference is not its sampling but the difference between training and live events. On the heads and the
live parts of real series, the logarithm of the exceedance at the percentile of the reference has a root mean square of
1 and more. By the rule of random effects (DerSimonian and Laird 1986), the weights are inverse to the variances of the
two logarithms of the exceedance, with n live and m reference energies, exceedance a and dispersion D:

    reference   1 / (D / (m a) + MOVE_VARIANCE)
    look-back   1 / (D / (n a))

A reference of any size is therefore worth about one or two live exceedances.
"""

from dataclasses import dataclass

import numpy as np

from monitor.statistics.part import Float32, Float64, Int64
from monitor.statistics.sketch import EnergySketch, order_statistic_quantiles
from monitor.thresholds.bounds import UNBOUNDED
from monitor.thresholds.percentile import (
    DetailValue,
    ThresholdEstimate,
    build_estimate,
    exceedance,
    exceedance_interval,
)

MOVE_VARIANCE = 1.0
"""Variance of the logarithm of the exceedance that the move from training to live events adds."""

MIN_LIVE_TAIL = 1
"""Minimum number of expected live exceedances for a pooled threshold."""

MAX_DISPERSION = 100.0
"""Bound of the dispersion in the weights: the pooled percentile then has at most 150 live energies above it."""


MAX_WINDOW_SHARE = 0.25
"""Largest share of the expected live exceedances that a single window counts with, apart from chance.

Without a bound, 15 outliers in one of 36 windows, 1% of the events, are the percentile 99.
"""

CHANCE_DEVIATIONS = 2.0
"""Number of standard deviations above its mean to which the count of a window is never bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWeights:
    """The share of the reference in the pooled distribution, and the number of independent exceedances of both."""

    reference_share: float
    effective_tail: float


def weigh_pool(reference_n: int, n: int, a: float, dispersion: float) -> PoolWeights:
    """Return the weights of `reference_n` reference energies and n > 0 live energies at exceedance a."""
    reference = 1 / (dispersion / (reference_n * a) + MOVE_VARIANCE) if reference_n else 0.0
    live = n * a / dispersion
    return PoolWeights(reference_share=reference / (reference + live), effective_tail=reference + live)


def bound_per_window(events: Int64, n: int, a: float, dispersion: float) -> Int64:
    """Return the number of energies above a pooled threshold that each window counts with at most, at least 1.

    Args:
        events: Events of each window.
        n: Events of the look-back.
        a: Exceedance of the percentile.
        dispersion: Dispersion of the outlier counts, at least 1.
    """
    mean = a * events
    by_chance = mean + CHANCE_DEVIATIONS * np.sqrt(min(dispersion, MAX_DISPERSION) * mean)
    most: Int64 = np.ceil(np.maximum(MAX_WINDOW_SHARE * n * a, by_chance)).astype(np.int64)
    return most


def estimate_pooled_threshold(
    sketch: EnergySketch,
    reference: Float32,
    percentile: float,
    *,
    dispersion: float = 1.0,
    live_tail: Float32 | None = None,
) -> ThresholdEstimate | None:
    """Return the percentile of the pooled distribution. None without a live exceedance or without a reference.

    The interval is that of the order statistic of a sample with as many exceedances as both weights together are worth.

    Args:
        sketch: Sketch of the look-back, with at most `MIN_LOOK_BACK_TAIL` energies above the percentile: the lists of
            largest energies reach down to the pooled percentile.
        reference: Energies of held-out training events, ascending.
        percentile: For example 99.5.
        dispersion: Dispersion of the outlier counts, at least 1.
        live_tail: The largest live energies that count, descending; all of them if None. Fewer of one window count than
            it has, so that the threshold does not move into a burst that no test has found.
    """
    a, m, n = exceedance(percentile), len(reference), sketch.n
    if not m or n * a < MIN_LIVE_TAIL:
        return None
    weights = weigh_pool(m, n, a, min(dispersion, MAX_DISPERSION))
    top = sketch.top if live_tail is None else live_tail[live_tail > sketch.complete_above]
    descending, above = _pool_tails(sketch, top, reference, weights.reference_share)
    low, high = exceedance_interval(max(round(weights.effective_tail / a), 1), a, 1.0)
    lower = float(np.interp(high, above, descending)) if high <= above[-1] else _bound_below(sketch, reference, high)
    upper = float(np.interp(low, above, descending)) if low >= above[0] else UNBOUNDED
    details: dict[str, DetailValue] = {
        "t_plain": sketch.quantile(1 - a),
        "reference_share": weights.reference_share,
        "reference_n": m,
        "dispersion": dispersion,
    }
    value = float(np.interp(a, above, descending))
    return build_estimate(value, (lower, upper), n=n, method="pooled", percentile=percentile, details=details)


def _bound_below(sketch: EnergySketch, reference: Float32, a: float) -> float:
    """Return an energy that is not above the pooled quantile at exceedance a."""
    return min(sketch.bracket(1 - a)[0], float(order_statistic_quantiles(reference, np.array([1 - a]))[0]))


def count_pool_reference(estimate: ThresholdEstimate, reference: Float32) -> tuple[float, int]:
    """Return the exceedances and the number of live events that the reference is worth beside the look-back.

    The rate of outliers is then that of the pooled distribution, and its uncertainty includes the move from training to
    live events. `estimate` is a pooled threshold.
    """
    share = estimate.details["reference_share"]
    assert isinstance(share, float)
    worth = max(1, round(min(estimate.n * share / max(1 - share, 1e-12), len(reference))))
    above = len(reference) - int(np.searchsorted(reference.astype(np.float64), estimate.value, side="right"))
    return worth * above / len(reference), worth


def _pool_tails(sketch: EnergySketch, live_tail: Float32, reference: Float32, share: float) -> tuple[Float64, Float64]:
    """Return the largest energies of both in descending order, and the pooled exceedance at each.

    The k-th largest of n energies has the exceedance k / (n + 1), as in `EnergySketch`. The lists end where that of the
    look-back does.
    """
    top = live_tail.astype(np.float64)
    largest = reference[np.searchsorted(reference, sketch.complete_above) :].astype(np.float64)
    energies = np.concatenate([top, largest])
    steps = np.repeat([(1 - share) / (sketch.n + 1), share / (len(reference) + 1)], [len(top), len(largest)])
    order = np.argsort(-energies, kind="stable")
    return energies[order], np.cumsum(steps[order])
