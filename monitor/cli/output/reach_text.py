"""The times after which thresholds and tests of a stream work as promised, and those that its settings never reach."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from config.budget import false_alarm_probability, windows_to_learn
from config.sizing import format_rate
from config.streams import StreamSettings
from config.time_format import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from config.units import format_duration, to_us
from monitor.incidents.drift_test import earliest_verdict_us
from monitor.incidents.slow_rise_test import MIN_WINDOWS
from monitor.incidents.spike import judge_count
from monitor.statistics.counts import CountModel
from monitor.thresholds.percentile import MIN_LOOK_BACK_TAIL, exceedance
from monitor.thresholds.pooled import MIN_LIVE_TAIL

COUNT_MODEL = "count model"
LIVE_THRESHOLD = "threshold of live events alone"

_UNITS = ((DAY_US, "d"), (HOUR_US, "h"), (MINUTE_US, "min"), (SECOND_US, "s"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Milestone:
    """Something that a stream reaches after `after_us` of event time, or never (None), with the reason."""

    name: str
    after_us: int | None
    text: str


def find_milestones(settings: StreamSettings, rate_s: float | None, count_model: CountModel) -> Iterator[Milestone]:
    """Yield what a stream reaches after the activation of its model, and when.

    Args:
        settings: The settings of the stream.
        rate_s: Events per second; None if it is not known: then only what depends on the number of windows.
        count_model: The count model in force, or the nominal one.
    """
    if rate_s is not None:
        yield from _threshold_milestones(settings, rate_s)
        yield _spike_milestone(settings, rate_s, count_model)
    yield from _window_milestones(settings, rate_s, count_model)
    yield from _drift_milestones(settings)


def describe_milestones(settings: StreamSettings, rate_s: float | None, found: list[Milestone]) -> Iterator[str]:
    """Yield lines of text, those that are reached first."""
    if rate_s is None:
        yield f"reached with a window of events every {format_duration(settings.window.size)} (the rate is not known):"
    else:
        yield f"reached at {format_rate(rate_s)}:"
    yield from (f"  {each.name}: {each.text}" for each in found if each.after_us is not None)
    never = [each for each in found if each.after_us is None]
    if never:
        yield "never reached with these settings:"
        yield from (f"  {each.name}: {each.text}" for each in never)


def describe_pending(settings: StreamSettings, rate_s: float, count_model: CountModel, method: str) -> Iterator[str]:
    """Yield what a running stream has not reached yet, with the time that is left if no window fires.

    Args:
        settings: The settings of the stream.
        rate_s: Events per second.
        count_model: The count model in force.
        method: The method of the threshold in force.
    """
    size_us = to_us(settings.window.size)
    for each in find_milestones(settings, rate_s, count_model):
        if each.after_us is None:
            continue
        left = format_span(max(each.after_us - count_model.windows * size_us, size_us))
        if each.name == COUNT_MODEL and count_model.state != "learned":
            yield f"{each.name}: {each.text}; {count_model.windows:,} windows so far, about {left} left"
        elif each.name == LIVE_THRESHOLD and method in {"reference", "pooled"}:
            yield f"{each.name}: {each.text}"


def format_span(us: float) -> str:
    """Format a duration in its two largest units, such as 12 d 12 h, rounded to the smaller one."""
    for (unit, name), (smaller, smaller_name) in pairwise(_UNITS):
        n = math.ceil(us / smaller - 1e-6)
        if n * smaller >= unit:
            count, rest = divmod(n, unit // smaller)
            return f"{count} {name} {rest} {smaller_name}" if rest else f"{count} {name}"
    return f"{max(1, math.ceil(us / SECOND_US))} s"


def _threshold_milestones(settings: StreamSettings, rate_s: float) -> Iterator[Milestone]:
    a, percentile = exceedance(settings.threshold.percentile), f"{settings.threshold.percentile:g}"
    look_back_us, size_us = to_us(settings.threshold.look_back), to_us(settings.window.size)
    held = rate_s * look_back_us / 1e6
    look_back = f"the look-back of {format_span(look_back_us)} holds {_count(held, 'event')}"
    for name, tail in (
        ("threshold moves with live events", MIN_LIVE_TAIL),
        (LIVE_THRESHOLD, MIN_LOOK_BACK_TAIL),
    ):
        needed = math.ceil(round(tail / a, 6))
        if needed <= round(held, 6):
            after_us = round(needed / rate_s * 1e6) + size_us
            text = (
                f"after {format_span(after_us)} ({needed:,} events, of which {tail} above the {percentile} percentile)"
            )
            yield Milestone(name=name, after_us=after_us, text=text)
            continue
        stays = (
            "it stays that of the training events" if tail == MIN_LIVE_TAIL else "it stays pooled with training events"
        )
        text = f"{look_back}, and {tail} above the {percentile} percentile need {needed:,}: {stays}"
        yield Milestone(name=name, after_us=None, text=text)


def _spike_milestone(settings: StreamSettings, rate_s: float, count_model: CountModel) -> Milestone:
    """Return whether the usual window has enough events for a spike."""
    size_us, alerts = to_us(settings.window.size), settings.alerts
    n = max(1, round(rate_s * size_us / 1e6))
    alpha = false_alarm_probability(alerts.false_alarms.per_week, size_us)
    fires_at = judge_count(
        count_model, n, 0, alpha=alpha, min_outliers=alerts.min_outliers, min_ratio=alerts.min_ratio
    ).fires_at
    if fires_at > n:
        text = f"a window has {_count(n, 'event')}, and {fires_at:,} or more outliers would be a spike by their number"
        return Milestone(name="spike of a usual window", after_us=None, text=text)
    text = f"{fires_at:,} or more outliers of {_count(n, 'event')}"
    return Milestone(name="spike of a usual window", after_us=size_us, text=text)


def _window_milestones(settings: StreamSettings, rate_s: float | None, count_model: CountModel) -> Iterator[Milestone]:
    size_us, look_back_us = to_us(settings.window.size), to_us(settings.threshold.look_back)
    size, alpha = (
        format_duration(settings.window.size),
        false_alarm_probability(settings.alerts.false_alarms.per_week, size_us),
    )
    n = None if rate_s is None else rate_s * size_us / 1e6
    filled = 1.0 if n is None else -math.expm1(-max(n, 1e-9))
    needed_to_learn = windows_to_learn(alpha, 0.0 if n is None else n * count_model.rate)
    for name, done, needed in ((COUNT_MODEL, "learned", needed_to_learn), ("slow rises", "tested", MIN_WINDOWS)):
        after_us = round(needed * size_us / filled)
        if after_us > look_back_us:
            windows = int(look_back_us / size_us * filled)
            text = (
                f"never {done}: the look-back of {format_span(look_back_us)} holds {windows:,} windows with events, "
                f"and {needed} are needed; set threshold.look_back to {_round_up(1.1 * after_us)} or more"
            )
            yield Milestone(name=name, after_us=None, text=text)
        else:
            text = f"{done} after {format_span(after_us)} ({needed} windows of {size})"
            yield Milestone(name=name, after_us=after_us, text=text)


def _drift_milestones(settings: StreamSettings) -> Iterator[Milestone]:
    for horizon in settings.alerts.drift.horizons:
        name = f"drift over {format_duration(horizon)}"
        if horizon < settings.window.size:
            size = format_duration(settings.window.size)
            yield Milestone(name=name, after_us=None, text=f"not tested: a window of {size} is longer")
        else:
            after_us = earliest_verdict_us(to_us(horizon))
            yield Milestone(name=name, after_us=after_us, text=f"first verdict after {format_span(after_us)}")


def _round_up(us: float) -> str:
    """Format a duration for the configuration, rounded up to whole hours."""
    return format_duration(timedelta(hours=math.ceil(us / HOUR_US - 1e-6)))


def _count(n: float, noun: str) -> str:
    number = f"{n:,.0f}" if n >= 10 else f"{n:.2g}"
    return f"{number} {noun}{'' if number == '1' else 's'}"
