"""The finding of a slow rise: what is carried from window to window, and when it becomes an incident. Pure.

Only windows that no spike explains feed the statistic: neither one that fires as a spike itself, nor any while an
incident of kind spike is open. The statistic stays on the quiet side by that (the counts that it leaves out are the
largest, or are left out for what came before them), and a burst with its flanks is told once. What lasts after the
spike is over is found as usual.
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
from storage.control.records import StoredIncident


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRiseAlarm:
    """A rise that was found: since when, how sure it was, and the evidence so far that it is over."""

    since_us: int
    log_statistic: float
    recovered: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRiseState:
    """What is carried: the statistic of one model's energies at one percentile, what came since the onset, the alarm.

    Another threshold of the same model changes nothing: each window is weighed by the law that was known before it,
    so the martingale goes on. Another model or percentile begins anew.
    """

    model_id: int
    percentile: float
    statistic: SlowRiseStatistic = field(default_factory=SlowRiseStatistic)
    windows: int = 0
    events: int = 0
    outliers: int = 0
    alarm: SlowRiseAlarm | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as what is stored."""
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
        """Return what was stored, or the beginning where it was of another model or percentile."""
        if stored is None or (stored["model_id"], stored["percentile"]) != (model_id, percentile):
            return SlowRiseState(model_id=model_id, percentile=percentile)
        alarm = stored["alarm"]
        return SlowRiseState(
            **{name: stored[name] for name in ("model_id", "percentile", "windows", "events", "outliers")},
            statistic=SlowRiseStatistic(**stored["statistic"]),
            alarm=None if alarm is None else SlowRiseAlarm(**alarm),
        )


def find_slow_rise(
    window: WindowUnderTest, stored: Mapping[str, Any] | None, open_incidents: Sequence[StoredIncident], *, spike: bool
) -> tuple[SlowRiseState, Finding | None]:
    """Return what is handed on after a window, and the finding while the rate is up.

    Args:
        window: The window.
        stored: What the last judged window handed on.
        open_incidents: The stream's, before the window.
        spike: Whether the window is a spike, or lies in an open incident of that kind.
    """
    row = window.threshold.row
    rise = SlowRiseState.from_json(stored, row.model_id, row.percentile)
    if rise.alarm is not None and not any(each.kind == Kind.SLOW_RISE for each in open_incidents):
        rise = SlowRiseState(model_id=row.model_id, percentile=row.percentile)  # somebody has accepted it
    if window.part.events and not spike:
        if rise.alarm is not None:
            # Whatever the law is learned from: a rise that outlasts the look-back leaves it no windows.
            rise = _update_recovery(rise, rise.alarm, window)
        elif window.threshold.count_model.windows >= MIN_WINDOWS:
            rise = _update_statistic(rise, window)
    return rise, None if rise.alarm is None else _build_finding(rise, rise.alarm, window)


def _update_statistic(rise: SlowRiseState, window: WindowUnderTest) -> SlowRiseState:
    """Take in one window; sound the alarm when the evidence reaches its limit."""
    statistic, verdict = update_slow_rise(
        rise.statistic,
        window.threshold.count_model,
        window.part.events,
        window.part.outliers,
        window_start_us=window.facts.window_start_us,
        limit_windows=windows_between_false_alarms(window.rule.per_week, window.rule.size_us, share=BUDGET_SHARE),
        clean_rate=window.threshold.clean_rate,
    )
    if verdict.onset_us is None:
        counted = replace(rise, windows=0, events=0, outliers=0)
    elif verdict.onset_us != rise.statistic.onset_us:
        counted = _count_window(replace(rise, windows=0, events=0, outliers=0), window)
    else:
        counted = _count_window(rise, window)
    alarm = None
    if verdict.fires:
        # Evidence from before the best onset can sound the alarm in a window that speaks against it: then since now.
        since_us = window.facts.window_start_us if verdict.onset_us is None else verdict.onset_us
        alarm = SlowRiseAlarm(since_us=since_us, log_statistic=verdict.log_statistic)
    return replace(counted, statistic=statistic, alarm=alarm)


def _update_recovery(rise: SlowRiseState, alarm: SlowRiseAlarm, window: WindowUnderTest) -> SlowRiseState:
    """Take in one window of a raised rate, until the evidence that it is down again suffices."""
    recovered = update_recovery(
        alarm.recovered,
        window.threshold.count_model,
        window.part.events,
        window.part.outliers,
        clean_rate=window.threshold.clean_rate,
    )
    if recovered >= RECOVERY_THRESHOLD:
        return SlowRiseState(model_id=rise.model_id, percentile=rise.percentile)
    return replace(_count_window(rise, window), alarm=replace(alarm, recovered=recovered))


def _count_window(rise: SlowRiseState, window: WindowUnderTest) -> SlowRiseState:
    return replace(
        rise,
        windows=rise.windows + 1,
        events=rise.events + window.part.events,
        outliers=rise.outliers + window.part.outliers,
    )


def _build_finding(rise: SlowRiseState, alarm: SlowRiseAlarm, window: WindowUnderTest) -> Finding:
    clean, share = window.threshold.clean_rate, rise.outliers / rise.events if rise.events else 0.0
    summary = (
        f"more outliers than usual since about {format_utc(alarm.since_us)}: {rise.outliers:,} of {rise.events:,} events "
        f"({share:.3%}); a clean stream has at most {clean:.3%}"
    )
    details = {
        "window": window_details(window.facts),
        "since": format_utc(alarm.since_us),
        "windows": rise.windows,
        "events": rise.events,
        "outliers": rise.outliers,
        "share": share,
        "clean_rate": clean,
        "ratio": share / clean,
        "looked_for_ratio": RATE_RATIO,
        "log_statistic": alarm.log_statistic,
        "limit_windows": windows_between_false_alarms(window.rule.per_week, window.rule.size_us, share=BUDGET_SHARE),
        "promise_per_week": window.rule.per_week,
        **window.shared_details(),
    }
    return Finding(kind=Kind.SLOW_RISE, severity=Severity.WARNING, summary=summary, details=details)
