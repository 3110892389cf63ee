"""The heading of an incident page: its name, its state in words, and who takes care of it. Pure."""

from dataclasses import dataclass

from monitor.incidents.verbs import state_of
from monitor.server.pages.formats import clock, duration, interval, words
from monitor.server.pages.incident_facts import IncidentFacts

VERDICT_WORDS = {"accepted": "normal now", "false_alarm": "false alarm", "confirmed": "true alarm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentHead:
    """The heading: the title, the state with its sign, and a sentence about the people."""

    title: str
    sign: str
    state: str
    people: str


def describe_head(facts: IncidentFacts) -> IncidentHead:
    """Return the heading of an incident."""
    report, incident = facts.report, facts.verb_facts.incident
    name = f"{report.stream}: {words(report.kind)}"
    verdict = "" if report.verdict is None else f"verdict: {VERDICT_WORDS.get(report.verdict, words(report.verdict))}"
    if report.resolved_at_us is not None:
        when = interval(report.window_start_us, report.resolved_at_us, beside_us=facts.now_us)
        lasted = duration(report.resolved_at_us - report.opened_at_us)
        return IncidentHead(
            title=f"{name}, {when}",
            sign="resolved",
            state=f"Resolved after {lasted}",
            people=verdict or "no verdict yet",
        )
    since = clock(report.window_start_us, beside_us=facts.now_us)
    lasted = duration(max(facts.reached_us - report.opened_at_us, 0))
    is_acknowledged = state_of(incident) == "acknowledged"
    people = f"acknowledged by {report.acknowledged_by}" if is_acknowledged else "nobody has acknowledged it"
    return IncidentHead(
        title=f"{name} since {since}",
        sign="acknowledged" if is_acknowledged else report.severity,
        state=f"{report.severity.capitalize()}, open {lasted}",
        people=f"{people}; {verdict}" if verdict else people,
    )
