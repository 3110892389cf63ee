"""The panels of an incident page, each with its own query and its own error."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from config.errors import ConfigError
from config.settings import Settings
from config.stream_rules import StreamRules
from config.time_format import DAY_US
from monitor.control_plane.kept_look_backs import KeptLookBacks
from monitor.control_plane.preview import VerbPreview
from monitor.daemon.verbs import preview_configured_verb, read_newest_rules
from monitor.incidents.verb_plan import VerbRequest
from monitor.incidents.verbs import Verb
from monitor.server.kept_results import KeptResults
from monitor.server.pages.incident_answer import answer_incident, explain_tests, find_numbers
from monitor.server.pages.incident_decide import build_choice, build_key_choices, list_verbs, preview_key
from monitor.server.pages.incident_facts import IncidentFacts
from monitor.server.pages.incident_mutes import IncidentMutes, build_mutes
from monitor.server.pages.incident_sql import incident_sql
from monitor.server.pages.incident_tables import (
    build_drift,
    build_events,
    build_facts,
    build_rows,
    build_whose,
    tabulate_drift,
    tabulate_events,
    tabulate_keys,
)
from monitor.server.pages.incident_timeline import build_timeline, find_due, find_repeat, tabulate_timeline
from monitor.server.pages.incident_why import build_why, tabulate_attribution
from monitor.server.pages.panels import Panel, PanelTable, read_panel
from storage.control.mutes import MuteStore
from storage.queries.dead_letter_reasons import DeadLetterGroup, read_dead_letter_reasons
from storage.queries.similar_incidents import SimilarIncident, read_similar_incidents

_LISTS = ("ranges", "partitions")
"""Names of lists of objects in the details of incidents that are shown as tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageReader:
    """Reads the panels of one incident.

    Attributes:
        facts: The facts of the incident.
        settings: All settings, for the rules of its stream.
        previews: Kept previews.
        look_backs: Kept look-backs, for previews.
        who: Name of the person.
    """

    facts: IncidentFacts
    settings: Settings
    previews: KeptResults[VerbPreview]
    look_backs: KeptLookBacks
    who: str

    def read(self, wanted: str | None = None) -> dict[str, Panel[Any]]:
        """Return the panels of the incident's kind in their order, or only the wanted one."""
        facts = self.facts
        end_us = (
            facts.windows[-1].end_us if facts.windows else max(facts.report.opened_at_us, facts.report.window_start_us)
        )
        sql = incident_sql(facts.report, facts.report.window_start_us, end_us)
        found = {}
        for name, (read, table) in self._sources().items():
            if wanted in (None, name):
                found[name] = read_panel(name, read, sql=sql.get(name), table=table)
        return {name: panel for name, panel in found.items() if panel.error or panel.content is not None}

    def _sources(self) -> Mapping[str, tuple[Callable[[], Any], Callable[[Any], PanelTable | None] | None]]:
        facts = self.facts
        numbers = find_numbers(facts.report)
        return {
            "answer": (self._read_answer, None),
            "why": (self._read_why, lambda _: self._tabulate_why()),
            "drift": (lambda: build_drift(numbers) or None, lambda _: tabulate_drift(numbers)),
            "rows": (self._read_rows, lambda table: table),
            "reasons": (self._read_reasons, _tabulate_reasons),
            "decide": (self._read_choices, None),
            "mutes": (self._read_mutes, None),
            "whose": (
                lambda: build_whose(numbers) if facts.has_events else None,
                lambda _: tabulate_keys(numbers) if facts.has_events else None,
            ),
            "similar": (self._read_similar, _tabulate_similar),
            "timeline": (self._read_timeline, lambda _: tabulate_timeline(build_timeline(facts.report))),
            "events": (self._read_events, lambda _: tabulate_events(facts.outliers.outliers)),
            "tests": (lambda: explain_tests(facts.report, facts.now_us), lambda _: _tabulate_facts(numbers)),
        }

    def _read_answer(self) -> Any:
        attribution = None
        if self.facts.has_events:
            # The sentences stand without the model; the panel of the attribution says why it cannot be read.
            attribution = read_panel("attribution", lambda: self.facts.attribution).content
        return answer_incident(self.facts.report, self.facts.windows, attribution, self.facts.now_us)

    def _read_why(self) -> Any:
        attribution = self.facts.attribution
        return None if attribution is None else build_why(attribution, self.facts.outliers)

    def _tabulate_why(self) -> PanelTable | None:
        attribution = self.facts.attribution
        return None if attribution is None else tabulate_attribution(attribution)

    def _read_events(self) -> Any:
        outliers = self.facts.outliers
        if not outliers.outliers:
            return None
        attribution = read_panel("attribution", lambda: self.facts.attribution).content
        return build_events(outliers.outliers, outliers.count, attribution, self._trace_url())

    def _read_rows(self) -> PanelTable | None:
        numbers = find_numbers(self.facts.report)
        return next((table for name in _LISTS if (table := build_rows(numbers, name)) is not None), None)

    def _read_reasons(self) -> Sequence[DeadLetterGroup] | None:
        if self.facts.report.kind != "dead_letters":
            return None
        recorded = [step.recorded_at_us for step in self.facts.report.transitions] or [self.facts.now_us]
        with self.facts.db.read() as connection:
            return read_dead_letter_reasons(
                connection,
                self.facts.verb_facts.stream_id,
                since_us=min(recorded) - DAY_US,
                until_us=max(recorded) + DAY_US,
            )

    def _read_similar(self) -> Sequence[SimilarIncident] | None:
        if not self.facts.has_events:
            return None
        with self.facts.db.read() as connection:
            return read_similar_incidents(connection, self.facts.report.id)

    def _read_timeline(self) -> Any:
        facts = self.facts
        return [*build_timeline(facts.report), *find_due(facts.verb_facts.incident, self._rules(), facts.reached_us)]

    def _read_choices(self) -> Any:
        facts = self.facts.verb_facts
        rules = self._rules()
        due = None if rules is None or facts.incident.status != "open" else find_repeat(facts.incident, rules)
        of_incident = [build_choice(facts, verb, self._preview, self.facts.now_us, due) for verb in list_verbs(facts)]
        return [*of_incident, *build_key_choices(facts)]

    def _read_mutes(self) -> IncidentMutes:
        stream = self.settings.streams.get(self.facts.report.stream)
        return build_mutes(
            self.facts.verb_facts,
            MuteStore(self.facts.db).read_all(),
            now_us=self.facts.now_us,
            timezone="UTC" if stream is None else stream.timezone,
        )

    def _preview(self, verb: Verb) -> VerbPreview:
        facts = self.facts.verb_facts
        request = VerbRequest(verb=verb, who=self.who)
        return self.previews.get(
            preview_key(facts, verb, self.who),
            lambda: preview_configured_verb(self.facts.db, self.settings, facts, request, look_backs=self.look_backs),
        )

    def _trace_url(self) -> str | None:
        return None if self.settings.server is None else self.settings.server.trace_url

    def _rules(self) -> StreamRules | None:
        """Return the rules of the stream; None if it is no longer configured."""
        try:
            return read_newest_rules(self.facts.db, self.settings, self.facts.verb_facts)
        except ConfigError:
            return None


def _tabulate_facts(numbers: Mapping[str, Any]) -> PanelTable | None:
    rows = build_facts(numbers)
    return PanelTable(columns=("number at opening", "value"), rows=rows) if rows else None


def _tabulate_reasons(reasons: Sequence[DeadLetterGroup] | None) -> PanelTable | None:
    if not reasons:
        return None
    names = ("reason", "count", "topic", "partition", "source_offset", "detail", "payload")
    return PanelTable(columns=names, rows=[[getattr(each, name) for name in names] for each in reasons])


def _tabulate_similar(incidents: Sequence[SimilarIncident] | None) -> PanelTable | None:
    if not incidents:
        return None
    names = ("id", "opened_at_us", "severity", "status", "verdict", "similarity", "summary")
    return PanelTable(columns=names, rows=[[getattr(each, name) for name in names] for each in incidents])
