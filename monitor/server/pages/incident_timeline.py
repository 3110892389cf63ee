"""The timeline of an incident: transitions, messages and verbs of people, and what is due next. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from config.stream_rules import StreamRules
from monitor.server.pages.formats import iso, plural
from monitor.server.pages.panels import PanelTable
from storage.control.records import Incident
from storage.queries.incident_report import IncidentReport, ReportedTransition, ReportedVerb

_SIGNS = {
    "opened": None,
    "reopened": None,
    "escalated": "critical",
    "repeated": "due",
    "acknowledged": "acknowledged",
    "resolved": "resolved",
}
_VERBS = {
    "acknowledge": "acknowledged it",
    "accept": "accepted it as normal",
    "accept_key": "accepted the habit of a key as normal",
    "false_alarm": "called it a false alarm",
    "confirm": "confirmed it as a true alarm",
    "resolve": "resolved it",
    "reopen": "reopened it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One line: a time (event time, of a person's verb the time of the clock), a sign, and the text.

    Attributes:
        at_us: The time.
        is_clock_time: Whether the time is that of the wall clock.
        sign: The name of the sign.
        strong: The first words.
        text: The rest.
        is_due: Whether it is still to come.
    """

    at_us: int
    is_clock_time: bool
    sign: str
    strong: str
    text: str
    is_due: bool = False


def build_timeline(report: IncidentReport) -> list[TimelineEntry]:
    """Return what has happened, in the order in which it was recorded."""
    entries = [(verb.recorded_at_us, 0, [_of_verb(verb)]) for verb in report.verbs]
    entries += [(step.recorded_at_us, 1, list(_of_transition(step, report))) for step in report.transitions]
    return [line for _, _, lines in sorted(entries, key=lambda each: each[:2]) for line in lines]


def find_due(incident: Incident, rules: StreamRules | None, reached_us: int) -> list[TimelineEntry]:
    """Return what is due next on an open incident: a reminder or a repeat, and its end."""
    if incident.status != "open":
        return []
    if incident.acknowledged_until_us is not None:
        text = "if it still fires then; until then its messages are not repeated"
        return [_due(incident.acknowledged_until_us, "Reminder", text)]
    if rules is None:
        return []
    repeat = "if it still fires then and nobody has acknowledged it"
    entries = [_due(find_repeat(incident, rules), "Next repeat", repeat)]
    if incident.kind in {"spike", "slow_rise", "late", "dead_letters"}:
        left = max(rules.resolve_after - incident.clean_windows, 1)
        clean = plural(left, "clean window")
        entries.append(_due(reached_us, "Ends", f"after {clean} {'more' if incident.clean_windows else 'in a row'}"))
    return entries


def find_repeat(incident: Incident, rules: StreamRules) -> int:
    """Return the event time of the next repeated message."""
    return incident.last_told_us + rules.repeat_interval_us


def tabulate_timeline(entries: Sequence[TimelineEntry]) -> PanelTable:
    """Return the timeline as a table."""
    rows = [
        (iso(each.at_us), "clock" if each.is_clock_time else "event time", each.strong, each.text)
        for each in entries
        if not each.is_due
    ]
    return PanelTable(columns=("at (UTC)", "time", "what", "text"), rows=rows)


def _due(at_us: int, strong: str, text: str) -> TimelineEntry:
    return TimelineEntry(at_us=at_us, is_clock_time=False, sign="due", strong=strong, text=text, is_due=True)


def _of_transition(step: ReportedTransition, report: IncidentReport) -> Iterator[TimelineEntry]:
    sign = _SIGNS.get(step.transition) or report.severity
    yield TimelineEntry(
        at_us=step.at_us, is_clock_time=False, sign=sign, strong=step.transition.capitalize(), text=step.summary
    )
    told = [f"{channel} ({state})" for channel, state in step.notification_states.items()]
    if told:
        yield TimelineEntry(at_us=step.at_us, is_clock_time=False, sign="message", strong="Told", text=", ".join(told))


def _of_verb(verb: ReportedVerb) -> TimelineEntry:
    windows = verb.effects.get("windows")
    changed = f"; {plural(windows, 'window')} changed place in the calibration" if windows else ""
    note = f": “{verb.note}”" if verb.note else ""
    return TimelineEntry(
        at_us=verb.recorded_at_us,
        is_clock_time=True,
        sign="person",
        strong=verb.who,
        text=f"{_VERBS.get(verb.verb, verb.verb)}{note}{changed}",
    )
