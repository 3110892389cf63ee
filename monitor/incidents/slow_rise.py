"""The finding of a slow rise: the state between windows, and the alarm. Pure functions.

Windows that fire as a spike, and windows during an open incident of kind spike, do not update the statistic. A burst
with its flanks therefore opens one incident. The test becomes less sensitive, because the largest counts are skipped.
A rise that continues after the spike is found as usual.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from config.time_format import format_utc
from monitor.incidents.lifecycle import Finding, Kind, Severity
from monitor.incidents.slow_rise_test import (
    BUDGET_SHARE,
    MIN_WINDOWS,
    RATE_RATIO,
    RECOVERY_THRESHOLD,
    SlowRiseStatistic,
    update_recovery,
    update_slow_rise,
    windows_between_false_alarms,
)
from monitor.incidents.window import WindowUnderTest, window_details
from storage.control.records import Incident


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRiseAlarm:
    """A rise that was found: its onset, the evidence for it, and the evidence so far that it is over."""

    since_us: int
    log_statistic: float
    recovered: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRiseState:
    """The state between windows: the statistic, the counts since the onset, and the alarm.

    It belongs to one model and percentile. A new threshold of the same model does not reset it: each window is weighted
    by the count model known before it, so that the statistic remains a martingale. Another model or percentile resets
    it.
    """

    model_id: int
    percentile: float
    statistic: SlowRiseStatistic = field(default_factory=SlowRiseStatistic)
    windows: int = 0
    events: int = 0
    outliers: int = 0
    alarm: SlowRiseAlarm | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the state as the JSON object that is stored."""
        alarm = self.alarm
        return {
            "model_id": self.model_id,
            "percentile": self.percentile,
            "statistic": {name: getattr(self.statistic, name) for name in SlowRiseStatistic.__slots__},
            "windows": self.windows,
            "events": self.events,
            "outliers": self.outliers,
            "alarm": None if alarm is None else asdict(alarm),
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any] | None, model_id: int, percentile: float) -> "SlowRiseState":
        """Return the stored state, or the initial state for another model or percentile."""
        if stored is None or (stored["model_id"], stored["percentile"]) != (model_id, percentile):
            return SlowRiseState(model_id=model_id, percentile=percentile)
        alarm = stored["alarm"]
        return SlowRiseState(
            **{name: stored[name] for name in ("model_id", "percentile", "windows", "events", "outliers")},
            statistic=SlowRiseStatistic(**stored["statistic"]),
            alarm=None if alarm is None else SlowRiseAlarm(**alarm),
        )


def find_slow_rise(
    window: WindowUnderTest, stored: Mapping[str, Any] | None, open_incidents: Sequence[Incident], *, spike: bool
) -> tuple[SlowRiseState, Finding | None]:
    """Return the state after a window, and the finding while the rate is raised.

    Args:
        window: The window.
        stored: The stored state of the last judged window.
        open_incidents: Open incidents of the stream before the window.
        spike: True if the window is a spike or lies in an open incident of that kind.
    """
    row = window.threshold.row
    state = SlowRiseState.from_json(stored, row.model_id, row.percentile)
    if state.alarm is not None and not any(each.kind == Kind.SLOW_RISE for each in open_incidents):
        state = SlowRiseState(model_id=row.model_id, percentile=row.percentile)  # a user has accepted the incident
    if window.part.events and not spike:
        if state.alarm is not None:
            # Without a minimum of learned windows: a rise that outlasts the look-back leaves no clean ones.
            state = _update_recovery(state, state.alarm, window)
        elif window.threshold.count_model.windows >= MIN_WINDOWS:
            state = _update_statistic(state, window)
    return state, None if state.alarm is None else _build_finding(state, state.alarm, window)


