"""The alerts of an incident at a time, from the transitions that Alertmanager has got. Pure functions.

An alert is identified by its labels, and the severity is a label: an incident that escalates ends one alert and starts
another one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.queries.told_incidents import ToldTransition

ALERT_NAME = "OutriderIncident"
_INTERVALS_UNTIL_END = 4
"""An alert that is not sent again ends after this number of intervals."""

_INTERVALS_AFTER_END = 5
"""An alert that has ended is sent for this number of intervals, for an Alertmanager that missed the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSpan:
    """One alert of an incident: its severity, and its start and end in microseconds since 1970.

    `resolved` is False for an alert whose end lies ahead: it ends then if it is not sent again.
    """

    severity: str
    starts_at_us: int
    ends_at_us: int
    resolved: bool


def recent_us(interval_us: int) -> int:
    """Return the time for which an alert that has ended is sent again."""
    return _INTERVALS_AFTER_END * interval_us


def alert_spans(told: Sequence[ToldTransition], *, now_us: int, interval_us: int) -> list[AlertSpan]:
    """Return the alerts to send at a time: first those that have ended, then the active one.

    Args:
        told: The transitions that Alertmanager has got, or gets now, in order.
        now_us: The time, on the clock of the transitions.
        interval_us: The interval at which alerts are sent again.
    """
    starts: dict[str, int] = {}
    ended: dict[str, tuple[AlertSpan, int]] = {}
    for each in told:
        if each.transition == "resolved":
            over = starts or {each.severity: each.recorded_at_us}
            starts = {}
        else:
            over = {severity: start_us for severity, start_us in starts.items() if severity != each.severity}
            starts = {each.severity: starts.get(each.severity, each.recorded_at_us)}
            ended.pop(each.severity, None)
        for severity, start_us in over.items():
            span = AlertSpan(
                severity=severity, starts_at_us=start_us, ends_at_us=max(start_us, each.recorded_at_us), resolved=True
            )
            ended[severity] = (span, each.told_at_us)
    end_us = now_us + _INTERVALS_UNTIL_END * interval_us
    spans = [span for span, told_us in ended.values() if now_us - told_us < recent_us(interval_us)]
    return spans + [
        AlertSpan(severity=severity, starts_at_us=min(start_us, now_us), ends_at_us=end_us, resolved=False)
        for severity, start_us in starts.items()
    ]


def alert_labels(*, stream: str, kind: str, severity: str, incident_id: int, own: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of an alert; they identify it. No label depends on keys, features or energies."""
    return {
        "alertname": ALERT_NAME,
        "stream": stream,
        "kind": kind,
        "severity": severity,
        "incident": str(incident_id),
    } | dict(own)
