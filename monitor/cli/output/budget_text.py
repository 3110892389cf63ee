"""The command line: what the promise on false alarms means in counts of outliers."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from math import ceil, isfinite
from typing import Any

from config.streams import StreamSettings
from config.time_format import WEEK_US, format_rounded_duration
from config.units import format_duration, to_us
from monitor.incidents.drift_test import earliest_verdict_us
from monitor.incidents.slow_rise_test import (
    BUDGET_SHARE,
    MIN_WINDOWS,
    expected_windows_to_detection,
    windows_between_false_alarms,
)
from monitor.incidents.spike import advise_window_size, describe_false_alarms, false_alarm_probability, judge_count
from monitor.statistics.counts import CountModel
from monitor.thresholds.percentile import MIN_REFERENCE_TAIL, exceedance
from monitor.thresholds.tail import min_energies

_HELD_OUT_DIVISOR = 5
_EXAMPLE_EVENT_COUNTS = (100, 1_000, 10_000)


def describe_spike_budget(law: CountModel, n: int, settings: StreamSettings) -> str:
    """Say how many outliers among n events of a window are a spike, how often that errs, and what floor is set."""
    window_us = to_us(settings.window.size)
    alpha = false_alarm_probability(settings.alerts.false_alarms.per_week, window_us)
    said = describe_false_alarms(law, n, alpha=alpha, window_us=window_us)
    verdict = judge_count(
        law, n, 0, alpha=alpha, min_outliers=settings.alerts.min_outliers, min_ratio=settings.alerts.min_ratio
    )
    if verdict.fires_at > verdict.count_threshold + 1:
        said += f"; your floor raises that to {verdict.fires_at:,} or more"
    return said


def describe_budget(
    law: CountModel, counts: Sequence[int], settings: StreamSettings, clean_rate: float
) -> Iterator[str]:
    """Say how `false_alarms` is split over the detectors, and what each share means for windows of so many events."""
    yield f"promise: {settings.alerts.false_alarms} false alarms, of all kinds together"
    yield "  spikes, half of it:"
    yield from (f"    {describe_spike_budget(law, n, settings)}" for n in counts)
    yield f"  slow rises, a quarter: {describe_slow_rise_budget(law, counts[-1], settings, clean_rate)}"
    yield f"  drift, a quarter: {describe_drift_budget(settings)}"


def describe_slow_rise_budget(law: CountModel, n: int, settings: StreamSettings, clean_rate: float) -> str:
    """Say how often slow rises err, and how soon a doubled rate shows."""
    window_us = to_us(settings.window.size)
    windows = windows_between_false_alarms(settings.alerts.false_alarms.per_week, window_us, share=BUDGET_SHARE)
    said = f"1 false alarm in {format_rounded_duration(windows * window_us)} or more"
    if law.windows < MIN_WINDOWS:
        return f"{said}; not looked for before {MIN_WINDOWS} windows are learned ({law.windows:,} are)"
    found = expected_windows_to_detection(law, n, clean_rate=clean_rate, threshold_windows=windows)
    if not isfinite(found):
        return f"{said}; a doubled rate is within the day's course, and is not found"
    return f"{said}; a doubled rate is found after about {max(ceil(found), 1):,} windows of {n:,} events"


def describe_drift_budget(settings: StreamSettings) -> str:
    """Say how often drift errs, over which horizons."""
    drift, per_week = settings.alerts.drift, settings.alerts.false_alarms.per_week
    watched = [horizon for horizon in drift.horizons if horizon >= settings.window.size]
    if not watched:
        return f"not looked for: no horizon holds a window of {format_duration(settings.window.size)}"
    named = ", ".join(format_duration(horizon) for horizon in watched)
    waits = [format_duration(timedelta(microseconds=earliest_verdict_us(to_us(horizon)))) for horizon in watched]
    said = f"1 false alarm in {format_rounded_duration(WEEK_US / (per_week * BUDGET_SHARE))} or more, over {named} together"
    return f"{said}; no calibrated verdict before {', '.join(waits)} of a model"


def suggest_window_size(law: CountModel, n: int, settings: StreamSettings) -> str | None:
    """Say which window size would carry the promise, where fewer than one outlier a window is expected."""
    return advise_window_size(law, n, window_us=to_us(settings.window.size))


def describe_threshold_notes(details: Mapping[str, Any]) -> list[str]:
    """Say in words what a person should know of a limit: that it is held, that its training set was no clean one."""
    said = []
    if details.get("held"):
        said.append(f"the limit does not move: {details['held']}")
    if details.get("warning"):
        said.append(f"warning: {details['warning']}")
    return said


def nominal_count_model(settings: StreamSettings) -> CountModel:
    """Return the law of counts before anything was fitted: the percentile's own rate, known from the warm-up."""
    return CountModel(
        rate=exceedance(settings.threshold.percentile),
        calibration_n=_reference_size(settings),
        dispersion=1.0,
        windows=0,
        state="provisional",
    )


def nominal_event_counts(settings: StreamSettings) -> tuple[int, ...]:
    """Return how many events a window may have: the synthetic stream says it, for others some round numbers."""
    source = settings.source
    if source.type == "synthetic":
        return (max(1, round(source.rate * settings.window.size.total_seconds())),)
    return _EXAMPLE_EVENT_COUNTS


def small_reference_warning(settings: StreamSettings) -> str | None:
    """Say when the warm-up cannot carry the percentile."""
    n, share = _reference_size(settings), exceedance(settings.threshold.percentile)
    if n * share >= MIN_REFERENCE_TAIL or (settings.threshold.method == "pot" and n >= min_energies()):
        return None
    needed = round(MIN_REFERENCE_TAIL / share * settings.model.warm_up / n)
    return (
        f"{n:,} reference energies have {n * share:.3g} above the {settings.threshold.percentile:g} percentile, "
        f"too few to hold the limit: set model.warm_up to {needed:,} or more, a lower percentile, "
        "or threshold.method to pot"
    )


def _reference_size(settings: StreamSettings) -> int:
    """Return how many training events a model does not see: all by cross-fitting, or the last fifth."""
    warm_up = settings.model.warm_up
    return warm_up if settings.model.kind == "gaussian_mixture" else max(1, warm_up // _HELD_OUT_DIVISOR)
