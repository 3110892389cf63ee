"""Limits beyond what was seen: from the generalised Pareto tail, guarded by the reference's. Pure.

Used where a percentile is out of reach: with fewer energies above it than an order statistic needs, down to where
there is none at all. Where there are enough of them the percentile is as good and supposes less.
"""

import numpy as np

from monitor.statistics.part import Float32
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.anchor import EXCEEDANCE_SLACK, Anchor, fit_anchor
from monitor.thresholds.percentile import (
    INTERVAL_LEVEL,
    MIN_LOOK_BACK_TAIL,
    MIN_REFERENCE_TAIL,
    DetailValue,
    ThresholdEstimate,
    build_estimate,
    exceedance,
)
from monitor.thresholds.tail import ParetoTail, fit_tail


def estimate_reference_pot_threshold(
    reference: Float32, percentile: float, *, dispersion: float = 1.0
) -> ThresholdEstimate | None:
    """Return the limit by the tail of the reference energies, ascending; None where they are too few for a tail."""
    tail = fit_tail(reference[::-1].astype(np.float64), len(reference))
    if tail is None:
        return None
    details: dict[str, DetailValue] = {"reference_n": len(reference), "dispersion": dispersion, "tail_of": "reference"}
    return _build_tail_estimate(tail, percentile, dispersion, details)


def estimate_pot_threshold(
    sketch: EnergySketch, reference: Float32 | None, percentile: float, *, dispersion: float = 1.0
) -> ThresholdEstimate | None:
    """Return the limit by the generalised Pareto tail of the look-back; None where a tail has too few energies.

    The guard is that of `anchored_limit`: the look-back's tail stands while the reference's, mapped onto the live
    body, finds it possible. The line between them is fitted at an exceedance that both can count at.

    Args:
        sketch: Of the look-back.
        reference: Energies of training events that the model did not see, ascending; None where there are none.
        percentile: For example 99.99.
        dispersion: Of the counts of outliers; at least 1.
    """
    a = exceedance(percentile)
    live = fit_tail(sketch.top.astype(np.float64), sketch.n)
    if live is None:
        return None
    details: dict[str, DetailValue] = {"t_plain": live.quantile(a), "dispersion": dispersion, "tail_of": "look-back"}
    if reference is None:
        return _build_tail_estimate(live, percentile, dispersion, details)
    base = fit_tail(reference[::-1].astype(np.float64), len(reference))
    if base is None:
        return None
    counted = max(a, MIN_REFERENCE_TAIL / len(reference), MIN_LOOK_BACK_TAIL / sketch.n)
    found = fit_anchor(sketch, reference, counted)
    t_anchored, t_high = (found.location + found.scale * base.quantile(each) for each in (a, a / EXCEEDANCE_SLACK))
    details |= {
        "t_anchored": t_anchored,
        "t_high": t_high,
        "eps": found.outlier_share,
        "location": found.location,
        "scale": found.scale,
        "misfit": found.misfit,
        "resolved": found.resolved,
        "reference_n": len(reference),
        "counted_at": counted,
        "lifted": sketch.quantile(1 - counted) > found.t_high,
    }
    if live.quantile(a) <= t_high and not details["lifted"]:
        return _build_tail_estimate(live, percentile, dispersion, details)
    return _build_tail_estimate(base, percentile, dispersion, details | {"tail_of": "reference"}, found)


def _build_tail_estimate(
    tail: ParetoTail,
    percentile: float,
    dispersion: float,
    details: dict[str, DetailValue],
    mapped: Anchor | None = None,
) -> ThresholdEstimate:
    """Return the limit of a tail, through the line that maps it, if any."""
    a = exceedance(percentile)
    location, scale = (0.0, 1.0) if mapped is None else (mapped.location, mapped.scale)
    lower, upper = tail.interval(a, level=INTERVAL_LEVEL, dispersion=dispersion)
    return build_estimate(
        location + scale * tail.quantile(a),
        (location + scale * lower, location + scale * upper),
        n=tail.n,
        method="pot",
        percentile=percentile,
        details=details
        | {
            "shape": tail.shape,
            "shape_capped": tail.is_shape_capped,
            "tail_scale": tail.scale,
            "tail_level": location + scale * tail.level,
            "peaks": len(tail.excesses),
        },
    )
