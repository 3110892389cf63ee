"""A resolved incident that a new finding of its kind opens again. A pure function.

The stores of the database and of the back-test call it when they write a new incident: an incident that was resolved
less than `alerts.reopen_within` before is opened again in its place, so that a signal that comes and goes is one
incident.
"""

from __future__ import annotations

from dataclasses import replace

from storage.control.records import Incident


def reopen_incident(before: Incident, opened: Incident) -> Incident:
    """Return the incident `before` as opened again by a new incident of its kind, with the transition `reopened`.

    `details["reopened"]` holds the details of the finding, the start of its window and the number of times. A window
    that opened the incident before its end is counted once.

    Args:
        before: The incident, resolved or opened again early by the same window.
        opened: The new incident, with its transition `opened`.
    """
    transition = opened.transition
    assert transition is not None, "a new incident has the transition `opened`"
    past = before.details.get("reopened", {})
    is_same = past.get("window_start_us") == opened.window_start_us
    details = {
        **transition.details,
        "window_start_us": opened.window_start_us,
        "reopened_at_us": transition.at_us,
        "times": past.get("times", 0) + (not is_same),
    }
    return replace(
        before,
        status="open",
        severity=opened.severity,
        last_told_us=opened.last_told_us,
        clean_windows=0,
        windows_fired=before.windows_fired + (not is_same),
        summary=opened.summary,
        details={**before.details, "reopened": details},
        resolved_at_us=None,
        acknowledged_until_us=None,
        reopen_until_us=None,
        transition=replace(transition, type="reopened", details=details),
    )
