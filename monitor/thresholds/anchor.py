"""Location and scale of the body of the look-back relative to the reference, and the share of outliers.

Pure functions.
"""

from dataclasses import dataclass, replace
from math import fsum

import numpy as np

from monitor.statistics.part import BIN_WIDTH, Float32, Float64
from monitor.statistics.sketch import EnergySketch, order_statistic_quantiles

EXCEEDANCE_SLACK = 1.5
"""The percentile of the look-back is accepted up to the mapped reference quantile at exceedance a / 1.5."""

ITERATIONS = 8
INNER_ITERATIONS = 2
INNER_RANKS = np.arange(30, 71, 5) / 100
BODY_RANKS = np.arange(30, 91, 5) / 100
"""Fractions of the energies, ascending, that make up the body of a distribution."""

MAX_OUTLIER_SHARE = 0.3
"""Maximum share of outliers that a fit to the body assumes."""

MAX_MISFIT = 0.02
"""Largest distance from the fitted line, relative to the spread of the body, that is accepted without a search.

Measured: mostly below 0.02 where the clean energies are those of the reference at another location and scale and the
share is right; 0.03 and more where the line runs through outliers. Real drift of other kinds has 0.07 to 0.27. A larger
misfit is therefore no reason to discard the line, only to search for a better one.
"""

CANDIDATE_SHARES = np.arange(1, 101) / 200
"""Shares of outliers, up to a half, that are tried where no line fits."""

MIN_SHARE_ABOVE = 0.5
"""Part of a candidate share that must lie above its mapped percentile.

Outliers lie above it; a drift leaves no events there.
"""

MAX_BIN_WIDTH = 0.35
"""Widest bin, relative to the spread of the body (ranks 0.3 to 0.9), for which a fitted line is reliable.

Measured with 2% outliers in bursts on three distributions: up to this width the clean exceedance stayed within 0.6 to
2.4 of the nominal one; at twice the width within 0.3 to 42. Such bins occur when the clean location moves by about ten
spreads.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The line from the reference to the body of the look-back: look-back = location + scale x reference.

    `outlier_share` is the estimated share of outliers in the look-back. `misfit` is the largest distance of the body
    from the line, relative to its spread. `t_anchored` is the mapped percentile and `t_high` the largest energy that is
    accepted for the percentile of the look-back. `resolved` is True if the histogram is fine enough for the fit.
    """

    location: float
    scale: float
    outlier_share: float
    misfit: float
    t_anchored: float
    t_high: float
    resolved: bool


def fit_anchor(sketch: EnergySketch, reference: Float32, a: float) -> Anchor:
    """Fit location, scale and share of outliers of the look-back against the reference.

    Outliers of high energy shift the ranks of the clean energies: the clean quantile at rank r is the look-back
    quantile at r (1 - share). The fit alternates two steps: a least-squares line over the ranks of the body, and a
    count of the energies above the mapped percentile, beyond its nominal exceedance, as outliers. It does not use the
    threshold in force, because of the feedback: the threshold could only grow, or never change.

    The count misses outliers just above the threshold, and very many outliers, because the fitted line then passes
    through them. Where the misfit exceeds `MAX_MISFIT`, the share with the smallest misfit is therefore searched. It is
    used if it halves the misfit and if at least half of that share lies above the line. This finds up to 40% of
    outliers and does not mistake a drift of another shape for outliers.

    Args:
        sketch: Sketch of the look-back.
        reference: Energies of held-out training events, ascending.
        a: The nominal exceedance.
    """
    counted = _fit_iteratively(sketch, reference, a)
    if counted.misfit <= MAX_MISFIT:
        return counted
    searched = _search_outlier_share(sketch, reference, a)
    return searched if searched is not None and searched.misfit < counted.misfit / 2 else counted


