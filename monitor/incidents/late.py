"""Findings about late events: a large share of the events that arrive during a window is late. Pure functions."""

from config.stream_rules import StreamRules
from config.time_format import SECOND_US, format_rough_duration, format_utc
from monitor.incidents.lifecycle import Finding, Kind, Severity
from monitor.incidents.share_limit import exceeds_limit
from monitor.incidents.window import window_details
from monitor.statistics.part import Part
from storage.control.records import WindowFacts

_CRITICAL_SHARE = 0.5
_SAME_LAG_FACTOR = 1.5
"""Late events that are all about as late as each other have one cause: a clock or a time zone."""

_CLOCK_LAG_S = 60


def find_late(facts: WindowFacts, part: Part, rules: StreamRules) -> Finding | None:
    """Return the finding of a window during which too large a share of the arrived events was late, otherwise None."""
    arrivals = part.events + part.late
    if part.late < rules.min_outliers or not exceeds_limit(part.late, arrivals, rules.max_late_ratio):
        return None
    share = part.late / arrivals
    mean_s = sum(stored.late_sum_s for stored in facts.parts) / part.late
    max_s = max(stored.late_max_s for stored in facts.parts)
    cause = _describe_cause(share, mean_s, max_s, rules)
    summary = (
        f"{part.late:,} of {arrivals:,} events that arrived around {format_utc(facts.window_start_us)} were late "
        f"({share:.1%}, more than {rules.max_late_ratio:.1%}), by {_format_lag(mean_s)} on average and "
        f"{_format_lag(max_s)} at most: {cause}"
    )
    details = {
        "window": window_details(facts),
        "late": part.late,
        "arrivals": arrivals,
        "share": share,
        "limit": rules.max_late_ratio,
        "mean_lag_s": mean_s,
        "max_lag_s": max_s,
        "grace_s": rules.grace_us / SECOND_US,
        "cause": cause,
        "config_hash": rules.config_hash,
    }
    severity = Severity.CRITICAL if share > _CRITICAL_SHARE else Severity.WARNING
    return Finding(kind=Kind.LATE, severity=severity, summary=summary, details=details)


def _describe_cause(share: float, mean_s: float, max_s: int, rules: StreamRules) -> str:
    """Return the most probable cause in words."""
    if share > _CRITICAL_SHARE:
        return (
            "most events are behind the watermark of their partition, so probably clocks that are ahead have moved it; "
            "compare the event times of the producers"
        )
    if max_s <= _SAME_LAG_FACTOR * mean_s and mean_s >= _CLOCK_LAG_S:
        return (
            "they are all about as late, so probably one clock or time zone is wrong; compare the keys of these events"
        )
    return (
        f"their producers probably deliver with a delay; a window.grace longer than the "
        f"{_format_lag(rules.grace_us / SECOND_US)} of now admits more of them"
    )


def _format_lag(seconds: float) -> str:
    return format_rough_duration(seconds)
