"""Calibration: the threshold of a new model and the threshold of a tick, each with its learned law. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.findings.judged import law_details
from monitor.parts import Scale
from monitor.percentiles.body import warn_of_tail
from monitor.percentiles.limits import Limit, exceedance
from monitor.percentiles.look_back import LookBack
from monitor.slow_rises import RATE_LEVEL, highest_clean_rate
from monitor.spikes import CountLaw, learn_law, rate_bound, rate_is_suspect
from monitor.thresholds import Method, decide_limit, first_limit, is_contested, reference_counts
from storage.calibration import CalibrationRow, NewThreshold, StoredThreshold
from storage.models import Activation

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


def first_threshold(
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
    limit = first_limit(reference, percentile, method=method)
    warning = warn_of_tail(reference, exceedance(percentile))
    if warning is not None:
        limit = replace(limit, details=limit.details | {"warning": warning})
    above, m = reference_counts(limit, reference)
    nothing = np.empty(0, np.int64)
    law = learn_law(above, m, nothing, nothing)
    return _row(
        limit,
        law,
        Scale.of(reference),
        model_id,
        activation.computed_at_us,
        activation.valid_from_us,
        {"clean_rate": rate_bound(law, RATE_LEVEL)},
    )


def tick_threshold(
    previous: StoredThreshold,
    look_back: LookBack,
    clean: Sequence[int],
    reference: Float32,
    rule: ThresholdRule,
    *,
    tick_us: int,
    valid_from_us: int,
    most_events: int,
) -> tuple[NewThreshold, CountLaw, float]:
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
    limit = decide_limit(
        _limit_of(previous),
        sketch,
        reference,
        rule.percentile,
        dispersion=law_of(previous.details).dispersion,
        method=rule.method,
    )
    above, m = reference_counts(limit, reference)
    events, outliers = look_back.counts(clean, limit.value)
    law = learn_law(above, m, outliers, events, otherwise=law_of(previous.details))
    seen = int(events.sum())
    more = {
        "clean_rate": highest_clean_rate(law, np.array(clean, np.int64), outliers, events),
        "most_events": most_events,
        "disagrees_since_us": disagrees_since(previous.details.get("disagrees_since_us"), limit, tick_us),
    }
    row = _row(limit, law, look_back.scale, previous.model_id, tick_us, valid_from_us, more)
    return row, law, float(outliers.sum() / seen) if seen else 0.0


def calibration_row(
    tick_us: int,
    limit: NewThreshold,
    law: CountLaw,
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
    suspect = is_contested(limit.method, limit.details["limit"]) or rate_is_suspect(law, a)
    return CalibrationRow(
        at_us=tick_us,
        promised_per_week=rule.per_week,
        realised_per_week=fired[0] / weeks if weeks else None,
        windows_learned=law.windows,
        dispersion=law.dispersion,
        exceedance=share,
        state="suspect" if suspect and law.windows else law.state,
    )


def disagrees_since(before_us: int | None, limit: Limit, tick_us: int) -> int | None:
    """Return the first tick of the unbroken row of those at which the percentile and the reference disagreed.

    A limit that is held says nothing new.
    """
    if "held" in limit.details:
        return before_us
    if not is_contested(limit.method, limit.details):
        return None
    return tick_us if before_us is None else before_us


def clean_rate_of(details: Mapping[str, Any]) -> float:
    """Return the highest clean rate that is stored with a threshold; rows of earlier versions give their law's."""
    stored = details.get("clean_rate")
    return rate_bound(law_of(details), RATE_LEVEL) if stored is None else float(stored)


def law_of(details: Mapping[str, Any]) -> CountLaw:
    """Return the law of counts that is stored with a threshold."""
    return CountLaw(**details["law"])


def scale_of(details: Mapping[str, Any]) -> Scale:
    """Return the scale of the energies that is stored with a threshold."""
    return Scale(**details["scale"])


def _limit_of(row: StoredThreshold) -> Limit:
    return Limit(
        value=row.threshold,
        lower=row.lower,
        upper=row.upper,
        n=row.n,
        method=row.method,
        percentile=row.percentile,
        details=dict(row.details["limit"]),
    )


def _row(
    limit: Limit,
    law: CountLaw,
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
            "law": law_details(law),
            "scale": {"median": scale.median, "iqr": scale.iqr},
            **more,
        },
    )
