"""How the body of the live energies lies to the reference, and what share of outliers lies above it. Pure."""

from dataclasses import dataclass
from math import fsum

import numpy as np

from monitor.parts import BIN_WIDTH, Float32, Float64
from monitor.sketch import EnergySketch, order_statistic_quantiles

SLACK = 1.5
"""The live percentile may exceed the mapped reference's by as much as this factor in exceedance."""

PASSES = 8
CAREFUL_PASSES = 2
CAREFUL_RANKS = np.arange(30, 71, 5) / 100
RANKS = np.arange(30, 91, 5) / 100
LARGEST_SHARE = 0.3

MISFIT = 0.1
"""Largest distance from the fitted line, over the body's spread, from which a second start is tried.

Measured: at most 0.03 where the clean energies are the reference's at another location and scale; 0.14 and more
where more than a quarter of the look-back are outliers and the line was drawn through them. Real drift of other
kinds has 0.07 to 0.27, so it is no reason to refuse the line, only to look for a better one.
"""

SECOND_START = 0.25
SECOND_LARGEST_SHARE = 0.5

COARSE = 0.35
"""Widest bin over the body's spread (ranks 0.3 to 0.9) from which a fitted line cannot be trusted.

Measured with 2% outliers in bursts on three laws: up to it the clean exceedance stayed within 0.6 to 2.4 of the
nominal one, at twice as much within 0.3 to 42. It takes a clean location that moves some ten spreads away.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """How the body of the live energies lies to the reference: live = location + scale x reference.

    `share` is the estimated share of outliers in the look-back, `misfit` how far the body lies from the line at most,
    over its spread; `t_anchored` the mapped percentile, `t_high` the largest energy that the live percentile may take.
    `resolved` says whether the histogram shows the body finely enough for all of that.
    """

    location: float
    scale: float
    share: float
    misfit: float
    t_anchored: float
    t_high: float
    resolved: bool


def anchor(sketch: EnergySketch, reference: Float32, a: float) -> Anchor:
    """Fit location, scale and share of outliers of the live energies against the reference.

    Outliers of high energy shift the ranks of the clean ones: the clean quantile at rank r is the live quantile at
    r (1 - share). Fit by least squares over ranks of the body, count what lies above the mapped percentile beyond its
    nominal exceedance as outliers, and repeat. It uses nothing of the limit in force: feeding that back ratchets or
    freezes. Where no line fits, begin again as if a quarter were outliers, and take that line if it lies twice as
    near: so up to 40% of outliers are found, and a drift of another shape is not mistaken for them.

    Args:
        sketch: Of the look-back.
        reference: Energies of training events that the model did not see, ascending.
        a: The nominal exceedance.
    """
    found = _fit(sketch, reference, a, 0.0, LARGEST_SHARE)
    if found.misfit > MISFIT:
        second = _fit(sketch, reference, a, SECOND_START, SECOND_LARGEST_SHARE)
        if second.misfit < found.misfit / 2:
            return second
    return found


def _fit(sketch: EnergySketch, reference: Float32, a: float, share: float, largest_share: float) -> Anchor:
    """Fit from a first share of outliers.

    The first passes stay below rank 0.7, for a start at 0.9 fails when bursts are over 10% of the look-back.
    """
    location, scale, t_anchored, used = 0.0, 1.0, np.nan, share
    top, high = order_statistic_quantiles(reference, 1 - np.array([a, a / SLACK])).tolist()
    careful, all_of_it = (order_statistic_quantiles(reference, ranks) for ranks in (CAREFUL_RANKS, RANKS))
    for i in range(PASSES):
        (ranks, at), used = ((CAREFUL_RANKS, careful) if i < CAREFUL_PASSES else (RANKS, all_of_it)), share
        location, scale = _line(at, sketch.quantiles(ranks * (1 - used)))
        t_anchored = location + scale * top
        share = min(max((sketch.survival(t_anchored) - a) / (1 - a), 0.0), largest_share)
    body = sketch.quantiles(RANKS * (1 - used))
    away = np.abs(body - location - scale * all_of_it).max()
    spread = float(body[-1] - body[0])
    return Anchor(
        location=location,
        scale=scale,
        share=share,
        misfit=float(away) / spread if spread > 0 else 0.0,
        t_anchored=t_anchored,
        t_high=location + scale * high,
        resolved=_resolved(sketch, reference, share),
    )


def _resolved(sketch: EnergySketch, reference: Float32, share: float) -> bool:
    """Say whether the bins of the live body are narrow against its spread; ties of the reference count as narrow."""
    ends = np.array([RANKS[0], RANKS[-1]])
    low, high = sketch.quantiles(ends * (1 - share)).tolist()
    widest = max(top - bottom for bottom, top in map(sketch.bracket, (RANKS * (1 - share)).tolist()))
    low_reference, high_reference = order_statistic_quantiles(reference, ends).tolist()
    tied = BIN_WIDTH * sketch.scale.iqr > COARSE * (high_reference - low_reference)
    return bool(tied or widest <= COARSE * (high - low))


def _line(x: Float64, y: Float64) -> tuple[float, float]:
    """Return intercept and slope of the least-squares line; slope 1 where x does not vary."""
    # Exact sums: a dot product's last bit depends on the processor, and limits replay to the bit.
    x_mean, y_mean = fsum(x.tolist()) / len(x), fsum(y.tolist()) / len(y)
    dx = x - x_mean
    spread = fsum((dx * dx).tolist())
    slope = fsum((dx * (y - y_mean)).tolist()) / spread if spread > 0 else 1.0
    return y_mean - slope * x_mean, slope
