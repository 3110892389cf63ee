"""The incidents that a finding opens or changes, with the channels to notify. Pure functions.

`lifecycle.py` defines the lifecycle of one incident. Here it is applied to the open incidents of a stream.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from config.stream_rules import StreamRules
from monitor.incidents.lifecycle import (
    Finding,
    Interval,
    Kind,
    LifecyclePolicy,
    advance_incident,
    apply_quiet_windows,
    end_incident,
)
from storage.control.records import Incident


def update_incident(
    kind: Kind,
    finding: Finding | None,
    open_incidents: Sequence[Incident],
    window: Interval,
    rules: StreamRules,
    *,
    now_us: int,
    quiet_since_us: int | None = None,
    resolve_after: int | None = None,
    unit: str = "windows",
) -> list[Incident]:
    """Return the incidents of one kind that a window opens or changes.

    Args:
        kind: The kind.
        finding: Finding of the test in the window, or None.
        open_incidents: Open incidents of the stream, of all kinds.
        window: The window, or another interval that was judged as a whole.
        rules: The rules of the stream.
        now_us: Wall-clock time. It only decides which notifications are too old.
        quiet_since_us: End of the last judged window, if windows without events count as clean.
        resolve_after: Clean intervals that resolve the incident, if not those of the rules.
        unit: Plural of the judged intervals in texts.

    An incident that was opened again resolves only after `alerts.reopen_within` without a finding: a signal that comes
    and goes is told when it opens, resolves and opens again, and then once more when it has ended.
    """
    changed = []
    incident = next((each for each in open_incidents if each.kind == kind), None)
    if unit == "windows" and incident is not None and "reopened" in incident.details:
        if resolve_after is None:
            resolve_after = max(rules.resolve_after, -(-rules.reopen_within_us // rules.size_us))
        elif finding is None and _is_held_open(incident, window.end_us, rules):
            return []
    policy = LifecyclePolicy(
        resolve_after=rules.resolve_after if resolve_after is None else resolve_after,
        repeat_interval_us=rules.repeat_interval_us,
        unit=unit,
    )
    if incident is not None and quiet_since_us is not None:
        quiet = (window.start_us - quiet_since_us) // rules.size_us
        incident = apply_quiet_windows(incident, max(quiet, 0), rules.size_us, quiet_since_us, policy)
        if incident.status != "open":
            changed.append(incident)
            incident = None
    incident = advance_incident(incident, finding, window, policy)
    if incident is not None:
        changed.append(incident)
    return [route_transition(_allow_reopening(each, rules), rules, now_us) for each in changed]


def _is_held_open(incident: Incident, at_us: int, rules: StreamRules) -> bool:
    """Return whether an incident of the wall clock stays open because it was opened again a short time ago.

    Args:
        incident: The incident.
        at_us: The time of the look.
        rules: The rules of the stream.
    """
    return at_us - int(incident.details["reopened"]["reopened_at_us"]) < rules.reopen_within_us


def _allow_reopening(incident: Incident, rules: StreamRules) -> Incident:
    """Let a finding of the kind open an incident again that its clean windows have resolved."""
    if incident.status == "open" or incident.resolved_at_us is None:
        return incident
    return replace(incident, reopen_until_us=find_reopen_until(incident.resolved_at_us, rules))


def find_reopen_until(resolved_at_us: int, rules: StreamRules) -> int | None:
    """Return the event time before which a finding opens a resolved incident again; None: it stays resolved."""
    return resolved_at_us + rules.reopen_within_us if rules.reopen_within_us else None


def withdraw_incident(
    incident: Incident,
    why: str,
    at: Interval,
    rules: StreamRules,
    *,
    now_us: int,
    details: Mapping[str, Any] | None = None,
) -> Incident:
    """Return the incident, ended for another reason than clean windows.

    Args:
        incident: The incident.
        why: The reason as text. It begins with a past participle, such as "withdrawn".
        at: The window or the moment of event time at which the incident ends.
        rules: The rules of the stream.
        now_us: Wall-clock time. It only decides which notifications are too old.
        details: Details to store with the transition.
    """
    ended = end_incident(
        incident,
        at,
        summary=why,
        details={"windows_fired": incident.windows_fired, **(details or {})},
        clean_windows=incident.clean_windows,
    )
    return route_transition(ended, rules, now_us)


def route_transition(incident: Incident, rules: StreamRules, now_us: int) -> Incident:
    """Return the incident with the channels of its transition. Old transitions are only sent to the log.

    Args:
        incident: The incident.
        rules: The rules of the stream.
        now_us: Wall-clock time. It only decides which notifications are too old.
    """
    transition = incident.transition
    if transition is None:
        return incident
    routed = rules.channels(incident.kind, transition.severity)
    channels = ["log", *(channel for channel in routed if channel != "log")]
    is_old = now_us - transition.at_us > rules.max_age_us
    skipped = [channel for channel in channels if channel != "log"] if is_old else []
    told = replace(transition, channels=channels, skipped_channels=skipped, timezone=rules.timezone)
    return replace(incident, transition=told)
