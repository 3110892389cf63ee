"""The lifecycle of an incident as a pure function of findings and event time.

A stream has at most one unresolved incident of a kind. Each judged window gives a finding of a kind or none;
`advance_incident` turns that into the transitions opened, escalated, repeated and resolved. All times are event times,
so that a replay gives the same incidents.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from storage.control.records import Incident, Transition


class Kind(StrEnum):
    """The kinds of incidents."""

    SPIKE = "spike"
    SLOW_RISE = "slow_rise"
    DRIFT = "drift"
    CALIBRATION = "calibration"
    SILENCE = "silence"
    STOPPED = "stopped"
    STALLED = "stalled"
    DEAD_LETTERS = "dead_letters"
    LATE = "late"
    GAP = "gap"


class Severity(StrEnum):
    """The severity of an incident."""

    WARNING = "warning"
    CRITICAL = "critical"


_SEVERITY_ORDER = {Severity.WARNING: 0, Severity.CRITICAL: 1}


class TransitionType(StrEnum):
    """The types of transitions of an incident."""

    OPENED = "opened"
    ESCALATED = "escalated"
    REPEATED = "repeated"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"
    REOPENED = "reopened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of a test that fired, with the numbers that led to it.

    `is_growth` marks a finding that an open incident tells at once, though its severity is not higher.
    """

    kind: Kind
    severity: Severity
    summary: str
    details: Mapping[str, Any]
    is_growth: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An interval of event time, [start, end) in microseconds."""

    start_us: int
    end_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecyclePolicy:
    """The settings of `alerts` for the lifecycle. `unit` names the plural of the judged intervals in texts."""

    resolve_after: int
    repeat_interval_us: int
    unit: str = "windows"


def apply_quiet_windows(
    incident: Incident, quiet_windows: int, size_us: int, after_us: int, policy: LifecyclePolicy
) -> Incident:
    """Count windows without events as clean windows of an open incident: they show no sign of the problem.

    Args:
        incident: The open incident.
        quiet_windows: Number of windows without events since the last judged one.
        size_us: Length of a window.
        after_us: End of the last judged window, which the quiet windows follow.
        policy: The settings for resolving an incident.
    """
    needed = policy.resolve_after - incident.clean_windows
    if quiet_windows < needed:
        return replace(incident, clean_windows=incident.clean_windows + quiet_windows, transition=None)
    window = Interval(start_us=after_us + (needed - 1) * size_us, end_us=after_us + needed * size_us)
    return _resolve(incident, window, policy)


def advance_incident(
    incident: Incident | None, finding: Finding | None, window: Interval, policy: LifecyclePolicy
) -> Incident | None:
    """Return the incident after `window`, with its transition if there is one. None without incident and finding.

    An incident opens at the first finding. It escalates when a finding is more severe or the problem has grown, is
    repeated when it still fires after `repeat_interval` (an acknowledged one when its acknowledgement has expired), and
    resolves after `resolve_after` consecutive windows without a finding. One finding opens an incident and several
    clean windows resolve it (hysteresis), so that a count that oscillates around its threshold opens only one incident.
    """
    if finding is None:
        return None if incident is None else _count_clean_window(incident, window, policy)
    if incident is None:
        return _open(finding, window)
    return _update_firing(incident, finding, window, policy)


def end_incident(
    incident: Incident, window: Interval, *, summary: str, details: Mapping[str, Any], clean_windows: int
) -> Incident:
    """Return the incident as resolved at the end of an interval, with its transition."""
    transition = Transition(
        type=TransitionType.RESOLVED.value,
        severity=incident.severity,
        window_start_us=window.start_us,
        at_us=window.end_us,
        summary=summary,
        details=details,
    )
    resolved = replace(
        incident,
        status="resolved",
        resolved_at_us=window.end_us,
        clean_windows=clean_windows,
        acknowledged_until_us=None,
    )
    return _with_transition(resolved, transition)


def _open(finding: Finding, window: Interval) -> Incident:
    incident = Incident(
        id=None,
        kind=finding.kind.value,
        severity=finding.severity.value,
        window_start_us=window.start_us,
        opened_at_us=window.end_us,
        last_told_us=window.end_us,
        clean_windows=0,
        windows_fired=1,
        summary=finding.summary,
        details={},
    )
    return _with_transition(incident, _build_transition(TransitionType.OPENED, finding, window))


def escalates(finding: Finding, incident: Incident) -> bool:
    """Return True if a finding is more severe than the open incident, or if the problem has grown."""
    return finding.is_growth or _SEVERITY_ORDER[finding.severity] > _SEVERITY_ORDER[Severity(incident.severity)]


def is_repeat_due(incident: Incident, at_us: int, repeat_interval_us: int) -> bool:
    """Return whether an incident that still fires is told again: after the interval, or as a reminder.

    An acknowledged incident is not repeated. When the acknowledgement expires, one message reminds of it.
    """
    if incident.acknowledged_until_us is not None:
        return at_us >= incident.acknowledged_until_us
    return at_us - incident.last_told_us >= repeat_interval_us


def _update_firing(incident: Incident, finding: Finding, window: Interval, policy: LifecyclePolicy) -> Incident:
    fired = replace(incident, clean_windows=0, windows_fired=incident.windows_fired + 1, transition=None)
    if escalates(finding, incident):
        # A person has acknowledged the lower severity or the lower rate only.
        severity = max(finding.severity, Severity(incident.severity), key=_SEVERITY_ORDER.__getitem__)
        escalated = replace(fired, severity=severity.value, last_told_us=window.end_us, summary=finding.summary)
        escalated = replace(escalated, acknowledged_until_us=None)
        told = replace(finding, severity=severity)
        return _with_transition(escalated, _build_transition(TransitionType.ESCALATED, told, window))
    if is_repeat_due(incident, window.end_us, policy.repeat_interval_us):
        repeated = replace(fired, last_told_us=window.end_us, acknowledged_until_us=None)
        return _with_transition(repeated, _build_transition(TransitionType.REPEATED, finding, window))
    return fired


def _count_clean_window(incident: Incident, window: Interval, policy: LifecyclePolicy) -> Incident:
    if incident.clean_windows + 1 < policy.resolve_after:
        return replace(incident, clean_windows=incident.clean_windows + 1, transition=None)
    return _resolve(incident, window, policy)


def _resolve(incident: Incident, window: Interval, policy: LifecyclePolicy) -> Incident:
    minutes = (window.end_us - incident.opened_at_us) / 60e6
    return end_incident(
        incident,
        window,
        summary=f"resolved after {policy.resolve_after} clean {policy.unit}, {minutes:.1f} min after it opened",
        details={"clean_windows": policy.resolve_after, "windows_fired": incident.windows_fired},
        clean_windows=policy.resolve_after,
    )


def _build_transition(transition_type: TransitionType, finding: Finding, window: Interval) -> Transition:
    return Transition(
        type=transition_type.value,
        severity=finding.severity.value,
        window_start_us=window.start_us,
        at_us=window.end_us,
        summary=finding.summary,
        details=finding.details,
    )


def _with_transition(incident: Incident, transition: Transition) -> Incident:
    details = {**incident.details, transition.type: transition.details}
    return replace(incident, details=details, transition=transition)
