"""The threshold of a stream: a percentile of energies, with an interval, that outliers cannot lift. Pure.

A live percentile goes blind when the share of outliers reaches its own exceedance: the limit lands among
them. Nothing in the look-back alone can tell such outliers from a heavier tail. What can is the reference:
energies of training events that the model did not see. `anchored_limit` maps the reference onto the body of
the live energies (a change of location and scale), and lets the live percentile stand only while the mapped
reference finds it possible.
"""

from dataclasses import dataclass, field, replace
from math import fsum

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from monitor.parts import Float32, Float64
from monitor.sketch import EnergySketch

Detail = float | int | str | bool | None

LEVEL = 0.9
"""Probability that an interval holds the energy of the exact percentile."""

REFERENCE_TAIL = 20
"""Reference energies needed above the limit: with fewer the anchor is too coarse to correct anything."""

LOOK_BACK_TAIL = 50
"""Look-back energies needed above the limit before it may move."""

SLACK = 1.5
"""The live percentile may exceed the mapped reference's by as much as this factor in exceedance."""

PASSES = 8
CAREFUL_PASSES = 2
CAREFUL_RANKS = np.arange(30, 71, 5) / 100
RANKS = np.arange(30, 91, 5) / 100
LARGEST_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A threshold with what is known about it; events with more energy than `value` are outliers.

    `value` is a float32 number: comparing in float32, in float64 or in SQL gives the same flags. `lower` and
    `upper` hold the energy of the exact percentile with 90% probability, by the order statistic's law widened
    by the histogram's bin where that decided. `n` is the number of energies that it comes from. `method` is
    `reference`, `plain` or `anchored`; `details` has the numbers that led to it, and under `held` why it did
    not move.
    """

    value: float
    lower: float
    upper: float
    n: int
    method: str
    percentile: float
    details: dict[str, Detail] = field(default_factory=dict)


def exceedance(percentile: float) -> float:
    """Return the nominal share of events above a percentile such as 99.9: 0.001 and not 0.00099999999999."""
    if not 0 < percentile < 100:
        raise ValueError(f"a percentile lies between 0 and 100, not {percentile}")
    return round(1 - percentile / 100, 12)


def order_statistic_quantiles(ascending: NDArray[np.floating], p: Float64) -> Float64:
    """Return the energies at fractions `p` of a sorted sample, by the same ranks as an `EnergySketch`."""
    n = len(ascending)
    at = np.clip(p * (n + 1) - 1, 0, n - 1)
    below = np.floor(at).astype(np.int64)
    above = np.minimum(below + 1, n - 1)
    low, high = ascending[below].astype(np.float64), ascending[above].astype(np.float64)
    share = at - below
    return np.where(low == high, low, low * (1 - share) + high * share)


def exceedance_interval(n: int, a: float, dispersion: float) -> tuple[float, float]:
    """Return the 90% interval of the true exceedance of the n-sample's own percentile.

    The k-th largest of n energies is exceeded with probability Beta(k, n + 1 - k). Energies of a burst count
    as fewer: both parameters are divided by the dispersion of the counts.
    """
    k = min(max(a * (n + 1), 1.0), float(n))
    law = stats.beta(k / dispersion, (n + 1 - k) / dispersion)
    tail = (1 - LEVEL) / 2
    return float(law.ppf(tail)), float(law.ppf(1 - tail))


def reference_limit(reference: Float32, percentile: float, *, dispersion: float = 1.0) -> Limit:
    """Return the percentile of the reference energies: the first limit of a model.

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
    details: dict[str, Detail] = {"reference_n": m, "dispersion": dispersion}
    return _limit(value, (lower, upper), n=m, method="reference", percentile=percentile, details=details)


def percentile_limit(sketch: EnergySketch, percentile: float, *, dispersion: float = 1.0) -> Limit:
    """Return the plain percentile of the look-back. Raises ValueError where the look-back is empty."""
    a = exceedance(percentile)
    low, high = exceedance_interval(sketch.n, a, dispersion)
    value = sketch.quantile(1 - a)
    details: dict[str, Detail] = {
        "t_plain": value,
        "dispersion": dispersion,
        "exact": value >= sketch.complete_above,
    }
    interval = (sketch.bracket(1 - high)[0], sketch.bracket(1 - low)[1])
    return _limit(value, interval, n=sketch.n, method="plain", percentile=percentile, details=details)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """How the body of the live energies lies to the reference: live = location + scale x reference.

    `share` is the estimated share of outliers in the look-back, `t_anchored` the mapped percentile, `t_high`
    the largest energy that the live percentile may take.
    """

    location: float
    scale: float
    share: float
    t_anchored: float
    t_high: float


def anchor(sketch: EnergySketch, reference: Float32, percentile: float) -> Anchor:
    """Fit location, scale and share of outliers of the live energies against the reference.

    Outliers of high energy shift the ranks of the clean ones: the clean quantile at rank r is the live
    quantile at r (1 - share). Fit by least squares over ranks of the body, count what lies above the mapped
    percentile beyond its nominal exceedance as outliers, and repeat. The first passes stay below rank 0.7,
    for a start at 0.9 fails when bursts are over 10% of the look-back. It uses nothing of the limit in force:
    feeding that back ratchets or freezes.
    """
    a = exceedance(percentile)
    share = 0.0
    location, scale, t_anchored = 0.0, 1.0, np.nan
    top = float(order_statistic_quantiles(reference, np.array([1 - a]))[0])
    for i in range(PASSES):
        ranks = CAREFUL_RANKS if i < CAREFUL_PASSES else RANKS
        location, scale = _line(order_statistic_quantiles(reference, ranks), sketch.quantiles(ranks * (1 - share)))
        t_anchored = location + scale * top
        share = min(max((sketch.survival(t_anchored) - a) / (1 - a), 0.0), LARGEST_SHARE)
    high = float(order_statistic_quantiles(reference, np.array([1 - a / SLACK]))[0])
    return Anchor(location=location, scale=scale, share=share, t_anchored=t_anchored, t_high=location + scale * high)


