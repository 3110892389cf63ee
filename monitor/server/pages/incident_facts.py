"""The facts of one incident page, each read by the panel that needs it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from config.errors import ConfigError
from monitor.control_plane.model_cache import ModelCache
from monitor.incidents.lifecycle import Kind
from monitor.incidents.verbs import WALL_CLOCK_KINDS
from monitor.models.attribution import MAX_VALUES, Attribution, attribute
from monitor.server.kept_results import KeptResults
from storage.control.models import ModelStore
from storage.control.verbs import WINDOWED_KINDS, VerbFacts, VerbStore
from storage.database.engine import Database
from storage.queries.incident_report import IncidentReport, load_incident_report
from storage.queries.incident_windows import (
    IncidentOutliers,
    IncidentWindow,
    read_incident_outliers,
    read_incident_windows,
)

MAX_OUTLIERS = 2_000
"""The most outliers that an attribution is the mean of, those with the largest energies."""
_MIN_EXPLAINED = 10


class NoSuchIncident(ConfigError):  # noqa: N818 - names the state, as its siblings do
    """There is no incident with this number."""


@dataclass
class IncidentFacts:
    """Facts of an incident that are read when a panel asks for them, each once.

    Attributes:
        db: The database.
        report: The stored record of the incident.
        verb_facts: The incident and the state of its stream, for verbs.
        now_us: The time on the database's clock.
        attributions: Kept attributions.
    """

    db: Database
    report: IncidentReport
    verb_facts: VerbFacts
    now_us: int
    attributions: KeptResults[Attribution] = field(default_factory=lambda: KeptResults(1))

    @property
    def has_events(self) -> bool:
        """Return whether the incident is about windows with outliers."""
        return self.report.kind in WINDOWED_KINDS

    @property
    def reached_us(self) -> int:
        """Return the time that the stream has reached: of event time, or of the clock for kinds that follow it."""
        judged = self.verb_facts.last_judged_window
        if Kind(self.report.kind) in WALL_CLOCK_KINDS or judged is None:
            return self.now_us
        return max(judged[1], self.report.opened_at_us)

    @cached_property
    def windows(self) -> Sequence[IncidentWindow]:
        """The windows that fired, of a spike or a slow rise."""
        if not self.has_events:
            return ()
        report = self.report
        return read_incident_windows(
            self.db, self.verb_facts.stream_id, report.kind, report.window_start_us, report.resolved_at_us
        )

    @cached_property
    def outliers(self) -> IncidentOutliers:
        """The outliers of the windows that fired; before the first is judged, those since its begin."""
        if not self.has_events:
            return IncidentOutliers(outliers=(), count=0)
        end_us = self.windows[-1].end_us if self.windows else self.report.opened_at_us
        return read_incident_outliers(
            self.db, self.verb_facts.stream_id, self.report.window_start_us, end_us, limit=MAX_OUTLIERS
        )

    @cached_property
    def attribution(self) -> Attribution | None:
        """The attribution of the outliers' mean energy; None without outliers.

        Raises:
            ModelError: The model cannot explain its energies.
        """
        outliers = self.outliers.outliers
        if not outliers:
            return None
        model_id = outliers[0].model_id
        end_us = self.windows[-1].end_us if self.windows else None
        key = (self.report.id, model_id, end_us, self.outliers.count)
        return self.attributions.get(key, lambda: self._attribute(model_id))

    def _attribute(self, model_id: int) -> Attribution:
        model = ModelCache(self.report.stream, ModelStore(self.db)).load(model_id)
        limit = max(_MIN_EXPLAINED, MAX_VALUES // max(len(model.record.feature_names), 1))
        return attribute(model, [each.features for each in self.outliers.outliers if each.model_id == model_id][:limit])


def load_incident_facts(db: Database, incident_id: int, attributions: KeptResults[Attribution]) -> IncidentFacts:
    """Return the facts of an incident, with kept attributions.

    Raises:
        NoSuchIncident: There is no such incident.
    """
    report, facts = load_incident_report(db, incident_id), VerbStore(db).facts(incident_id)
    if report is None or facts is None:
        raise NoSuchIncident(f"there is no incident {incident_id}")
    return IncidentFacts(
        db=db,
        report=report,
        verb_facts=facts,
        now_us=db.now_us(),
        attributions=attributions,
    )
