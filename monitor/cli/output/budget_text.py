"""Texts that express the false-alarm budget in counts of outliers."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from math import ceil, isfinite
from typing import Any

from config.budget import false_alarm_probability
from config.streams import StreamSettings
from config.time_format import WEEK_US, format_rounded_duration
from config.units import format_duration, to_us
from monitor.incidents.drift_test import earliest_verdict_us
from monitor.incidents.magnitude import describe_least_energy, find_least_energy
from monitor.incidents.slow_rise_test import (
    BUDGET_SHARE,
    MIN_WINDOWS,
    expected_windows_to_detection,
    windows_between_false_alarms,
)
from monitor.incidents.spike import advise_window_size, describe_false_alarms, judge_count
from monitor.statistics.counts import CountModel
from monitor.thresholds.percentile import MIN_REFERENCE_TAIL, exceedance
from monitor.thresholds.tail import min_energies
from monitor.thresholds.tail_law import TailLaw

_HELD_OUT_DIVISOR = 5
EXAMPLE_EVENT_COUNTS = (100, 1_000, 10_000)


def describe_spike_budget(count_model: CountModel, n: int, settings: StreamSettings) -> str:
    """Describe the spike threshold for a window of n events, its false-alarm rate, and a higher configured minimum."""
    window_us = to_us(settings.window.size)
    alpha = false_alarm_probability(settings.alerts.false_alarms.per_week, window_us)
    text = describe_false_alarms(count_model, n, alpha=alpha, window_us=window_us)
    verdict = judge_count(
        count_model, n, 0, alpha=alpha, min_outliers=settings.alerts.min_outliers, min_ratio=settings.alerts.min_ratio
    )
    if verdict.fires_at > verdict.count_threshold + 1:
        text += f"; alerts.min_outliers or alerts.min_ratio raises that to {verdict.fires_at:,} or more"
    return text


def describe_magnitude_budget(
    tail: TailLaw | None, count_model: CountModel, n: int, threshold: float, settings: StreamSettings
) -> str:
    """Describe the energy from which one event opens an incident, for windows of n events."""
    if tail is None:
        return describe_least_energy(None)
    alerts = settings.alerts
    alpha = false_alarm_probability(alerts.false_alarms.per_week, to_us(settings.window.size))
    count = judge_count(count_model, n, 0, alpha=alpha, min_outliers=alerts.min_outliers, min_ratio=alerts.min_ratio)
    needed = max(alpha - count.attainable, 0.0) / max(n, 1)
    return describe_least_energy(find_least_energy(tail, needed, threshold))


def describe_budget(
    count_model: CountModel, counts: Sequence[int], settings: StreamSettings, clean_rate: float
) -> Iterator[str]:
    """Yield lines on the split of `alerts.false_alarms` over the tests, for windows of the given event counts."""
    yield f"false-alarm budget: {settings.alerts.false_alarms}, all kinds together"
    yield "  spikes, half of it:"
    yield from (f"    {describe_spike_budget(count_model, n, settings)}" for n in counts)
    yield f"  slow rises, a quarter: {describe_slow_rise_budget(count_model, counts[-1], settings, clean_rate)}"
    yield f"  drift, a quarter: {describe_drift_budget(settings)}"


def describe_slow_rise_budget(count_model: CountModel, n: int, settings: StreamSettings, clean_rate: float) -> str:
    """Describe the false-alarm rate of slow rises and the time to detect a doubled outlier rate."""
    window_us = to_us(settings.window.size)
    windows = windows_between_false_alarms(settings.alerts.false_alarms.per_week, window_us, share=BUDGET_SHARE)
    text = f"1 false alarm in {format_rounded_duration(windows * window_us)} or more"
    if count_model.windows < MIN_WINDOWS:
        return f"{text}; not tested before {MIN_WINDOWS} learned windows ({count_model.windows:,} so far)"
    windows_to_detection = expected_windows_to_detection(
        count_model, n, clean_rate=clean_rate, threshold_windows=windows
    )
    if not isfinite(windows_to_detection):
        return f"{text}; a doubled rate is within the daily variation and is not detected"
    return (
        f"{text}; a doubled rate is detected after about {max(ceil(windows_to_detection), 1):,} windows of {n:,} events"
    )


def describe_drift_budget(settings: StreamSettings) -> str:
    """Describe the false-alarm rate of drift, its horizons and the waiting time before the first verdict."""
    drift, per_week = settings.alerts.drift, settings.alerts.false_alarms.per_week
    horizons = [horizon for horizon in drift.horizons if horizon >= settings.window.size]
    if not horizons:
        return f"not tested: every horizon is shorter than a window of {format_duration(settings.window.size)}"
    names = ", ".join(format_duration(horizon) for horizon in horizons)
    first_verdicts = [
        format_duration(timedelta(microseconds=earliest_verdict_us(to_us(horizon)))) for horizon in horizons
    ]
    interval = format_rounded_duration(WEEK_US / (per_week * BUDGET_SHARE))
    text = f"1 false alarm in {interval} or more, over {names} together"
    return f"{text}; no verdict before {', '.join(first_verdicts)} after the activation of a model"


def suggest_window_size(count_model: CountModel, n: int, settings: StreamSettings) -> str | None:
    """Suggest a longer window where fewer than one outlier per window is expected; None otherwise."""
    return advise_window_size(count_model, n, window_us=to_us(settings.window.size))


def describe_threshold_notes(details: Mapping[str, Any]) -> list[str]:
    """Return notes on a threshold: the reason if it is not updated, and a warning about training outliers."""
    text = []
    if details.get("held"):
        text.append(f"the threshold is not updated: {details['held']}")
    if details.get("warning"):
        text.append(f"warning: {details['warning']}")
    return text


def nominal_count_model(settings: StreamSettings) -> CountModel:
    """Return the count model before any window was judged: the nominal rate of the percentile."""
    return CountModel(
        rate=exceedance(settings.threshold.percentile),
        calibration_n=_reference_size(settings),
        dispersion=1.0,
        windows=0,
        state="provisional",
    )


def small_reference_warning(settings: StreamSettings) -> str | None:
    """Return a warning when the warm-up is too short for the percentile."""
    n, share = _reference_size(settings), exceedance(settings.threshold.percentile)
    if n * share >= MIN_REFERENCE_TAIL or (settings.threshold.method == "pot" and n >= min_energies()):
        return None
    needed = round(MIN_REFERENCE_TAIL / share * settings.model.warm_up / n)
    return (
        f"{n:,} reference energies have {n * share:.3g} above the {settings.threshold.percentile:g} percentile, "
        "so that the first threshold is rough until live events have moved it: for a better one set model.warm_up to "
        f"{needed:,} or more, a lower percentile, or threshold.method to pot"
    )


def _reference_size(settings: StreamSettings) -> int:
    """Return the number of held-out reference events: all with cross-fitting, otherwise the last fifth."""
    warm_up = settings.model.warm_up
    return warm_up if settings.model.kind == "gaussian_mixture" else max(1, warm_up // _HELD_OUT_DIVISOR)
