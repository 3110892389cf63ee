"""The threshold of a stream: which limit it is, when it may move, and what its reference says of it. Pure.

The percentile of the look-back, anchored on the reference (`monitor.thresholds.percentile`), or with method `pot`
the generalised Pareto tail where too few energies lie above the percentile (`monitor.thresholds.pot`).
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
from monitor.thresholds.pot import estimate_pot_threshold, estimate_reference_pot_threshold

Method = Literal["percentile", "pot"]


def estimate_first_threshold(
    reference: Float32, percentile: float, *, method: Method = "percentile"
) -> ThresholdEstimate:
    """Return the first limit of a model, at once from its reference energies, ascending.

    Their percentile; with method `pot` and fewer than 20 of them above it, the one of their tail.

    Raises:
        ValueError: There are no reference energies.
    """
    if method == "pot" and len(reference) * exceedance(percentile) < MIN_REFERENCE_TAIL:
        found = estimate_reference_pot_threshold(reference, percentile)
        if found is not None:
            return found
    return estimate_reference_threshold(reference, percentile)


def count_reference_above(limit: ThresholdEstimate, reference: Float32 | None) -> tuple[int, int]:
    """Return how many reference energies are above the limit, mapped back to them, and how many there are.

    Both are 0 where the limit is the look-back's own percentile: its windows must not count twice. A limit that is
    held is not that any more, so the reference counts for it, and there is a law even after a long silence.
    """
    own_percentile = limit.method == "plain" and ("held" not in limit.details or "location" not in limit.details)
    if reference is None or own_percentile:
        return 0, 0
    value = limit.value
    if "location" in limit.details:
        location, scale = limit.details["location"], limit.details["scale"]
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
) -> ThresholdEstimate:
    """Return the limit of a threshold tick.

    Anchored where the model has reference energies, else the plain percentile. It does not move (`held` in
    the details says why) while fewer than 20 reference or 50 look-back energies lie above the percentile, or
    when the energies have moved to where the histogram is too coarse to compare them with the reference. A
    first limit is then the reference's. With method `pot` the generalised Pareto tail takes over where there are so
    few of them, and moves as long as 1,000 energies of each show a tail.

    Args:
        previous: The limit in force for this model and percentile, if any.
        sketch: Of the windows of the look-back that count, all of this model.
        reference: The model's reference energies, ascending; None where the model has none.
        percentile: For example 99.5.
        dispersion: Of the counts of outliers; at least 1.
        method: How the limit is drawn.

    Raises:
        ValueError: There is nothing to compute a first limit from.
    """
    reason = _explain_shortage(sketch.n, None if reference is None else len(reference), percentile)
    limit: ThresholdEstimate | None = None
    if reason is None:
        limit = _estimate_live_threshold(sketch, reference, percentile, dispersion)
    elif method == "pot":
        limit = estimate_pot_threshold(sketch, reference, percentile, dispersion=dispersion)
    if limit is not None:
        if limit.details.get("resolved", True):
            return limit
        reason = "the energies lie so far from the reference that the bins are too coarse to compare: fit again"
    if previous is not None and previous.percentile == percentile:
        return replace(previous, details=previous.details | {"held": reason})
    if reference is None:
        limit = estimate_percentile_threshold(sketch, percentile, dispersion=dispersion)
    else:
        limit = estimate_first_threshold(reference, percentile, method=method)
    return replace(limit, details=limit.details | {"held": reason})


def is_contested(method: str, details: Mapping[str, object]) -> bool:
    """Say whether look-back and reference disagree: outliers or a heavier tail lifted the look-back's percentile."""
    return method == "anchored" or (method == "pot" and details.get("lifted") is True)


def _estimate_live_threshold(
    sketch: EnergySketch, reference: Float32 | None, percentile: float, dispersion: float
) -> ThresholdEstimate:
    if reference is None:
        return estimate_percentile_threshold(sketch, percentile, dispersion=dispersion)
    return estimate_anchored_threshold(sketch, reference, percentile, dispersion=dispersion)


def _explain_shortage(n: int, reference_n: int | None, percentile: float) -> str | None:
    a = exceedance(percentile)
    if reference_n is not None and reference_n * a < MIN_REFERENCE_TAIL:
        needed = int(np.ceil(MIN_REFERENCE_TAIL / a))
        return f"p{percentile:g} needs {needed:,} reference energies, the model has {reference_n:,}: fit on more"
    if n * a < MIN_LOOK_BACK_TAIL:
        needed = int(np.ceil(MIN_LOOK_BACK_TAIL / a))
        return f"p{percentile:g} needs {needed:,} events in the look-back, it has {n:,}"
    return None
