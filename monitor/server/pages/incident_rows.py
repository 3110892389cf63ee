"""Rows of incidents in lists. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from monitor.server.pages.formats import age, duration, iso, sentence, shorten_times, words
from monitor.server.pages.incident_head import VERDICT_WORDS
from monitor.server.pages.panels import PanelTable
from storage.queries.incident_list import ListedIncident


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow:
    """An incident in a list; `basis` is set if it can be acknowledged from there."""

    id: int
    stream: str
    kind: str
    sign: str
    state: str
    summary: str
    note: str
    opened_at_us: int
    age: str
    verdict: str
    basis: str | None


def build_incident_row(each: ListedIncident, now_us: int, basis: str | None) -> IncidentRow:
    """Return the row of an incident.

    Args:
        each: The incident.
        now_us: The present.
        basis: The basis for acknowledging it, or None.
    """
    is_open = each.status == "open"
    if not is_open:
        lasted = duration((each.resolved_at_us or each.opened_at_us) - each.opened_at_us)
        sign, state = "resolved", f"resolved after {lasted}"
    elif each.is_acknowledged:
        sign, state = "acknowledged", f"{each.severity}, acknowledged"
    else:
        sign, state = each.severity, f"{each.severity}, open"
    people = ""
    if is_open and each.is_acknowledged and each.acknowledged_by:
        people = f"acknowledged by {each.acknowledged_by}"
    note = f"{people}: “{each.note}”" if people and each.note else people or (f"“{each.note}”" if each.note else "")
    verdict = "no verdict" if each.verdict is None else VERDICT_WORDS.get(each.verdict, words(each.verdict))
    if is_open and each.verdict is None:
        verdict = "acknowledged" if each.is_acknowledged else "open"
    return IncidentRow(
        id=each.id,
        stream=each.stream,
        kind=words(each.kind),
        sign=sign,
        state=state,
        summary=sentence(shorten_times(each.summary, beside_us=now_us)),
        note=note,
        opened_at_us=each.opened_at_us,
        age=age(now_us - each.opened_at_us),
        verdict=verdict,
        basis=basis,
    )


def tabulate_incidents(incidents: Sequence[ListedIncident]) -> PanelTable:
    """Return incidents as a table."""
    rows = [
        [
            each.id,
            each.stream,
            each.kind,
            each.severity,
            each.status,
            iso(each.opened_at_us),
            None if each.resolved_at_us is None else iso(each.resolved_at_us),
            each.acknowledged_by,
            each.verdict,
            each.note,
            each.summary,
        ]
        for each in incidents
    ]
    times = ("opened (UTC)", "resolved (UTC)")
    columns = ("id", "stream", "kind", "severity", "status", *times, "acknowledged by", "verdict", "note", "summary")
    return PanelTable(columns=columns, rows=rows)
