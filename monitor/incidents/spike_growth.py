"""A burst inside an open spike incident: the rate of outliers has doubled since the last message. Pure functions.

The windows of the incident since its last message give a rate of outliers. A window is told if its count is improbable
under this rate with the dispersion of the stream, at half of the false-alarm probability of a spike, and if its rate is
at least twice the one that was told last. So there is at most one message per doubling. These messages repeat a known
incident and are outside of the false-alarm budget: a model of 5 to 30 windows has no dispersion of its own.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from config.budget import false_alarm_probability
from config.time_format import format_utc
from monitor.incidents.lifecycle import Finding
from monitor.incidents.spike import judge_count
from monitor.incidents.window import WindowUnderTest

GROWTH = 2.0
"""Factor on the last told rate from which a window is told."""

ALPHA_SHARE = 0.5
"""Share of the false-alarm probability of a spike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeLevel:
    """The outliers of an open spike incident since its last message.

    `incident_us` is the start of the incident's first window, `since_us` that of the last told one, and `told_rate` the
    share of outliers in the latter.
    """

    incident_us: int
    since_us: int
    told_rate: float
    events: int
    outliers: int

    def to_json(self) -> dict[str, Any]:
        """Return the level as the JSON object that is stored."""
        return asdict(self)

    @staticmethod
    def from_json(stored: Mapping[str, Any] | None, incident_us: int) -> "SpikeLevel | None":
        """Return the stored level of an incident, or None for that of another one."""
        if stored is None or stored["incident_us"] != incident_us:
            return None
        return SpikeLevel(**stored)


def start_level(window: WindowUnderTest, incident_us: int) -> SpikeLevel:
    """Return the level after a window that is told."""
    part = window.part
    return SpikeLevel(
        incident_us=incident_us,
        since_us=window.facts.window_start_us,
        told_rate=part.outliers / max(part.events, 1),
        events=part.events,
        outliers=part.outliers,
    )


def find_growth(level: SpikeLevel, window: WindowUnderTest, spike: Finding | None) -> tuple[SpikeLevel, Finding | None]:
    """Return the level after a window of an open spike incident, and its finding, which escalates if the rate doubled.

    Args:
        level: The level before the window.
        window: The window.
        spike: The finding of the window as a spike, or None.
    """
    events, outliers = window.part.events, window.part.outliers
    longer = replace(level, events=level.events + events, outliers=level.outliers + outliers)
    if spike is None or not level.outliers or outliers < GROWTH * level.told_rate * events:
        return longer, spike
    rules, law = window.rules, window.threshold.count_model
    alpha = ALPHA_SHARE * false_alarm_probability(rules.per_week, rules.size_us)
    rate = level.outliers / level.events
    verdict = judge_count(replace(law, rate=rate, calibration_n=level.events), events, outliers, alpha=alpha)
    if not verdict.fires:
        return longer, spike
    summary = (
        f"the rate of outliers has doubled since {format_utc(level.since_us)}: {outliers:,} of {events:,} events in "
        f"the window from {format_utc(window.facts.window_start_us)}, before {rate:.3%} of {level.events:,}"
    )
    growth = {
        "since": format_utc(level.since_us),
        "told_rate": level.told_rate,
        "rate_before": rate,
        "events_before": level.events,
        "rate": outliers / events,
        "limit": verdict.count_threshold,
        "alpha": alpha,
    }
    grown = replace(spike, summary=summary, details={**spike.details, "growth": growth}, is_growth=True)
    return start_level(window, level.incident_us), grown
