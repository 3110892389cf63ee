"""Thresholds beyond the observed energies: quantiles of the generalised Pareto tail, guarded by the reference. Pure.

They are used where a percentile is out of reach: with fewer energies above it than an order statistic needs, down to
none. With enough energies above it, the percentile is as accurate and needs fewer assumptions.
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
    """Return the threshold from the tail of the reference energies, ascending. None if they are too few for a tail."""
    tail = fit_tail(reference[::-1].astype(np.float64), len(reference))
    if tail is None:
        return None
    details: dict[str, DetailValue] = {"reference_n": len(reference), "dispersion": dispersion, "tail_of": "reference"}
    return _build_tail_estimate(tail, percentile, dispersion, details)


def estimate_pot_threshold(
    sketch: EnergySketch, reference: Float32 | None, percentile: float, *, dispersion: float = 1.0
) -> ThresholdEstimate | None:
    """Return the threshold from the generalised Pareto tail of the look-back. None if a tail has too few energies.

    The guard is that of `estimate_anchored_threshold`: the tail of the look-back is used while the tail of the
    reference, mapped onto the body of the look-back, makes it plausible. The line between the two is fitted at an
    exceedance for which both have enough energies.

    Args:
        sketch: Sketch of the look-back.
        reference: Energies of held-out training events, ascending. None if there are none.
        percentile: For example 99.99.
        dispersion: Dispersion of the outlier counts, at least 1.
    """
    a = exceedance(percentile)
    look_back_tail = fit_tail(sketch.top.astype(np.float64), sketch.n)
    if look_back_tail is None:
        return None
    details: dict[str, DetailValue] = {
        "t_plain": look_back_tail.quantile(a),
        "dispersion": dispersion,
        "tail_of": "look-back",
    }
    if reference is None:
        return _build_tail_estimate(look_back_tail, percentile, dispersion, details)
    reference_tail = fit_tail(reference[::-1].astype(np.float64), len(reference))
    if reference_tail is None:
        return None
    fit_exceedance = max(a, MIN_REFERENCE_TAIL / len(reference), MIN_LOOK_BACK_TAIL / sketch.n)
    fit = fit_anchor(sketch, reference, fit_exceedance)
    t_anchored, t_high = (
        fit.location + fit.scale * reference_tail.quantile(each) for each in (a, a / EXCEEDANCE_SLACK)
    )
    details |= {
        "t_anchored": t_anchored,
        "t_high": t_high,
        "eps": fit.outlier_share,
        "location": fit.location,
        "scale": fit.scale,
        "misfit": fit.misfit,
        "resolved": fit.resolved,
        "reference_n": len(reference),
        "counted_at": fit_exceedance,
        "lifted": sketch.quantile(1 - fit_exceedance) > fit.t_high,
    }
    if look_back_tail.quantile(a) <= t_high and not details["lifted"]:
        return _build_tail_estimate(look_back_tail, percentile, dispersion, details)
    return _build_tail_estimate(reference_tail, percentile, dispersion, details | {"tail_of": "reference"}, fit)


def _build_tail_estimate(
    tail: ParetoTail,
    percentile: float,
    dispersion: float,
    details: dict[str, DetailValue],
    mapping: Anchor | None = None,
) -> ThresholdEstimate:
    """Return the estimate of a tail, mapped by the line of the anchor if there is one."""
    a = exceedance(percentile)
    location, scale = (0.0, 1.0) if mapping is None else (mapping.location, mapping.scale)
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
