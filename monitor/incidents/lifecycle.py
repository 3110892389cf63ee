"""The lifecycle of an incident as a pure function of findings and event time.

A stream has at most one unresolved incident of a kind. Each judged window gives a finding of a kind or none;
`advance_incident` turns that into the transitions opened, escalated, repeated and resolved. All times are event times,
so that a replay gives the same incidents.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """The kinds of incidents."""

    SPIKE = "spike"
    SLOW_RISE = "slow_rise"
    DRIFT = "drift"
    CALIBRATION = "calibration"
    SILENCE = "silence"
    DEAD_LETTERS = "dead_letters"
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
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of a test that fired, with the numbers that led to it."""

    kind: Kind
    severity: Severity
    summary: str
    details: Mapping[str, Any]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncident:
    """An unresolved incident as it is stored."""

    kind: Kind
    severity: Severity
    window_start_us: int
    opened_at_us: int
    last_told_us: int
    clean_windows: int
    windows_fired: int
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One step in the life of an incident; `at_us` is event time, the end of the window that caused it."""

    type: TransitionType
    kind: Kind
    severity: Severity
    window_start_us: int
    at_us: int
    summary: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentStep:
    """The incident after a window (None when none is open) and the transition that led there, if any."""

    incident: OpenIncident | None
    transition: Transition | None


def apply_quiet_windows(
    incident: OpenIncident, quiet_windows: int, size_us: int, after_us: int, policy: LifecyclePolicy
) -> IncidentStep:
    """Count windows without events as clean windows of an open incident: they give no sign that the problem lasts.

    Args:
        incident: The open incident.
        quiet_windows: Number of windows without events since the last judged one.
        size_us: Length of a window.
        after_us: End of the last judged window, which the quiet windows follow.
        policy: The settings for resolving an incident.
    """
    needed = policy.resolve_after - incident.clean_windows
    if quiet_windows < needed:
        return IncidentStep(
            incident=replace(incident, clean_windows=incident.clean_windows + quiet_windows), transition=None
        )
    window = Interval(start_us=after_us + (needed - 1) * size_us, end_us=after_us + needed * size_us)
    return IncidentStep(incident=None, transition=_build_resolution(incident, window, policy))


def advance_incident(
    kind: Kind, incident: OpenIncident | None, finding: Finding | None, window: Interval, policy: LifecyclePolicy
) -> IncidentStep:
    """Return the incident of `kind` after `window`, and the transition if there is one.

    An incident opens at the first finding. It escalates when a finding is more severe, is repeated when it still fires
    after `repeat_interval`, and resolves after `resolve_after` consecutive windows without a finding. The test for
    resolving differs from the test for opening, so that a count that oscillates around its threshold does not alert
    twice.
    """
    if finding is None:
        return (
            IncidentStep(incident=None, transition=None)
            if incident is None
            else _count_clean_window(incident, window, policy)
        )
    if incident is None:
        return _open(kind, finding, window)
    return _update_firing(incident, finding, window, policy)


def _open(kind: Kind, finding: Finding, window: Interval) -> IncidentStep:
    incident = OpenIncident(
        kind=kind,
        severity=finding.severity,
        window_start_us=window.start_us,
        opened_at_us=window.end_us,
        last_told_us=window.end_us,
        clean_windows=0,
        windows_fired=1,
        summary=finding.summary,
    )
    return IncidentStep(incident=incident, transition=_build_transition(TransitionType.OPENED, finding, window))


def _update_firing(incident: OpenIncident, finding: Finding, window: Interval, policy: LifecyclePolicy) -> IncidentStep:
    again = replace(incident, clean_windows=0, windows_fired=incident.windows_fired + 1)
    if _SEVERITY_ORDER[finding.severity] > _SEVERITY_ORDER[incident.severity]:
        louder = replace(again, severity=finding.severity, last_told_us=window.end_us, summary=finding.summary)
        return IncidentStep(incident=louder, transition=_build_transition(TransitionType.ESCALATED, finding, window))
    if window.end_us - incident.last_told_us >= policy.repeat_interval_us:
        repeated = replace(again, last_told_us=window.end_us)
        return IncidentStep(incident=repeated, transition=_build_transition(TransitionType.REPEATED, finding, window))
    return IncidentStep(incident=again, transition=None)


def _count_clean_window(incident: OpenIncident, window: Interval, policy: LifecyclePolicy) -> IncidentStep:
    if incident.clean_windows + 1 < policy.resolve_after:
        return IncidentStep(incident=replace(incident, clean_windows=incident.clean_windows + 1), transition=None)
    return IncidentStep(incident=None, transition=_build_resolution(incident, window, policy))


def _build_resolution(incident: OpenIncident, window: Interval, policy: LifecyclePolicy) -> Transition:
    minutes = (window.end_us - incident.opened_at_us) / 60e6
    return Transition(
        type=TransitionType.RESOLVED,
        kind=incident.kind,
        severity=incident.severity,
        window_start_us=window.start_us,
        at_us=window.end_us,
        summary=f"resolved after {policy.resolve_after} clean {policy.unit}, {minutes:.1f} min after it opened",
        details={"clean_windows": policy.resolve_after, "windows_fired": incident.windows_fired},
    )


def _build_transition(change: TransitionType, finding: Finding, window: Interval) -> Transition:
    return Transition(
        type=change,
        kind=finding.kind,
        severity=finding.severity,
        window_start_us=window.start_us,
        at_us=window.end_us,
        summary=finding.summary,
        details=finding.details,
    )