def _line(x: Float64, y: Float64) -> tuple[float, float]:
    """Return intercept and slope of the least-squares line; slope 1 where x does not vary."""
    # Exact sums: a dot product's last bit depends on the processor, and limits replay to the bit.
    x_mean, y_mean = fsum(x.tolist()) / len(x), fsum(y.tolist()) / len(y)
    dx = x - x_mean
    spread = fsum((dx * dx).tolist())
    slope = fsum((dx * (y - y_mean)).tolist()) / spread if spread > 0 else 1.0
    return y_mean - slope * x_mean, slope


def anchored_limit(sketch: EnergySketch, reference: Float32, percentile: float, *, dispersion: float = 1.0) -> Limit:
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
    plain = percentile_limit(sketch, percentile, dispersion=dispersion)
    found = anchor(sketch, reference, percentile)
    t_plain = plain.details["t_plain"]
    details = plain.details | {
        "t_anchored": found.t_anchored,
        "t_high": found.t_high,
        "eps": found.share,
        "location": found.location,
        "scale": found.scale,
        "reference_n": len(reference),
    }
    if isinstance(t_plain, float) and t_plain <= found.t_high:
        return replace(plain, details=details)
    base = reference_limit(reference, percentile, dispersion=dispersion)
    lower, upper = (found.location + found.scale * bound for bound in (base.lower, base.upper))
    return _limit(
        found.t_anchored,
        (lower, upper),
        n=len(reference),
        method="anchored",
        percentile=percentile,
        details=details,
    )


def _limit(
    value: float,
    interval: tuple[float, float],
    *,
    n: int,
    method: str,
    percentile: float,
    details: dict[str, Detail],
) -> Limit:
    rounded = _as_float32(value)
    lower, upper = _as_float32(interval[0]), _as_float32(interval[1])
    # Rounded outwards, so that the interval keeps its probability.
    lower = lower if lower <= interval[0] else float(np.nextafter(np.float32(lower), np.float32(-np.inf)))
    upper = upper if upper >= interval[1] else float(np.nextafter(np.float32(upper), np.float32(np.inf)))
    return Limit(
        value=rounded,
        lower=min(lower, rounded),
        upper=max(upper, rounded),
        n=n,
        method=method,
        percentile=percentile,
        details=details,
    )


def _as_float32(value: float) -> float:
    largest = float(np.finfo(np.float32).max)
    return float(np.float32(min(max(value, -largest), largest)))


def reference_counts(limit: Limit, reference: Float32 | None) -> tuple[int, int]:
    """Return how many reference energies are above the limit, mapped back to them, and how many there are.

    Both are 0 where the limit is the look-back's own percentile: its windows must not count twice. A limit that is
    held is not that any more, so the reference counts for it, and there is a law even after a long silence.
    """
    own_percentile = limit.method == "plain" and ("held" not in limit.details or "location" not in limit.details)
    if reference is None or own_percentile:
        return 0, 0
    value = limit.value
    if limit.method != "reference":
        location, scale = limit.details["location"], limit.details["scale"]
        if not isinstance(location, float) or not isinstance(scale, float) or scale <= 0:
            return 0, 0
        value = (value - location) / scale
    above = len(reference) - int(np.searchsorted(reference.astype(np.float64), value, side="right"))
    return above, len(reference)


def decide_limit(
    previous: Limit | None,
    sketch: EnergySketch,
    reference: Float32 | None,
    percentile: float,
    *,
    dispersion: float = 1.0,
) -> Limit:
    """Return the limit of a threshold tick.

    Anchored where the model has reference energies, else the plain percentile. It does not move (`held` in
    the details says why) while fewer than 20 reference or 50 look-back energies lie above the percentile;
    without a previous limit it is then the reference's percentile.

    Args:
        previous: The limit in force for this model and percentile, if any.
        sketch: Of the windows of the look-back that count, all of this model.
        reference: The model's reference energies, ascending; None where the model has none.
        percentile: For example 99.5.
        dispersion: Of the counts of outliers; at least 1.

    Raises:
        ValueError: There is nothing to compute a first limit from.
    """
    reason = _too_few(sketch.n, None if reference is None else len(reference), percentile)
    if reason is not None and previous is not None and previous.percentile == percentile:
        return replace(previous, details=previous.details | {"held": reason})
    if reference is None:
        limit = percentile_limit(sketch, percentile, dispersion=dispersion)
    elif reason is not None:
        limit = reference_limit(reference, percentile, dispersion=dispersion)
    else:
        return anchored_limit(sketch, reference, percentile, dispersion=dispersion)
    return limit if reason is None else replace(limit, details=limit.details | {"held": reason})


def _too_few(n: int, reference_n: int | None, percentile: float) -> str | None:
    a = exceedance(percentile)
    if reference_n is not None and reference_n * a < REFERENCE_TAIL:
        needed = int(np.ceil(REFERENCE_TAIL / a))
        return f"p{percentile:g} needs {needed:,} reference energies, the model has {reference_n:,}: fit on more"
    if n * a < LOOK_BACK_TAIL:
        needed = int(np.ceil(LOOK_BACK_TAIL / a))
        return f"p{percentile:g} needs {needed:,} events in the look-back, it has {n:,}"
    return None
