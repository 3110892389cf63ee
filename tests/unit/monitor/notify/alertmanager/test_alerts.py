"""The alerts of an incident over its life: one per severity, active until it ends, and resolved for a while after."""

from monitor.notify.alertmanager.alerts import AlertSpan, alert_labels, alert_spans
from storage.queries.told_incidents import ToldTransition

MINUTE = 60_000_000
T0 = 1_767_225_600_000_000


def told(
    transition: str, minute: float, severity: str = "warning", *, told_minute: float | None = None
) -> ToldTransition:
    at_us = T0 + int(minute * MINUTE)
    told_at_us = at_us if told_minute is None else T0 + int(told_minute * MINUTE)
    return ToldTransition(transition=transition, severity=severity, recorded_at_us=at_us, told_at_us=told_at_us)


def spans_at(minute: float, *transitions: ToldTransition) -> list[tuple[str, float, float, bool]]:
    """Return the spans as severity, start and end in minutes, and whether they are resolved."""
    spans = alert_spans(transitions, now_us=T0 + int(minute * MINUTE), interval_us=MINUTE)
    return [_in_minutes(each) for each in spans]


def _in_minutes(span: AlertSpan) -> tuple[str, float, float, bool]:
    start, end = ((each - T0) / MINUTE for each in (span.starts_at_us, span.ends_at_us))
    return (span.severity, start, end, span.resolved)


def test_open_incident_ends_four_intervals_from_now() -> None:
    assert spans_at(100, told("opened", 0)) == [("warning", 0, 104, False)]


def test_repetition_and_acknowledgement_keep_the_start() -> None:
    assert spans_at(9, told("opened", 0), told("repeated", 5), told("acknowledged", 6)) == [("warning", 0, 13, False)]


def test_resolved_alert_is_sent_for_five_more_intervals() -> None:
    life = (told("opened", 0), told("resolved", 10))
    assert spans_at(10, *life) == [("warning", 0, 10, True)]
    assert spans_at(14.9, *life) == [("warning", 0, 10, True)]
    assert spans_at(15, *life) == []


def test_resolution_that_was_delivered_late_is_repeated_after_its_delivery() -> None:
    life = (told("opened", 0), told("resolved", 10, told_minute=70))
    assert spans_at(74, *life) == [("warning", 0, 10, True)]


def test_escalation_ends_the_alert_of_the_lower_severity_first() -> None:
    life = (told("opened", 0), told("escalated", 3, "critical"))
    assert spans_at(3, *life) == [("warning", 0, 3, True), ("critical", 3, 7, False)]
    assert spans_at(8, *life) == [("critical", 3, 12, False)]


def test_incident_that_opens_again_starts_a_new_alert() -> None:
    life = (told("opened", 0), told("resolved", 2), told("reopened", 3))
    assert spans_at(3, *life) == [("warning", 3, 7, False)]


def test_incident_that_opens_again_with_another_severity_keeps_the_ended_alert() -> None:
    life = (told("opened", 0, "critical"), told("resolved", 2, "critical"), told("reopened", 3))
    assert spans_at(3, *life) == [("critical", 0, 2, True), ("warning", 3, 7, False)]


def test_resolution_without_its_opening_is_sent_as_resolved() -> None:
    assert spans_at(1, told("resolved", 1)) == [("warning", 1, 1, True)]


def test_labels_identify_the_incident_and_nothing_else() -> None:
    labels = alert_labels(stream="s", kind="spike", severity="critical", incident_id=7, own={"team": "ops"})
    assert labels == {
        "alertname": "OutriderIncident",
        "stream": "s",
        "kind": "spike",
        "severity": "critical",
        "incident": "7",
        "team": "ops",
    }
