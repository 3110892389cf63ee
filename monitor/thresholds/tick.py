"""Calibration: the threshold of a new model and the threshold of a tick, each with its learned law. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.counts import (
    RATE_BOUND_LEVEL,
    CountModel,
    count_model_to_json,
    fit_count_model,
    highest_clean_rate,
    is_rate_suspect,
    rate_bound,
)
from monitor.statistics.part import Scale
from monitor.thresholds.body import describe_heavy_tail
from monitor.thresholds.choose import (
    Method,
    choose_threshold,
    count_reference_above,
    estimate_first_threshold,
    is_contested,
)
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.percentile import ThresholdEstimate, exceedance
from storage.control.models import Activation
from storage.control.thresholds import CalibrationRow, NewThreshold, StoredThreshold

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRule:
    """The settings of `threshold` that a tick depends on."""

    percentile: float
    method: Method = "percentile"
    look_back_us: int
    adopt_after_us: int
    size_us: int
    per_week: float


def build_first_threshold(
    reference: Float32, model_id: int, activation: Activation, percentile: float, method: Method = "percentile"
) -> NewThreshold:
    """Return a model's first threshold, at once from its reference energies: whatever the limit before it was.

    Args:
        reference: Energies of training events that the model did not see, ascending.
        model_id: The model.
        activation: From when it is valid.
        percentile: For example 99.5.
        method: How the limit is drawn.
    """
    limit = estimate_first_threshold(reference, percentile, method=method)
    warning = describe_heavy_tail(reference, exceedance(percentile))
    if warning is not None:
        limit = replace(limit, details=limit.details | {"warning": warning})
    above, m = count_reference_above(limit, reference)
    nothing = np.empty(0, np.int64)
    law = fit_count_model(above, m, nothing, nothing)
    return _build_row(
        limit,
        law,
        Scale.from_energies(reference),
        model_id,
        activation.computed_at_us,
        activation.valid_from_us,
        {"clean_rate": rate_bound(law, RATE_BOUND_LEVEL)},
    )


def compute_tick_threshold(
    previous: StoredThreshold,
    look_back: LookBack,
    clean: Sequence[int],
    reference: Float32,
    rule: ThresholdRule,
    *,
    tick_us: int,
    valid_from_us: int,
    most_events: int,
) -> tuple[NewThreshold, CountModel, float]:
    """Return the threshold of a tick, its law of counts, and the exceedance of the clean windows at it.

    Args:
        previous: The newest row of the same model.
        look_back: The windows that count, all of them and no others.
        clean: The starts of those in which nothing was found: what the law of counts is learned from.
        reference: The model's reference energies, ascending, or what a person took for normal instead of them.
        rule: The settings.
        tick_us: The tick.
        valid_from_us: The first window start that it can be valid from.
        most_events: The largest number of events of a window of the look-back.
    """
    sketch = look_back.sketch()
    limit = choose_threshold(
        _load_estimate(previous),
        sketch,
        reference,
        rule.percentile,
        dispersion=load_count_model(previous.details).dispersion,
        method=rule.method,
    )
    above, m = count_reference_above(limit, reference)
    events, outliers = look_back.count_by_window(clean, limit.value)
    law = fit_count_model(above, m, outliers, events, otherwise=load_count_model(previous.details))
    seen = int(events.sum())
    more = {
        "clean_rate": highest_clean_rate(law, np.array(clean, np.int64), outliers, events),
        "most_events": most_events,
        "disagrees_since_us": find_disagreement_start(previous.details.get("disagrees_since_us"), limit, tick_us),
    }
    row = _build_row(limit, law, look_back.scale, previous.model_id, tick_us, valid_from_us, more)
    return row, law, float(outliers.sum() / seen) if seen else 0.0


def build_calibration_row(
    tick_us: int,
    limit: NewThreshold,
    law: CountModel,
    share: float,
    rule: ThresholdRule,
    fired: tuple[int, int],
) -> CalibrationRow:
    """Return promised against realised at a tick.

    Args:
        tick_us: The tick.
        limit: Its threshold.
        law: What was learned.
        share: The exceedance of the clean windows.
        rule: The settings.
        fired: How many incidents opened over how many judged windows of the look-back.
    """
    a = exceedance(rule.percentile)
    weeks = fired[1] * rule.size_us / (7 * 86_400e6)
    suspect = is_contested(limit.method, limit.details["limit"]) or is_rate_suspect(law, a)
    return CalibrationRow(
        at_us=tick_us,
        promised_per_week=rule.per_week,
        realised_per_week=fired[0] / weeks if weeks else None,
        windows_learned=law.windows,
        dispersion=law.dispersion,
        exceedance=share,
        state="suspect" if suspect and law.windows else law.state,
    )


def find_disagreement_start(before_us: int | None, limit: ThresholdEstimate, tick_us: int) -> int | None:
    """Return the first tick of the unbroken row of those at which the percentile and the reference disagreed.

    A limit that is held says nothing new.
    """
    if "held" in limit.details:
        return before_us
    if not is_contested(limit.method, limit.details):
        return None
    return tick_us if before_us is None else before_us


def load_clean_rate(details: Mapping[str, Any]) -> float:
    """Return the highest clean rate that is stored with a threshold; rows of earlier versions give their law's."""
    stored = details.get("clean_rate")
    return rate_bound(load_count_model(details), RATE_BOUND_LEVEL) if stored is None else float(stored)


def load_count_model(details: Mapping[str, Any]) -> CountModel:
    """Return the law of counts that is stored with a threshold."""
    return CountModel(**details["law"])


def load_scale(details: Mapping[str, Any]) -> Scale:
    """Return the scale of the energies that is stored with a threshold."""
    return Scale(**details["scale"])


def _load_estimate(row: StoredThreshold) -> ThresholdEstimate:
    return ThresholdEstimate(
        value=row.threshold,
        lower=row.lower,
        upper=row.upper,
        n=row.n,
        method=row.method,
        percentile=row.percentile,
        details=dict(row.details["limit"]),
    )


def _build_row(
    limit: ThresholdEstimate,
    law: CountModel,
    scale: Scale,
    model_id: int,
    computed_at_us: int,
    valid_from_us: int,
    more: Mapping[str, Any],
) -> NewThreshold:
    return NewThreshold(
        model_id=model_id,
        computed_at_us=computed_at_us,
        valid_from_us=valid_from_us,
        percentile=limit.percentile,
        threshold=limit.value,
        lower=limit.lower,
        upper=limit.upper,
        n=limit.n,
        method=limit.method,
        details={
            "limit": limit.details,
            "law": count_model_to_json(law),
            "scale": {"median": scale.median, "iqr": scale.iqr},
            **more,
        },
    )
