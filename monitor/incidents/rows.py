"""From stored incidents and findings to the incident rows to store. Pure functions.

`lifecycle.py` defines the lifecycle of one incident. Here the finding of any test becomes the rows of its incident, its
transition and the channels to notify.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monitor.incidents.lifecycle import (
    Finding,
    Interval,
    Kind,
    LifecyclePolicy,
    OpenIncident,
    Severity,
    Transition,
    TransitionType,
    advance_incident,
    apply_quiet_windows,
)
from storage.control.records import IncidentRow, StoredIncident, TransitionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentPolicy:
    """The settings for incidents. `channels` returns the channels for a kind and a severity."""

    size_us: int
    lifecycle: LifecyclePolicy
    channels: Callable[[Kind, Severity], Sequence[str]]
    max_age_us: int


def update_incident(
    kind: Kind,
    finding: Finding | None,
    open_incidents: Sequence[StoredIncident],
    window: Interval,
    rule: IncidentPolicy,
    *,
    now_us: int,
    quiet_since_us: int | None = None,
) -> list[IncidentRow]:
    """Return the rows that a window writes for the stream's incident of one kind.

    Args:
        kind: The kind.
        finding: Finding of the test in the window, or None.
        open_incidents: Open incidents of the stream, of all kinds.
        window: The window, or another interval that was judged as a whole.
        rule: The settings for incidents.
        now_us: Wall-clock time. It only decides which notifications are too old.
        quiet_since_us: End of the last judged window, if windows without events count as clean.
    """
    stored = next((incident for incident in open_incidents if incident.kind == kind), None)
    rows = []
    incident = None if stored is None else _load_incident(stored)
    if stored is not None and incident is not None and quiet_since_us is not None:
        quiet = (window.start_us - quiet_since_us) // rule.size_us
        step = apply_quiet_windows(incident, max(quiet, 0), rule.size_us, quiet_since_us, rule.lifecycle)
        if step.transition is not None:
            rows.append(_resolved_row(stored, incident, step.transition, rule, now_us))
            stored = None
        incident = step.incident
    step = advance_incident(kind, incident, finding, window, rule.lifecycle)
    if step.incident is not None:
        rows.append(_open_row(stored, step.incident, step.transition, rule, now_us))
    elif incident is not None and stored is not None and step.transition is not None:
        rows.append(_resolved_row(stored, incident, step.transition, rule, now_us))
    return rows


def withdraw_incident(
    stored: StoredIncident,
    why: str,
    at: Interval,
    rule: IncidentPolicy,
    *,
    now_us: int,
    details: Mapping[str, Any] | None = None,
) -> IncidentRow:
    """Return the row that ends an incident for another reason than clean windows.

    Args:
        stored: The incident.
        why: The reason as text. It begins with a past participle, such as "withdrawn".
        at: The window or the moment of event time at which the incident ends.
        rule: The settings for incidents.
        now_us: Wall-clock time. It only decides which notifications are too old.
        details: Details to store with the transition.
    """
    incident = _load_incident(stored)
    transition = Transition(
        type=TransitionType.RESOLVED,
        kind=incident.kind,
        severity=incident.severity,
        window_start_us=at.start_us,
        at_us=at.end_us,
        summary=why,
        details={"windows_fired": incident.windows_fired, **(details or {})},
    )
    return replace(_resolved_row(stored, incident, transition, rule, now_us), clean_windows=incident.clean_windows)


def _load_incident(stored: StoredIncident) -> OpenIncident:
    return OpenIncident(
        kind=Kind(stored.kind),
        severity=Severity(stored.severity),
        window_start_us=stored.window_start_us,
        opened_at_us=stored.opened_at_us,
        last_told_us=stored.last_told_us,
        clean_windows=stored.clean_windows,
        windows_fired=stored.windows_fired,
        summary=stored.summary,
    )


def _open_row(
    stored: StoredIncident | None,
    incident: OpenIncident,
    transition: Transition | None,
    rule: IncidentPolicy,
    now_us: int,
) -> IncidentRow:
    return IncidentRow(
        id=None if stored is None else stored.id,
        kind=incident.kind.value,
        severity=incident.severity.value,
        status="open",
        window_start_us=incident.window_start_us,
        opened_at_us=incident.opened_at_us,
        last_told_us=incident.last_told_us,
        clean_windows=incident.clean_windows,
        windows_fired=incident.windows_fired,
        summary=incident.summary,
        details=_merge_details(stored, transition),
        transition=None if transition is None else _transition_row(transition, rule, now_us),
    )


def _resolved_row(
    stored: StoredIncident, incident: OpenIncident, transition: Transition, rule: IncidentPolicy, now_us: int
) -> IncidentRow:
    return IncidentRow(
        id=stored.id,
        kind=stored.kind,
        severity=stored.severity,
        status="resolved",
        window_start_us=stored.window_start_us,
        opened_at_us=stored.opened_at_us,
        last_told_us=incident.last_told_us,
        clean_windows=rule.lifecycle.resolve_after,
        windows_fired=incident.windows_fired,
        summary=stored.summary,
        details=_merge_details(stored, transition),
        resolved_at_us=transition.at_us,
        transition=_transition_row(transition, rule, now_us),
    )


def _merge_details(stored: StoredIncident | None, transition: Transition | None) -> Mapping[str, Any]:
    """Return the details of the incident by transition type, the latest transition of each type."""
    before = {} if stored is None else dict(stored.details)
    return before if transition is None else before | {transition.type.value: transition.details}


def _transition_row(transition: Transition, rule: IncidentPolicy, now_us: int) -> TransitionRow:
    channels = ["log", *(c for c in rule.channels(transition.kind, transition.severity) if c != "log")]
    too_old = now_us - transition.at_us > rule.max_age_us
    return TransitionRow(
        transition=transition.type.value,
        window_start_us=transition.window_start_us,
        at_us=transition.at_us,
        summary=transition.summary,
        details=transition.details,
        channels=channels,
        skipped_channels=[channel for channel in channels if channel != "log"] if too_old else [],
    )
