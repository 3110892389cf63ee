"""The threshold of a stream: a percentile of energies, with an interval, that outliers cannot lift. Pure.

A live percentile goes blind when the share of outliers reaches its own exceedance: the limit lands among
them. Nothing in the look-back alone can tell such outliers from a heavier tail. What can is the reference:
energies of training events that the model did not see. `anchored_limit` maps the reference onto the body of
the live energies (a change of location and scale), and lets the live percentile stand only while the mapped
reference finds it possible.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import special

from monitor.statistics.part import Float32
from monitor.statistics.sketch import EnergySketch, order_statistic_quantiles
from monitor.thresholds.anchor import fit_anchor

DetailValue = float | int | str | bool | None

INTERVAL_LEVEL = 0.9
"""Probability that an interval holds the energy of the exact percentile."""

MIN_REFERENCE_TAIL = 20
"""Reference energies needed above the limit: with fewer the anchor is too coarse to correct anything."""

MIN_LOOK_BACK_TAIL = 50
"""Look-back energies needed above the limit before it may move."""

UNBOUNDED = float(np.finfo(np.float32).max)
"""The upper bound of a percentile that may lie above all energies seen: their order says nothing about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdEstimate:
    """A threshold with what is known about it; events with more energy than `value` are outliers.

    `value` is a float32 number: comparing in float32, in float64 or in SQL gives the same flags. `lower` and
    `upper` hold the energy of the exact percentile with 90% probability, by the order statistic's law widened
    by the histogram's bin where that decided; `upper` is `OPEN` where the energies are too few for one. `n` is the
    number of energies that it comes from. `method` is `reference`, `plain`, `anchored` or `pot`; `details` has the
    numbers that led to it, and under `held` why it did not move.
    """

    value: float
    lower: float
    upper: float
    n: int
    method: str
    percentile: float
    details: dict[str, DetailValue] = field(default_factory=dict)


def exceedance(percentile: float) -> float:
    """Return the nominal share of events above a percentile such as 99.9: 0.001 and not 0.00099999999999."""
    if not 0 < percentile < 100:
        raise ValueError(f"a percentile lies between 0 and 100, not {percentile}")
    return round(1 - percentile / 100, 12)


def exceedance_interval(n: int, a: float, dispersion: float) -> tuple[float, float]:
    """Return the 90% interval of the true exceedance of the n-sample's own percentile.

    The k-th largest of n energies is exceeded with probability Beta(k, n + 1 - k). Energies of a burst count
    as fewer: both parameters are divided by the dispersion of the counts.
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
        reference: Energies of training events that the model did not see, ascending.
        percentile: For example 99.5.
        dispersion: Of the counts of outliers; at least 1.

    Raises:
        ValueError: There are no reference energies.
    """
    a, m = exceedance(percentile), len(reference)
    if not m:
        raise ValueError("a reference limit needs reference energies: fit the model on more events")
    low, high = exceedance_interval(m, a, dispersion)
    upper, value, lower = order_statistic_quantiles(reference, 1 - np.array([low, a, high])).tolist()
    upper = upper if low * (m + 1) >= 1 else UNBOUNDED
    details: dict[str, DetailValue] = {"reference_n": m, "dispersion": dispersion}
    return build_estimate(value, (lower, upper), n=m, method="reference", percentile=percentile, details=details)


def estimate_percentile_threshold(
    sketch: EnergySketch, percentile: float, *, dispersion: float = 1.0
) -> ThresholdEstimate:
    """Return the plain percentile of the look-back. Raises ValueError where the look-back is empty."""
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
    """Return the look-back's percentile, or the mapped reference's where outliers have lifted it.

    A one-sided guard: high outliers can only raise a percentile, so there is no lower clip.

    Args:
        sketch: Of the look-back.
        reference: Energies of training events that the model did not see, ascending.
        percentile: For example 99.5.
        dispersion: Of the counts of outliers; at least 1.

    Raises:
        ValueError: The look-back or the reference is empty.
    """
    plain = estimate_percentile_threshold(sketch, percentile, dispersion=dispersion)
    found = fit_anchor(sketch, reference, exceedance(percentile))
    t_plain = plain.details["t_plain"]
    details = plain.details | {
        "t_anchored": found.t_anchored,
        "t_high": found.t_high,
        "eps": found.outlier_share,
        "location": found.location,
        "scale": found.scale,
        "misfit": found.misfit,
        "resolved": found.resolved,
        "reference_n": len(reference),
    }
    if isinstance(t_plain, float) and t_plain <= found.t_high:
        return replace(plain, details=details)
    base = estimate_reference_threshold(reference, percentile, dispersion=dispersion)
    lower, upper = (found.location + found.scale * bound for bound in (base.lower, base.upper))
    upper = upper if base.upper < UNBOUNDED else UNBOUNDED
    return build_estimate(
        found.t_anchored,
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
    """Return the limit of a value and its interval, in single precision."""
    rounded = _clip_to_float32(value)
    lower, upper = _clip_to_float32(interval[0]), _clip_to_float32(interval[1])
    # Rounded outwards, so that the interval keeps its probability.
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
