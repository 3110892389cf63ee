"""The stored record of one incident, for `outrider incidents show`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database
from storage.database.tables import (
    incident_verbs,
    incidents,
    models,
    notifications,
    outliers,
    sources,
    streams,
    thresholds,
    transitions,
)

_MAX_OUTLIERS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedTransition:
    """One transition of the incident, with the notification state by channel."""

    transition: str
    at_us: int
    recorded_at_us: int
    summary: str
    notification_states: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedOutlier:
    """An outlier with its features and their means in the training data, where known."""

    topic: str
    partition: int
    source_offset: int
    event_time_us: int
    energy: float
    key: str | None
    event_id: str | None
    features: Mapping[str, float]
    training_means: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedVerb:
    """One verb of a person; `recorded_at_us` is its time on the database's clock."""

    verb: str
    who: str
    note: str | None
    recorded_at_us: int
    effects: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentReport:
    """One incident with its details, transitions, verbs and the outliers of its first window with the largest energies.

    `acknowledged_by` is None unless the open incident is acknowledged.
    """

    id: int
    stream: str
    kind: str
    severity: str
    status: str
    window_start_us: int
    opened_at_us: int
    resolved_at_us: int | None
    windows_fired: int
    summary: str
    details: Mapping[str, Any]
    transitions: Sequence[ReportedTransition]
    top_outliers: Sequence[ReportedOutlier]
    verdict: str | None = None
    acknowledged_by: str | None = None
    acknowledged_at_us: int | None = None
    verbs: Sequence[ReportedVerb] = ()


def load_incident_report(db: Database, incident_id: int) -> IncidentReport | None:
    """Return the report of an incident; None if the incident does not exist."""
    with db.read() as connection:
        row = connection.execute(
            sa.select(incidents, streams.c.name)
            .join(streams, streams.c.id == incidents.c.stream_id)
            .where(incidents.c.id == incident_id)
        ).one_or_none()
        if row is None:
            return None
        return IncidentReport(
            id=row.id,
            stream=row.name,
            kind=row.kind,
            severity=row.severity,
            status=row.status,
            window_start_us=row.window_start_us,
            opened_at_us=row.opened_at_us,
            resolved_at_us=row.resolved_at_us,
            windows_fired=row.windows_fired,
            summary=row.summary,
            details=json.loads(row.details or "{}"),
            verdict=row.verdict,
            acknowledged_by=row.acknowledged_by,
            acknowledged_at_us=row.acknowledged_at_us,
            transitions=_read_transitions(connection, incident_id),
            verbs=_read_verbs(connection, incident_id),
            # The first window ends when the incident opens.
            top_outliers=_read_top_outliers(connection, row.stream_id, row.window_start_us, row.opened_at_us),
        )


def _read_transitions(connection: Connection, incident_id: int) -> list[ReportedTransition]:
    states: dict[int, dict[str, str]] = {}
    for transition_id, channel, state in connection.execute(
        sa.select(notifications.c.transition_id, notifications.c.channel, notifications.c.state)
        .where(notifications.c.incident_id == incident_id)
        .order_by(notifications.c.channel)
    ):
        states.setdefault(transition_id, {})[channel] = state
    rows = connection.execute(
        sa.select(transitions).where(transitions.c.incident_id == incident_id).order_by(transitions.c.id)
    )
    return [
        ReportedTransition(
            transition=row.transition,
            at_us=row.at_us,
            recorded_at_us=row.recorded_at_us,
            summary=row.summary,
            notification_states=states.get(row.id, {}),
        )
        for row in rows
    ]


def _read_verbs(connection: Connection, incident_id: int) -> list[ReportedVerb]:
    rows = connection.execute(
        sa.select(incident_verbs).where(incident_verbs.c.incident_id == incident_id).order_by(incident_verbs.c.id)
    )
    return [
        ReportedVerb(
            verb=row.verb, who=row.who, note=row.note, recorded_at_us=row.at_us, effects=json.loads(row.effects)
        )
        for row in rows
    ]


def _read_top_outliers(connection: Connection, stream_id: int, from_us: int, until_us: int) -> list[ReportedOutlier]:
    rows = connection.execute(
        sa.select(outliers, sources.c.topic, sources.c.partition, models.c.feature_names, models.c.summary)
        .join(sources, sources.c.id == outliers.c.source_id)
        .join(thresholds, thresholds.c.id == outliers.c.threshold_id)
        .join(models, models.c.id == thresholds.c.model_id)
        .where(
            sources.c.stream_id == stream_id,
            outliers.c.event_time_us >= from_us,
            outliers.c.event_time_us < until_us,
        )
        .order_by(outliers.c.energy.desc(), outliers.c.source_id, outliers.c.source_offset)
        .limit(_MAX_OUTLIERS)
    )
    return [
        ReportedOutlier(
            topic=row.topic,
            partition=row.partition,
            source_offset=row.source_offset,
            event_time_us=row.event_time_us,
            energy=row.energy,
            key=row.key,
            event_id=row.event_id,
            features=json.loads(row.features),
            training_means=_parse_training_means(row.feature_names, row.summary),
        )
        for row in rows
    ]


def _parse_training_means(names: str, summary: str | None) -> dict[str, float]:
    means = json.loads(summary or "{}").get("feature_means")
    return {} if means is None else dict(zip(json.loads(names), means, strict=False))