def find_adopted_rise(
    window: WindowUnderTest, stored: Mapping[str, Any] | None, open_incidents: Sequence[Incident]
) -> Incident | None:
    """Return the open incident of a rise that the threshold in force has adopted as normal, or None.

    After `threshold.adopt_after` the look-back contains the windows since the onset, also those of the open incident.
    Its rate is then compared with its own mean, from which a recovery cannot be told: with one outlier in ten windows
    the incident would stay open for weeks.

    Args:
        window: The window.
        stored: The stored state of the last judged window.
        open_incidents: Open incidents of the stream before the window.
    """
    row = window.threshold.row
    state = SlowRiseState.from_json(stored, row.model_id, row.percentile)
    if state.alarm is None or row.computed_at_us - state.alarm.since_us < window.rules.adopt_after_us:
        return None
    return next((each for each in open_incidents if each.kind == Kind.SLOW_RISE), None)


def _update_statistic(state: SlowRiseState, window: WindowUnderTest) -> SlowRiseState:
    """Update the statistic with one window, and set the alarm when the evidence reaches its threshold."""
    statistic, verdict = update_slow_rise(
        state.statistic,
        window.threshold.count_model,
        window.part.events,
        window.part.outliers,
        window_start_us=window.facts.window_start_us,
        threshold_windows=windows_between_false_alarms(window.rules.per_week, window.rules.size_us, share=BUDGET_SHARE),
        clean_rate=window.threshold.clean_rate,
    )
    if verdict.onset_us is None:
        updated = replace(state, windows=0, events=0, outliers=0)
    elif verdict.onset_us != state.statistic.onset_us:
        updated = _count_window(replace(state, windows=0, events=0, outliers=0), window)
    else:
        updated = _count_window(state, window)
    alarm = None
    if verdict.fires:
        # Evidence from before the best onset can fire in a window that lowers it: the rise then starts at this window.
        since_us = window.facts.window_start_us if verdict.onset_us is None else verdict.onset_us
        alarm = SlowRiseAlarm(since_us=since_us, log_statistic=verdict.log_statistic)
    return replace(updated, statistic=statistic, alarm=alarm)


def _update_recovery(state: SlowRiseState, alarm: SlowRiseAlarm, window: WindowUnderTest) -> SlowRiseState:
    """Update the evidence that the rise is over with one window; reset the state when it is sufficient."""
    recovered = update_recovery(
        alarm.recovered,
        window.threshold.count_model,
        window.part.events,
        window.part.outliers,
        clean_rate=window.threshold.clean_rate,
    )
    if recovered >= RECOVERY_THRESHOLD:
        return SlowRiseState(model_id=state.model_id, percentile=state.percentile)
    return replace(_count_window(state, window), alarm=replace(alarm, recovered=recovered))


def _count_window(state: SlowRiseState, window: WindowUnderTest) -> SlowRiseState:
    return replace(
        state,
        windows=state.windows + 1,
        events=state.events + window.part.events,
        outliers=state.outliers + window.part.outliers,
    )


def _build_finding(state: SlowRiseState, alarm: SlowRiseAlarm, window: WindowUnderTest) -> Finding:
    clean_rate, share = window.threshold.clean_rate, state.outliers / state.events if state.events else 0.0
    summary = (
        f"more outliers than usual since about {format_utc(alarm.since_us)}: "
        f"{state.outliers:,} of {state.events:,} events ({share:.3%}); a clean stream has at most {clean_rate:.3%}"
    )
    details = {
        "window": window_details(window.facts),
        "since": format_utc(alarm.since_us),
        "windows": state.windows,
        "events": state.events,
        "outliers": state.outliers,
        "share": share,
        "clean_rate": clean_rate,
        "ratio": share / clean_rate,
        "looked_for_ratio": RATE_RATIO,
        "log_statistic": alarm.log_statistic,
        "limit_windows": windows_between_false_alarms(window.rules.per_week, window.rules.size_us, share=BUDGET_SHARE),
        "promise_per_week": window.rules.per_week,
        **window.shared_details(),
    }
    return Finding(kind=Kind.SLOW_RISE, severity=Severity.WARNING, summary=summary, details=details)
