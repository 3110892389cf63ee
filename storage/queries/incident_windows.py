"""The windows of an incident that fired, and their outliers with their features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.tables import models, outliers, sources, thresholds, windows

MAX_WINDOWS = 5_000
"""The most windows of an incident that are read, the first ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentWindow:
    """A window in which the test of the incident's kind fired; `expected` is the mean of a clean window."""

    start_us: int
    end_us: int
    events: int
    outliers: int
    expected: float | None
    p_value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOutlier:
    """An outlier with its features by name, the model that scored it, and its threshold."""

    topic: str
    partition: int
    source_offset: int
    event_time_us: int
    energy: float
    key: str | None
    event_id: str | None
    features: Mapping[str, float | None]
    model_id: int
    trace_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOutliers:
    """The outliers of an interval with the largest energies, and the number of all outliers in it.

    `threshold` is the newest threshold of the read ones, `lower` to `upper` its interval.
    """

    outliers: Sequence[IncidentOutlier]
    count: int
    threshold: float | None = None
    lower: float | None = None
    upper: float | None = None


def read_incident_windows(
    db: Database, stream_id: int, kind: str, since_us: int, until_us: int | None
) -> list[IncidentWindow]:
    """Return the windows that fired for a kind and start in [since, until), in order; None has no end."""
    columns = ("window_start_us", "window_end_us", "events", "outliers", "expected", "p_value", "details")
    conditions = [
        windows.c.stream_id == stream_id,
        windows.c.window_start_us >= since_us,
        windows.c.details.is_not(None),
    ]
    if until_us is not None:
        conditions.append(windows.c.window_start_us < until_us)
    query = sa.select(*(windows.c[name] for name in columns)).where(*conditions).order_by(windows.c.window_start_us)
    with db.read() as conn:
        rows = conn.execute(query.limit(MAX_WINDOWS)).all()
    return [
        IncidentWindow(
            start_us=row.window_start_us,
            end_us=row.window_end_us,
            events=row.events,
            outliers=row.outliers,
            expected=row.expected,
            p_value=row.p_value,
        )
        for row in rows
        if json.loads(row.details).get("fired") == kind
    ]


def read_incident_outliers(db: Database, stream_id: int, start_us: int, end_us: int, *, limit: int) -> IncidentOutliers:
    """Return the outliers with event times in [start, end), the largest energies first.

    Args:
        db: The database.
        stream_id: The stream.
        start_us: The first event time.
        end_us: The end of the event times.
        limit: The most outliers to return; all are counted.
    """
    in_interval = (
        sources.c.stream_id == stream_id,
        outliers.c.event_time_us >= start_us,
        outliers.c.event_time_us < end_us,
    )
    joined = outliers.join(sources, sources.c.id == outliers.c.source_id)
    query = (
        sa.select(
            sources.c.topic,
            sources.c.partition,
            outliers.c.source_offset,
            outliers.c.event_time_us,
            outliers.c.energy,
            outliers.c.key,
            outliers.c.event_id,
            outliers.c.features,
            outliers.c.trace_id,
            outliers.c.threshold_id,
            thresholds.c.model_id,
        )
        .select_from(joined.join(thresholds, thresholds.c.id == outliers.c.threshold_id))
        .where(*in_interval)
        .order_by(outliers.c.energy.desc(), outliers.c.source_id, outliers.c.source_offset)
        .limit(limit)
    )
    with db.read() as conn:
        rows = conn.execute(query).all()
        count = len(rows)
        if count == limit:
            count = conn.execute(sa.select(sa.func.count()).select_from(joined).where(*in_interval)).scalar_one()
        newest = max((row.threshold_id for row in rows), default=None)
        limits = sa.select(thresholds.c.threshold, thresholds.c.lower, thresholds.c.upper)
        threshold = conn.execute(limits.where(thresholds.c.id == newest)).one_or_none()
    return IncidentOutliers(
        outliers=[
            IncidentOutlier(
                topic=row.topic,
                partition=row.partition,
                source_offset=row.source_offset,
                event_time_us=row.event_time_us,
                energy=row.energy,
                key=row.key,
                event_id=row.event_id,
                features=json.loads(row.features),
                model_id=row.model_id,
                trace_id=row.trace_id,
            )
            for row in rows
        ],
        count=count,
        threshold=None if threshold is None else threshold.threshold,
        lower=None if threshold is None else threshold.lower,
        upper=None if threshold is None else threshold.upper,
    )


def read_feature_names(db: Database, model_id: int) -> list[str]:
    """Return the names of a model's features, in the order of the stream's fields."""
    with db.read() as conn:
        names: str = conn.execute(sa.select(models.c.feature_names).where(models.c.id == model_id)).scalar_one()
    return list(json.loads(names))
