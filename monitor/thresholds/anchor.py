"""How the body of the live energies lies to the reference, and what share of outliers lies above it. Pure."""

from dataclasses import dataclass, replace
from math import fsum

import numpy as np

from monitor.statistics.part import BIN_WIDTH, Float32, Float64
from monitor.statistics.sketch import EnergySketch, order_statistic_quantiles

EXCEEDANCE_SLACK = 1.5
"""The live percentile may exceed the mapped reference's by as much as this factor in exceedance."""

ITERATIONS = 8
INNER_ITERATIONS = 2
INNER_RANKS = np.arange(30, 71, 5) / 100
BODY_RANKS = np.arange(30, 91, 5) / 100
MAX_OUTLIER_SHARE = 0.3

MAX_MISFIT = 0.02
"""Largest distance from the fitted line, over the body's spread, from which another share is looked for.

Measured: mostly below 0.02 where the clean energies are the reference's at another location and scale and the share is
right; 0.03 and more where the line was drawn through outliers. Real drift of other kinds has 0.07 to 0.27, so it is no
reason to refuse the line, only to look for a better one.
"""

CANDIDATE_SHARES = np.arange(1, 101) / 200
"""Shares of outliers that are tried where no line fits, up to a half."""

MIN_SHARE_ABOVE = 0.5
"""Part of a share that must lie above its mapped percentile: outliers have to be somewhere, a drift leaves none."""

MAX_BIN_WIDTH = 0.35
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
    outlier_share: float
    misfit: float
    t_anchored: float
    t_high: float
    resolved: bool


def fit_anchor(sketch: EnergySketch, reference: Float32, a: float) -> Anchor:
    """Fit location, scale and share of outliers of the live energies against the reference.

    Outliers of high energy shift the ranks of the clean ones: the clean quantile at rank r is the live quantile at
    r (1 - share). Fit by least squares over ranks of the body, count what lies above the mapped percentile beyond its
    nominal exceedance as outliers, and repeat. It uses nothing of the limit in force: feeding that back ratchets or
    freezes. Outliers that sit just above the limit, or are very many, can hide from that: a line drawn through them
    leaves none above it. Where no line fits, therefore, the share is taken whose line lies nearest, if that is twice
    as near and the outliers are found above it: so up to 40% of outliers are found, and a drift of another shape is
    not mistaken for them.

    Args:
        sketch: Of the look-back.
        reference: Energies of training events that the model did not see, ascending.
        a: The nominal exceedance.
    """
    found = _fit_iteratively(sketch, reference, a)
    if found.misfit <= MAX_MISFIT:
        return found
    other = _search_outlier_share(sketch, reference, a)
    return other if other is not None and other.misfit < found.misfit / 2 else found


def _fit_iteratively(sketch: EnergySketch, reference: Float32, a: float) -> Anchor:
    """Fit, count what lies above as outliers, and repeat.

    The first passes stay below rank 0.7, for a start at 0.9 fails when bursts are over 10% of the look-back.
    """
    share = used = 0.0
    (top,) = order_statistic_quantiles(reference, np.array([1 - a])).tolist()
    careful, whole = (order_statistic_quantiles(reference, ranks) for ranks in (INNER_RANKS, BODY_RANKS))
    location, scale = 0.0, 1.0
    for i in range(ITERATIONS):
        (ranks, at), used = ((INNER_RANKS, careful) if i < INNER_ITERATIONS else (BODY_RANKS, whole)), share
        location, scale = _fit_line(at, sketch.quantiles(ranks * (1 - used)))
        share = min(_excess_share(sketch, location + scale * top, a), MAX_OUTLIER_SHARE)
    return _build_anchor(sketch, reference, a, (location, scale), used=used, share=share)


def _search_outlier_share(sketch: EnergySketch, reference: Float32, a: float) -> Anchor | None:
    """Fit at the share of outliers whose line lies nearest to the body; None where they are not found above it."""
    whole = order_statistic_quantiles(reference, BODY_RANKS)
    bodies = sketch.quantiles(np.outer(1 - CANDIDATE_SHARES, BODY_RANKS).ravel()).reshape(
        len(CANDIDATE_SHARES), len(BODY_RANKS)
    )
    lines = [_fit_line(whole, body) for body in bodies]
    away = [float(np.abs(body - line[0] - line[1] * whole).max()) for body, line in zip(bodies, lines, strict=True)]
    spread = np.maximum(bodies[:, -1] - bodies[:, 0], np.finfo(np.float64).tiny)
    best = int(np.argmin(np.array(away) / spread))
    share = float(CANDIDATE_SHARES[best])
    found = _build_anchor(sketch, reference, a, lines[best], used=share, share=share)
    counted = _excess_share(sketch, found.t_anchored, a)
    return replace(found, outlier_share=max(share, counted)) if counted >= MIN_SHARE_ABOVE * share else None


def _excess_share(sketch: EnergySketch, energy: float, a: float) -> float:
    """Return the share of energies above that is more than the clean ones' own."""
    return min(max((sketch.survival(energy) - a) / (1 - a), 0.0), 1.0)


def _build_anchor(
    sketch: EnergySketch, reference: Float32, a: float, line: tuple[float, float], *, used: float, share: float
) -> Anchor:
    location, scale = line
    top, high = order_statistic_quantiles(reference, 1 - np.array([a, a / EXCEEDANCE_SLACK])).tolist()
    body = sketch.quantiles(BODY_RANKS * (1 - used))
    away = np.abs(body - location - scale * order_statistic_quantiles(reference, BODY_RANKS)).max()
    spread = float(body[-1] - body[0])
    return Anchor(
        location=location,
        scale=scale,
        outlier_share=share,
        misfit=float(away) / spread if spread > 0 else 0.0,
        t_anchored=location + scale * top,
        t_high=location + scale * high,
        resolved=_is_resolved(sketch, reference, share),
    )


def _is_resolved(sketch: EnergySketch, reference: Float32, share: float) -> bool:
    """Say whether the bins of the live body are narrow against its spread; ties of the reference count as narrow."""
    ends = np.array([BODY_RANKS[0], BODY_RANKS[-1]])
    low, high = sketch.quantiles(ends * (1 - share)).tolist()
    widest = max(top - bottom for bottom, top in map(sketch.bracket, (BODY_RANKS * (1 - share)).tolist()))
    low_reference, high_reference = order_statistic_quantiles(reference, ends).tolist()
    tied = BIN_WIDTH * sketch.scale.iqr > MAX_BIN_WIDTH * (high_reference - low_reference)
    return bool(tied or widest <= MAX_BIN_WIDTH * (high - low))


def _fit_line(x: Float64, y: Float64) -> tuple[float, float]:
    """Return intercept and slope of the least-squares line; slope 1 where x does not vary."""
    # Exact sums: a dot product's last bit depends on the processor, and limits replay to the bit.
    x_mean, y_mean = fsum(x.tolist()) / len(x), fsum(y.tolist()) / len(y)
    dx = x - x_mean
    spread = fsum((dx * dx).tolist())
    slope = fsum((dx * (y - y_mean)).tolist()) / spread if spread > 0 else 1.0
    return y_mean - slope * x_mean, slope
