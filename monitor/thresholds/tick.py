"""The threshold of a new model and the threshold of a tick, each with its count model. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.budget import false_alarm_probability
from config.stream_rules import StreamRules
from config.time_format import WEEK_US
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
from monitor.statistics.season import SeasonState
from monitor.thresholds.body import describe_heavy_tail
from monitor.thresholds.carried import add_carried, carried_to_json, load_carried
from monitor.thresholds.choose import (
    Method,
    choose_threshold,
    count_reference_above,
    disagrees_with_reference,
    estimate_first_threshold,
)
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.percentile import MIN_LOOK_BACK_TAIL, ThresholdEstimate, exceedance
from monitor.thresholds.tail_law import TailLaw, TailSample, fit_tail_law
from monitor.thresholds.tail_sample import sample_look_back, sample_reference
from storage.control.models import Activation
from storage.control.thresholds import CalibrationRow, ThresholdRow

Float32 = NDArray[np.float32]
ThresholdResult = tuple[ThresholdRow, CountModel, float]
"""The threshold of a tick, its count model, and the exceedance of the clean windows."""


def build_first_threshold(
    reference: Float32,
    model_id: int,
    activation: Activation,
    percentile: float,
    method: Method = "percentile",
    season: SeasonState | None = None,
) -> ThresholdRow:
    """Return the first threshold of a model, computed from its reference energies alone.

    Args:
        reference: Energies of held-out training events, ascending.
        model_id: The model.
        activation: Time of the computation and start of the validity.
        percentile: For example 99.5.
        method: Method of the estimate.
        season: The season of the threshold before, None without one. It holds for all models of the stream.
    """
    estimate = estimate_first_threshold(reference, percentile, method=method)
    warning = describe_heavy_tail(reference, exceedance(percentile))
    if warning is not None:
        estimate = replace(estimate, details=estimate.details | {"warning": warning})
    above, reference_n = count_reference_above(estimate, reference)
    no_windows = np.empty(0, np.int64)
    count_model = fit_count_model(above, reference_n, no_windows, no_windows)
    return _build_row(
        estimate,
        count_model,
        Scale.from_energies(reference),
        model_id,
        activation.computed_at_us,
        activation.valid_from_us,
        {
            "clean_rate": rate_bound(count_model, RATE_BOUND_LEVEL),
            **_season_details(season),
            **_tail_details(sample_reference(reference), count_model),
        },
    )


def compute_tick_threshold(
    previous: ThresholdRow,
    look_back: LookBack,
    clean: Sequence[int],
    reference: Float32,
    rules: StreamRules,
    *,
    tick_us: int,
    valid_from_us: int,
    most_events: int,
    season: SeasonState | None = None,
) -> ThresholdResult:
    """Return the threshold of a tick, its count model, and the exceedance of the clean windows at the threshold.

    Args:
        previous: The newest row of the same model.
        look_back: Exactly the windows that the threshold uses.
        clean: Start times of the windows in which nothing fired. The count model is learned from them.
        reference: Reference energies of the model, ascending, or the energies that a user accepted in their place.
        rules: The rules of the stream.
        tick_us: Event time of the tick.
        valid_from_us: Start of the first window that the threshold can be valid for.
        most_events: Largest number of events of a window of the look-back.
        season: The season at the tick, stored with the threshold. None where `threshold.season` is none.
    """
    sketch = look_back.sketch()
    dispersion, a = load_count_model(previous.details).dispersion, exceedance(rules.percentile)
    estimate = choose_threshold(
        _load_estimate(previous),
        sketch,
        reference,
        rules.percentile,
        dispersion=dispersion,
        method=rules.method,
        live_tail=look_back.bounded_tail(a, dispersion) if sketch.n * a < MIN_LOOK_BACK_TAIL else None,
    )
    above, reference_n = count_reference_above(estimate, reference)
    events, outliers = look_back.count_by_window(clean, estimate.value)
    before, carried = load_count_model(previous.details), load_carried(previous.details)
    starts_us = np.array(clean, np.int64)
    factors = None
    if season is not None and season.season is not None:
        factors = season.season.factors(starts_us + rules.size_us // 2)
    count_model = fit_count_model(
        above,
        reference_n,
        outliers,
        events,
        factors=factors,
        found=np.fromiter((start in look_back.fired for start in clean), np.bool_, len(clean)),
        alpha=false_alarm_probability(rules.per_week, rules.size_us),
        otherwise=before,
    )
    if count_model is not before:
        count_model = add_carried(count_model, carried)
    n_events = int(events.sum())
    extra_details: dict[str, Any] = {
        "clean_rate": highest_clean_rate(count_model, starts_us, outliers, events, factors=factors),
        "most_events": most_events,
        "usual_events": int(np.median(events)) if len(events) else None,
        **_tail_details(
            sample_look_back(
                sketch,
                look_back.excluded.values(),
                reference,
                threshold=estimate.value,
                dispersion=count_model.dispersion,
            ),
            count_model,
        ),
        "disagrees_since_us": find_disagreement_start(previous.details.get("disagrees_since_us"), estimate, tick_us),
        "disagreements": count_disagreements(previous.details.get("disagreements", 0), estimate),
        **_season_details(season),
    }
    if carried is not None:
        extra_details["carried"] = carried_to_json(carried)
    row = _build_row(estimate, count_model, look_back.scale, previous.model_id, tick_us, valid_from_us, extra_details)
    return row, count_model, float(outliers.sum() / n_events) if n_events else 0.0


def build_calibration_row(
    tick_us: int,
    threshold: ThresholdRow,
    count_model: CountModel,
    clean_exceedance: float,
    rules: StreamRules,
    firings: tuple[int, int],
) -> CalibrationRow:
    """Return the comparison of budgeted and realised false alarms at a tick.

    Args:
        tick_us: Event time of the tick.
        threshold: The threshold of the tick.
        count_model: The count model learned at the tick.
        clean_exceedance: Exceedance of the clean windows.
        rules: The rules of the stream.
        firings: Number of opened incidents and number of judged windows in the look-back.
    """
    a = exceedance(rules.percentile)
    weeks = firings[1] * rules.size_us / WEEK_US
    suspect = disagrees_with_reference(threshold.method, threshold.details["limit"]) or is_rate_suspect(count_model, a)
    return CalibrationRow(
        at_us=tick_us,
        promised_per_week=rules.per_week,
        realised_per_week=firings[0] / weeks if weeks else None,
        windows_learned=count_model.windows,
        dispersion=count_model.dispersion,
        exceedance=clean_exceedance,
        state="suspect" if suspect and count_model.windows else count_model.state,
    )


def find_disagreement_start(before_us: int | None, estimate: ThresholdEstimate, tick_us: int) -> int | None:
    """Return the first tick of the current unbroken run of ticks at which percentile and reference disagree.

    A threshold that was not updated has no new information.
    """
    if "held" in estimate.details:
        return before_us
    if not disagrees_with_reference(estimate.method, estimate.details):
        return None
    return tick_us if before_us is None else before_us


def count_disagreements(before: int, estimate: ThresholdEstimate) -> int:
    """Return the number of ticks in the current unbroken run of ticks at which percentile and reference disagree."""
    if "held" in estimate.details:
        return before
    return before + 1 if disagrees_with_reference(estimate.method, estimate.details) else 0


def load_clean_rate(details: Mapping[str, Any]) -> float:
    """Return the highest clean rate that is stored with a threshold, or the bound of its count model in older rows."""
    stored = details.get("clean_rate")
    return rate_bound(load_count_model(details), RATE_BOUND_LEVEL) if stored is None else float(stored)


def load_count_model(details: Mapping[str, Any]) -> CountModel:
    """Return the count model that is stored with a threshold."""
    return CountModel(**details["law"])


def load_tail_law(details: Mapping[str, Any]) -> TailLaw | None:
    """Return the tail law that is stored with a threshold. None in older rows and with too few energies for one."""
    stored = details.get("tail")
    return None if stored is None else TailLaw.from_json(stored)


def _tail_details(sample: TailSample, count_model: CountModel) -> dict[str, Any]:
    law = fit_tail_law(sample, dispersion=count_model.dispersion)
    return {"tail": None if law is None else law.to_json()}


def load_scale(details: Mapping[str, Any]) -> Scale:
    """Return the scale of the energies that is stored with a threshold."""
    return Scale(**details["scale"])


def _season_details(season: SeasonState | None) -> dict[str, Any]:
    return {} if season is None else {"season": season.to_json()}


def _load_estimate(row: ThresholdRow) -> ThresholdEstimate:
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
    estimate: ThresholdEstimate,
    count_model: CountModel,
    scale: Scale,
    model_id: int,
    computed_at_us: int,
    valid_from_us: int,
    extra_details: Mapping[str, Any],
) -> ThresholdRow:
    return ThresholdRow(
        model_id=model_id,
        computed_at_us=computed_at_us,
        valid_from_us=valid_from_us,
        percentile=estimate.percentile,
        threshold=estimate.value,
        lower=estimate.lower,
        upper=estimate.upper,
        n=estimate.n,
        method=estimate.method,
        details={
            "limit": estimate.details,
            "law": count_model_to_json(count_model),
            "scale": {"median": scale.median, "iqr": scale.iqr},
            **extra_details,
        },
    )
