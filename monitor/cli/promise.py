"""The command line: what the promise on false alarms means in counts of outliers."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from math import ceil, isfinite
from typing import Any

from config.streams import StreamSettings
from config.units import format_duration, to_us
from monitor.drift import first_verdict_us
from monitor.percentiles.limits import REFERENCE_TAIL, exceedance
from monitor.percentiles.tail import fewest_energies
from monitor.slow_rises import LEAST_WINDOWS, SHARE_OF_PROMISE, alarm_windows, windows_to_find
from monitor.spikes import WEEK_US, CountLaw, advise_window, describe, judge_window, period, window_budget

_HELD_OUT_SHARE = 5
_ROUND_COUNTS = (100, 1_000, 10_000)


def promise(law: CountLaw, n: int, settings: StreamSettings) -> str:
    """Say how many outliers among n events of a window are a spike, how often that errs, and what floor is set."""
    window_us = to_us(settings.window.size)
    alpha = window_budget(settings.alerts.false_alarms.per_week, window_us)
    said = describe(law, n, alpha=alpha, window_us=window_us)
    verdict = judge_window(
        law, n, 0, alpha=alpha, min_outliers=settings.alerts.min_outliers, min_ratio=settings.alerts.min_ratio
    )
    if verdict.fires_at > verdict.limit + 1:
        said += f"; your floor raises that to {verdict.fires_at:,} or more"
    return said


def promises(law: CountLaw, counts: Sequence[int], settings: StreamSettings, clean_rate: float) -> Iterator[str]:
    """Say how `false_alarms` is split over the detectors, and what each share means for windows of so many events."""
    yield f"promise: {settings.alerts.false_alarms} false alarms, of all kinds together"
    yield "  spikes, half of it:"
    yield from (f"    {promise(law, n, settings)}" for n in counts)
    yield f"  slow rises, a quarter: {slow_rise_promise(law, counts[-1], settings, clean_rate)}"
    yield f"  drift, a quarter: {drift_promise(settings)}"


def slow_rise_promise(law: CountLaw, n: int, settings: StreamSettings, clean_rate: float) -> str:
    """Say how often slow rises err, and how soon a doubled rate shows."""
    window_us = to_us(settings.window.size)
    windows = alarm_windows(settings.alerts.false_alarms.per_week, window_us, share=SHARE_OF_PROMISE)
    said = f"1 false alarm in {period(windows * window_us)} or more"
    if law.windows < LEAST_WINDOWS:
        return f"{said}; not looked for before {LEAST_WINDOWS} windows are learned ({law.windows:,} are)"
    found = windows_to_find(law, n, clean_rate=clean_rate, limit_windows=windows)
    if not isfinite(found):
        return f"{said}; a doubled rate is within the day's course, and is not found"
    return f"{said}; a doubled rate is found after about {max(ceil(found), 1):,} windows of {n:,} events"


def drift_promise(settings: StreamSettings) -> str:
    """Say how often drift errs, over which horizons."""
    drift, per_week = settings.alerts.drift, settings.alerts.false_alarms.per_week
    watched = [horizon for horizon in drift.horizons if horizon >= settings.window.size]
    if not watched:
        return f"not looked for: no horizon holds a window of {format_duration(settings.window.size)}"
    named = ", ".join(format_duration(horizon) for horizon in watched)
    waits = [format_duration(timedelta(microseconds=first_verdict_us(to_us(horizon)))) for horizon in watched]
    said = f"1 false alarm in {period(WEEK_US / (per_week * SHARE_OF_PROMISE))} or more, over {named} together"
    return f"{said}; no calibrated verdict before {', '.join(waits)} of a model"


def advice(law: CountLaw, n: int, settings: StreamSettings) -> str | None:
    """Say which window size would carry the promise, where fewer than one outlier a window is expected."""
    return advise_window(law, n, window_us=to_us(settings.window.size))


def said_of_limit(details: Mapping[str, Any]) -> list[str]:
    """Say in words what a person should know of a limit: that it is held, that its training set was no clean one."""
    said = []
    if details.get("held"):
        said.append(f"the limit does not move: {details['held']}")
    if details.get("warning"):
        said.append(f"warning: {details['warning']}")
    return said


def nominal_law(settings: StreamSettings) -> CountLaw:
    """Return the law of counts before anything was fitted: the percentile's own rate, known from the warm-up."""
    return CountLaw(
        rate=exceedance(settings.threshold.percentile),
        calibration_n=_reference_n(settings),
        dispersion=1.0,
        windows=0,
        state="provisional",
    )


def nominal_counts(settings: StreamSettings) -> tuple[int, ...]:
    """Return how many events a window may have: the synthetic stream says it, for others some round numbers."""
    source = settings.source
    if source.type == "synthetic":
        return (max(1, round(source.rate * settings.window.size.total_seconds())),)
    return _ROUND_COUNTS


def thin_reference(settings: StreamSettings) -> str | None:
    """Say when the warm-up cannot carry the percentile."""
    n, share = _reference_n(settings), exceedance(settings.threshold.percentile)
    if n * share >= REFERENCE_TAIL or (settings.threshold.method == "pot" and n >= fewest_energies()):
        return None
    needed = round(REFERENCE_TAIL / share * settings.model.warm_up / n)
    return (
        f"{n:,} reference energies have {n * share:.3g} above the {settings.threshold.percentile:g} percentile, "
        f"too few to hold the limit: set model.warm_up to {needed:,} or more, a lower percentile, "
        "or threshold.method to pot"
    )


def _reference_n(settings: StreamSettings) -> int:
    """Return how many training events a model does not see: all by cross-fitting, or the last fifth."""
    warm_up = settings.model.warm_up
    return warm_up if settings.model.kind == "gaussian_mixture" else max(1, warm_up // _HELD_OUT_SHARE)
