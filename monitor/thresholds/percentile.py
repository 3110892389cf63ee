"""Percentile thresholds of energies, with an interval and a guard against outliers. Pure functions.

The percentile of the look-back fails when the share of outliers reaches its exceedance: the threshold then lies among
the outliers. The look-back alone cannot distinguish such outliers from a heavier tail. The reference, the energies of
held-out training events, can. `estimate_anchored_threshold` maps the reference onto the body of the look-back by
location and scale. It uses the percentile of the look-back if that is at most the mapped reference quantile at the
nominal exceedance divided by `EXCEEDANCE_SLACK`, and otherwise the mapped percentile.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from monitor.statistics.part import Float32
from monitor.statistics.sketch import EnergySketch, order_statistic_quantiles
from monitor.thresholds.anchor import fit_anchor
from monitor.thresholds.bounds import UNBOUNDED

DetailValue = float | int | str | bool | None

INTERVAL_LEVEL = 0.9
"""Probability that an interval contains the energy of the exact percentile."""

MIN_REFERENCE_TAIL = 20
"""Minimum number of reference energies above the threshold. With fewer, the anchor is too inaccurate."""

MIN_LOOK_BACK_TAIL = 50
"""Minimum number of look-back energies above the threshold for a new estimate."""

MAX_GUARD_MISFIT = 0.05
"""Largest misfit of the line for which the reference may overrule the percentile of the look-back.

A body that the line misses is not that of the reference: what the reference implies for its tail is then wrong. On the
clean live parts of real series, the guard without this limit doubles the error of the threshold.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdEstimate:
    """A threshold with its interval and origin. Events with more energy than `value` are outliers.

    `value` is a float32 number: comparisons in float32, in float64 and in SQL give the same flags. `lower` and `upper`
    contain the energy of the exact percentile with 90% probability, by the distribution of the order statistic, widened
    by the bin of the histogram where it decides. `upper` is `UNBOUNDED` where there are too few energies for an upper
    bound. `n` is the number of energies used. `method` is `reference`, `pooled`, `plain`, `anchored` or
    `pot`. `details` holds
    the intermediate results and, as `held`, the reason why the threshold did not move.
    """

    value: float
    lower: float
    upper: float
    n: int
    method: str
    percentile: float
    details: dict[str, DetailValue] = field(default_factory=dict)


def exceedance(percentile: float) -> float:
    """Return the nominal share of events above a percentile such as 99.9: 0.001 and not 0.00099999999999.

    Raises:
        ValueError: The percentile does not lie between 0 and 100.
    """
    if not 0 < percentile < 100:
        raise ValueError(f"a percentile lies between 0 and 100, not {percentile}")
    return round(1 - percentile / 100, 12)


def exceedance_interval(n: int, a: float, dispersion: float) -> tuple[float, float]:
    """Return the 90% interval of the true exceedance of the percentile of n samples.

    The k-th largest of n energies is exceeded with probability Beta(k, n + 1 - k). The energies of a burst carry less
    information: both parameters are divided by the dispersion of the counts.
    """
    k = min(max(a * (n + 1), 1.0), float(n))
    alpha, beta = k / dispersion, (n + 1 - k) / dispersion
    tail = (1 - INTERVAL_LEVEL) / 2
    return float(special.betaincinv(alpha, beta, tail)), float(special.betaincinv(alpha, beta, 1 - tail))


def estimate_reference_threshold(
    reference: Float32, percentile: float, *, dispersion: float = 1.0
) -> ThresholdEstimate:
    """Return the percentile of the reference energies.

    Args:
        reference: Energies of held-out training events, ascending.
        percentile: For example 99.5.
        dispersion: Dispersion of the outlier counts, at least 1.

    Raises:
        ValueError: There are no reference energies.
    """
    a, m = exceedance(percentile), len(reference)
    if not m:
        raise ValueError("a reference threshold needs reference energies: fit the model on more events")
    low, high = exceedance_interval(m, a, dispersion)
    upper, value, lower = order_statistic_quantiles(reference, 1 - np.array([low, a, high])).tolist()
    upper = upper if low * (m + 1) >= 1 else UNBOUNDED
    details: dict[str, DetailValue] = {"reference_n": m, "dispersion": dispersion}
    return build_estimate(value, (lower, upper), n=m, method="reference", percentile=percentile, details=details)


