"""The choice of the threshold of a stream: its method, the conditions of an update, and the counts of its reference.

Pure functions.

The threshold is the percentile of the look-back, anchored on the reference (`monitor.thresholds.percentile`). With few
live exceedances it is the percentile of both together (`monitor.thresholds.pooled`). With method `pot` it is a quantile
of the generalised Pareto tail where too few energies lie above the percentile (`monitor.thresholds.pot`).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from monitor.statistics.part import Float32
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.percentile import (
    MIN_LOOK_BACK_TAIL,
    MIN_REFERENCE_TAIL,
    ThresholdEstimate,
    estimate_anchored_threshold,
    estimate_percentile_threshold,
    estimate_reference_threshold,
    exceedance,
)
from monitor.thresholds.pooled import MIN_LIVE_TAIL, count_pool_reference, estimate_pooled_threshold
from monitor.thresholds.pot import estimate_pot_threshold, estimate_reference_pot_threshold

Method = Literal["percentile", "pot"]


def estimate_first_threshold(
    reference: Float32, percentile: float, *, method: Method = "percentile"
) -> ThresholdEstimate:
    """Return the first threshold of a model from its reference energies, ascending.

    It is their percentile. With method `pot` and fewer than 20 energies above it, it is a quantile of their tail.

    Raises:
        ValueError: There are no reference energies.
    """
    if method == "pot" and len(reference) * exceedance(percentile) < MIN_REFERENCE_TAIL:
        tail_estimate = estimate_reference_pot_threshold(reference, percentile)
        if tail_estimate is not None:
            return tail_estimate
    return estimate_reference_threshold(reference, percentile)


def count_reference_above(estimate: ThresholdEstimate, reference: Float32 | None) -> tuple[float, int]:
    """Return the number of reference energies above the threshold, mapped back to them, and their total number.

    Those of a pooled threshold are weighted as in the threshold. Both are 0 where the threshold is the percentile of
    the look-back itself, because its windows must not count twice. A threshold that was not updated is not that
    percentile. The reference then counts, so that a count model exists also after a long silence.
    """
    is_own_percentile = estimate.method == "plain" and (
        "held" not in estimate.details or "location" not in estimate.details
    )
    if reference is None or is_own_percentile:
        return 0, 0
    if estimate.method == "pooled":
        return count_pool_reference(estimate, reference)
    value = estimate.value
    if "location" in estimate.details:
        location, scale = estimate.details["location"], estimate.details["scale"]
        if not isinstance(location, float) or not isinstance(scale, float) or scale <= 0:
            return 0, 0
        value = (value - location) / scale
    above = len(reference) - int(np.searchsorted(reference.astype(np.float64), value, side="right"))
    return above, len(reference)


def choose_threshold(
    previous: ThresholdEstimate | None,
    sketch: EnergySketch,
    reference: Float32 | None,
    percentile: float,
    *,
    dispersion: float = 1.0,
    method: Method = "percentile",
    live_tail: Float32 | None = None,
) -> ThresholdEstimate:
    """Return the threshold estimate of a threshold tick.

    It is anchored if the model has reference energies, and otherwise the plain percentile. With fewer than 20 reference
    or 50 look-back energies above the percentile it is pooled; with method `pot`, the generalised Pareto tail is used
    if look-back and reference have at least 1,000 energies each. In these cases it is not updated, and the detail
    `held` gives the reason:

    * Less than one look-back energy lies above the percentile, or, without a reference, fewer than 50.
    * The energies have moved so far that the histogram is too coarse to compare them with the reference.

    If there is no previous threshold, it is then computed from the reference.

    Args:
        previous: The threshold in force for this model and percentile, if any.
        sketch: Sketch of the selected windows of the look-back, all of this model.
        reference: Reference energies of the model, ascending. None for a model without them.
        percentile: For example 99.5.
        dispersion: Dispersion of the outlier counts, at least 1.
        method: Method of the estimate.
        live_tail: The largest live energies that count in a pooled threshold (`monitor.thresholds.pooled`).

    Raises:
        ValueError: There are no energies to compute a first threshold from.
    """
    reason = _explain_shortage(sketch.n, None if reference is None else len(reference), percentile)
    estimate: ThresholdEstimate | None
    if reason is None:
        estimate = _estimate_look_back_threshold(sketch, reference, percentile, dispersion)
    else:
        estimate = _estimate_threshold_of_few(sketch, reference, percentile, dispersion, method, live_tail)
    if estimate is not None:
        if estimate.details.get("resolved", True):
            return estimate
        reason = "the energies lie so far from the reference that the bins are too coarse to compare: fit again"
    if previous is not None and previous.percentile == percentile:
        return replace(previous, details=previous.details | {"held": reason})
    if reference is None:
        estimate = estimate_percentile_threshold(sketch, percentile, dispersion=dispersion)
    else:
        estimate = estimate_first_threshold(reference, percentile, method=method)
    return replace(estimate, details=estimate.details | {"held": reason})


def disagrees_with_reference(method: str, details: Mapping[str, object]) -> bool:
    """Return True if look-back and reference disagree.

    Outliers or a heavier tail have then raised the percentile of the look-back.
    """
    return method == "anchored" or (method == "pot" and details.get("lifted") is True)


def _estimate_look_back_threshold(
    sketch: EnergySketch, reference: Float32 | None, percentile: float, dispersion: float
) -> ThresholdEstimate:
    if reference is None:
        return estimate_percentile_threshold(sketch, percentile, dispersion=dispersion)
    return estimate_anchored_threshold(sketch, reference, percentile, dispersion=dispersion)


def _estimate_threshold_of_few(
    sketch: EnergySketch,
    reference: Float32 | None,
    percentile: float,
    dispersion: float,
    method: Method,
    live_tail: Float32 | None,
) -> ThresholdEstimate | None:
    """Return the threshold where the percentile cannot be anchored. None if there are too few energies for any.

    With enough live energies and a small reference it is the percentile of the look-back, without a guard.
    """
    if method == "pot":
        tail_estimate = estimate_pot_threshold(sketch, reference, percentile, dispersion=dispersion)
        if tail_estimate is not None:
            return tail_estimate
    if reference is None:
        return None
    if sketch.n * exceedance(percentile) < MIN_LOOK_BACK_TAIL:
        return estimate_pooled_threshold(sketch, reference, percentile, dispersion=dispersion, live_tail=live_tail)
    return estimate_percentile_threshold(sketch, percentile, dispersion=dispersion)


def _explain_shortage(n: int, reference_n: int | None, percentile: float) -> str | None:
    """Return why the percentile cannot be anchored, as the reason why the threshold is held if it cannot be pooled."""
    a = exceedance(percentile)
    if n * a < MIN_LOOK_BACK_TAIL:
        needed = int(np.ceil((MIN_LOOK_BACK_TAIL if reference_n is None else MIN_LIVE_TAIL) / a))
        return f"p{percentile:g} needs {needed:,} events in the look-back, it has {n:,}"
    if reference_n is not None and reference_n * a < MIN_REFERENCE_TAIL:
        needed = int(np.ceil(MIN_REFERENCE_TAIL / a))
        return f"p{percentile:g} needs {needed:,} reference energies, the model has {reference_n:,}: fit on more"
    return None