def _fit_iteratively(sketch: EnergySketch, reference: Float32, a: float) -> Anchor:
    """Alternate between the fit and the count of outliers above.

    The first passes stay below rank 0.7. An initial fit up to rank 0.9 fails when bursts are over 10% of the look-back.
    """
    share = used_share = 0.0
    (top,) = order_statistic_quantiles(reference, np.array([1 - a])).tolist()
    inner, full = (order_statistic_quantiles(reference, ranks) for ranks in (INNER_RANKS, BODY_RANKS))
    location, scale = 0.0, 1.0
    for i in range(ITERATIONS):
        (ranks, at), used_share = ((INNER_RANKS, inner) if i < INNER_ITERATIONS else (BODY_RANKS, full)), share
        location, scale = _fit_line(at, sketch.quantiles(ranks * (1 - used_share)))
        share = min(_excess_share(sketch, location + scale * top, a), MAX_OUTLIER_SHARE)
    return _build_anchor(sketch, reference, a, (location, scale), used_share=used_share, share=share)


def _search_outlier_share(sketch: EnergySketch, reference: Float32, a: float) -> Anchor | None:
    """Fit at the outlier share with the line nearest to the body. None if that share is not found above the line."""
    full = order_statistic_quantiles(reference, BODY_RANKS)
    bodies = sketch.quantiles(np.outer(1 - CANDIDATE_SHARES, BODY_RANKS).ravel()).reshape(
        len(CANDIDATE_SHARES), len(BODY_RANKS)
    )
    lines = [_fit_line(full, body) for body in bodies]
    distances = [float(np.abs(body - line[0] - line[1] * full).max()) for body, line in zip(bodies, lines, strict=True)]
    spread = np.maximum(bodies[:, -1] - bodies[:, 0], np.finfo(np.float64).tiny)
    best = int(np.argmin(np.array(distances) / spread))
    share = float(CANDIDATE_SHARES[best])
    candidate = _build_anchor(sketch, reference, a, lines[best], used_share=share, share=share)
    share_above = _excess_share(sketch, candidate.t_anchored, a)
    return replace(candidate, outlier_share=max(share, share_above)) if share_above >= MIN_SHARE_ABOVE * share else None


def _excess_share(sketch: EnergySketch, energy: float, a: float) -> float:
    """Return the share of energies above that exceeds the share expected of clean energies."""
    return min(max((sketch.survival(energy) - a) / (1 - a), 0.0), 1.0)


def _build_anchor(
    sketch: EnergySketch, reference: Float32, a: float, line: tuple[float, float], *, used_share: float, share: float
) -> Anchor:
    location, scale = line
    top, high = order_statistic_quantiles(reference, 1 - np.array([a, a / EXCEEDANCE_SLACK])).tolist()
    body = sketch.quantiles(BODY_RANKS * (1 - used_share))
    distance = np.abs(body - location - scale * order_statistic_quantiles(reference, BODY_RANKS)).max()
    spread = float(body[-1] - body[0])
    return Anchor(
        location=location,
        scale=scale,
        outlier_share=share,
        misfit=float(distance) / spread if spread > 0 else 0.0,
        t_anchored=location + scale * top,
        t_high=location + scale * high,
        resolved=_is_resolved(sketch, reference, share),
    )


def _is_resolved(sketch: EnergySketch, reference: Float32, share: float) -> bool:
    """Return True if the bins of the body are narrow relative to its spread, or if the reference has ties."""
    ends = np.array([BODY_RANKS[0], BODY_RANKS[-1]])
    low, high = sketch.quantiles(ends * (1 - share)).tolist()
    widest = max(top - bottom for bottom, top in map(sketch.bracket, (BODY_RANKS * (1 - share)).tolist()))
    low_reference, high_reference = order_statistic_quantiles(reference, ends).tolist()
    tied = BIN_WIDTH * sketch.scale.iqr > MAX_BIN_WIDTH * (high_reference - low_reference)
    return bool(tied or widest <= MAX_BIN_WIDTH * (high - low))


def _fit_line(x: Float64, y: Float64) -> tuple[float, float]:
    """Return intercept and slope of the least-squares line. The slope is 1 where x does not vary."""
    # Exact sums: the last bit of a dot product depends on the processor, and thresholds must replay bit for bit.
    x_mean, y_mean = fsum(x.tolist()) / len(x), fsum(y.tolist()) / len(y)
    dx = x - x_mean
    spread = fsum((dx * dx).tolist())
    slope = fsum((dx * (y - y_mean)).tolist()) / spread if spread > 0 else 1.0
    return y_mean - slope * x_mean, slope