def estimate_percentile_threshold(
    sketch: EnergySketch, percentile: float, *, dispersion: float = 1.0
) -> ThresholdEstimate:
    """Return the plain percentile of the look-back.

    Raises:
        ValueError: The look-back is empty.
    """
    a = exceedance(percentile)
    low, high = exceedance_interval(sketch.n, a, dispersion)
    value = sketch.quantile(1 - a)
    details: dict[str, DetailValue] = {
        "t_plain": value,
        "dispersion": dispersion,
        "exact": value >= sketch.complete_above,
    }
    interval = (sketch.bracket(1 - high)[0], sketch.bracket(1 - low)[1] if low * (sketch.n + 1) >= 1 else UNBOUNDED)
    return build_estimate(value, interval, n=sketch.n, method="plain", percentile=percentile, details=details)


def estimate_anchored_threshold(
    sketch: EnergySketch, reference: Float32, percentile: float, *, dispersion: float = 1.0
) -> ThresholdEstimate:
    """Return the percentile of the look-back, or that of the mapped reference where outliers have raised the former.

    The guard is one-sided: outliers of high energy can only raise a percentile, so that no lower bound is needed.

    Args:
        sketch: Sketch of the look-back.
        reference: Energies of held-out training events, ascending.
        percentile: For example 99.5.
        dispersion: Dispersion of the outlier counts, at least 1.

    Raises:
        ValueError: The look-back or the reference is empty.
    """
    plain = estimate_percentile_threshold(sketch, percentile, dispersion=dispersion)
    fit = fit_anchor(sketch, reference, exceedance(percentile))
    t_plain = plain.details["t_plain"]
    details = plain.details | {
        "t_anchored": fit.t_anchored,
        "t_high": fit.t_high,
        "eps": fit.outlier_share,
        "location": fit.location,
        "scale": fit.scale,
        "misfit": fit.misfit,
        "resolved": fit.resolved,
        "reference_n": len(reference),
    }
    is_plausible = isinstance(t_plain, float) and t_plain <= fit.t_high
    if is_plausible or fit.misfit > MAX_GUARD_MISFIT:
        return replace(plain, details=details)
    reference_estimate = estimate_reference_threshold(reference, percentile, dispersion=dispersion)
    lower, upper = (fit.location + fit.scale * bound for bound in (reference_estimate.lower, reference_estimate.upper))
    upper = upper if reference_estimate.upper < UNBOUNDED else UNBOUNDED
    return build_estimate(
        fit.t_anchored,
        (lower, upper),
        n=len(reference),
        method="anchored",
        percentile=percentile,
        details=details,
    )


def build_estimate(
    value: float,
    interval: tuple[float, float],
    *,
    n: int,
    method: str,
    percentile: float,
    details: dict[str, DetailValue],
) -> ThresholdEstimate:
    """Return the estimate of a value and its interval, rounded to float32."""
    rounded = _clip_to_float32(value)
    lower, upper = _clip_to_float32(interval[0]), _clip_to_float32(interval[1])
    # Round outwards, so that the interval keeps its probability.
    lower = lower if lower <= interval[0] else float(np.nextafter(np.float32(lower), np.float32(-np.inf)))
    upper = upper if upper >= interval[1] else float(np.nextafter(np.float32(upper), np.float32(np.inf)))
    return ThresholdEstimate(
        value=rounded,
        lower=min(lower, rounded),
        upper=max(upper, rounded),
        n=n,
        method=method,
        percentile=percentile,
        details=details,
    )


def _clip_to_float32(value: float) -> float:
    largest = float(np.finfo(np.float32).max)
    return float(np.float32(min(max(value, -largest), largest)))
