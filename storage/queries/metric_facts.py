"""The stored facts behind the metrics of the daemon, of all its streams in a fixed number of queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database
from storage.database.jobs import JobState, read_job_states
from storage.database.tables import (
    calibrations,
    drift_verdicts,
    incident_verbs,
    incidents,
    leases,
    models,
    mutes,
    notifications,
    positions,
    sources,
    streams,
    thresholds,
    transitions,
    windows,
)

SERVED_STATES = ("active", "shadow")
"""States of models that score events."""

VERDICT_VERBS = ("accept", "false_alarm", "confirm")
"""Verbs by which a person gives a verdict on an incident."""

_LAST_STATISTICS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdFacts:
    """The threshold in force: value, interval, number of energies, and the event time of its computation."""

    value: float
    lower: float | None
    upper: float | None
    samples: int
    computed_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFacts:
    """The newest row of `calibration_history` of a stream."""

    state: str
    promised_per_week: float | None
    realised_per_week: float | None
    precision: float | None = None
    precision_lower: float | None = None
    precision_upper: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFacts:
    """The stored position of a partition, and when it was last moved (database's clock)."""

    topic: str
    partition: int
    committed_at_us: int | None
    last_event_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMetricFacts:
    """The stored facts of one stream.

    Attributes:
        threshold: The threshold in force for the latest event; None before the first model.
        calibration: The newest calibration; None before the first tick.
        expected_outliers: Expected number of outliers of the newest judged window; None before the first one.
        partitions: The active partitions.
        open_incidents: Number of open incidents by kind and severity.
        models: Version, kind and role of the models that score events.
        drift_ratios: The last |z| / limit of each statistic of drift, by horizon and statistic.
        lease_holder: The process that runs the control plane; None without one.
        verdicts: Number of the verdicts that persons have given, by verb.
    """

    threshold: ThresholdFacts | None
    calibration: CalibrationFacts | None
    expected_outliers: float | None
    partitions: Sequence[PartitionFacts]
    open_incidents: Mapping[tuple[str, str], int]
    models: Sequence[tuple[int, str, str]]
    drift_ratios: Mapping[tuple[str, str], float]
    lease_holder: str | None
    verdicts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFacts:
    """Number of the pending notifications of a channel, and the age of the oldest one."""

    pending: int
    oldest_pending_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFacts:
    """All stored facts at `now_us`, on the database's clock; `muted` is the number of messages that mutes held back."""

    now_us: int
    streams: Mapping[str, StreamMetricFacts]
    channels: Mapping[str, ChannelFacts]
    muted: int
    jobs: Sequence[JobState]
    store_bytes: int | None


def read_metric_facts(db: Database, names: Collection[str]) -> MetricFacts:
    """Read the facts of the named streams; a stream that is not stored yet is left out."""
    with db.read() as conn:
        now_us = db.now_us(conn)
        rows = conn.execute(sa.select(streams.c.id, streams.c.name).where(streams.c.name.in_(sorted(names))))
        ids = {row.id: row.name for row in rows}
        return MetricFacts(
            now_us=now_us,
            streams=_read_streams(conn, ids, now_us),
            channels=_read_channels(conn, now_us),
            muted=int(conn.scalar(sa.select(sa.func.sum(mutes.c.held_back))) or 0),
            jobs=read_job_states(conn),
            store_bytes=_read_store_bytes(conn, db.dialect),
        )


def _read_streams(conn: Connection, ids: Mapping[int, str], now_us: int) -> dict[str, StreamMetricFacts]:
    calibration = _read_calibrations(conn, ids)
    open_incidents = _count_open_incidents(conn, ids)
    served = _read_models(conn, ids)
    partitions = _read_partitions(conn, ids)
    holders = _read_holders(conn, now_us)
    drift = _read_drift(conn, ids)
    verdicts = _count_verdicts(conn, ids)
    found = {}
    for stream_id, name in ids.items():
        own = partitions.get(stream_id, [])
        latest_us = max((each.last_event_us for each in own if each.last_event_us is not None), default=None)
        found[name] = StreamMetricFacts(
            threshold=_read_threshold(conn, stream_id, latest_us),
            calibration=calibration.get(stream_id),
            expected_outliers=_read_expected(conn, stream_id),
            partitions=own,
            open_incidents=open_incidents.get(stream_id, {}),
            models=served.get(stream_id, []),
            drift_ratios=drift.get(stream_id, {}),
            lease_holder=holders.get(f"control:{name}"),
            verdicts=verdicts.get(stream_id, {}),
        )
    return found


def _read_threshold(conn: Connection, stream_id: int, at_us: int | None) -> ThresholdFacts | None:
    columns = thresholds.c
    query = (
        sa.select(columns.threshold, columns.lower, columns.upper, columns.n, columns.computed_at_us)
        .where(columns.stream_id == stream_id)
        .order_by(columns.valid_from_us.desc(), columns.id.desc())
        .limit(1)
    )
    row = conn.execute(query if at_us is None else query.where(columns.valid_from_us <= at_us)).first()
    if row is None:
        return None
    return ThresholdFacts(
        value=row.threshold, lower=row.lower, upper=row.upper, samples=row.n, computed_at_us=row.computed_at_us
    )


def _read_expected(conn: Connection, stream_id: int) -> float | None:
    expected: float | None = conn.scalar(
        sa.select(windows.c.expected)
        .where(windows.c.stream_id == stream_id, windows.c.judged_at_us.is_not(None))
        .order_by(windows.c.window_start_us.desc())
        .limit(1)
    )
    return expected


def _read_calibrations(conn: Connection, ids: Mapping[int, str]) -> dict[int, CalibrationFacts]:
    # The largest time of each stream by the primary key; a GROUP BY would read all rows.
    last_us = sa.select(sa.func.max(calibrations.c.at_us)).where(calibrations.c.stream_id == streams.c.id)
    newest = (
        sa.select(streams.c.id.label("stream_id"), last_us.scalar_subquery().label("at_us"))
        .where(streams.c.id.in_(ids))
        .subquery()
    )
    rows = conn.execute(
        sa.select(calibrations).join(
            newest, (calibrations.c.stream_id == newest.c.stream_id) & (calibrations.c.at_us == newest.c.at_us)
        )
    )
    return {
        row.stream_id: CalibrationFacts(
            state=row.state,
            promised_per_week=row.promised_per_week,
            realised_per_week=row.realised_per_week,
            precision=row.precision,
            precision_lower=row.precision_lower,
            precision_upper=row.precision_upper,
        )
        for row in rows
    }


def _count_open_incidents(conn: Connection, ids: Mapping[int, str]) -> dict[int, dict[tuple[str, str], int]]:
    rows = conn.execute(
        sa.select(incidents.c.stream_id, incidents.c.kind, incidents.c.severity, sa.func.count().label("n"))
        .where(incidents.c.stream_id.in_(ids), incidents.c.status == sa.literal_column("'open'"))
        .group_by(incidents.c.stream_id, incidents.c.kind, incidents.c.severity)
    )
    found: dict[int, dict[tuple[str, str], int]] = {}
    for row in rows:
        found.setdefault(row.stream_id, {})[row.kind, row.severity] = row.n
    return found


def _count_verdicts(conn: Connection, ids: Mapping[int, str]) -> dict[int, dict[str, int]]:
    rows = conn.execute(
        sa.select(incident_verbs.c.stream_id, incident_verbs.c.verb, sa.func.count().label("n"))
        .where(incident_verbs.c.stream_id.in_(ids), incident_verbs.c.verb.in_(VERDICT_VERBS))
        .group_by(incident_verbs.c.stream_id, incident_verbs.c.verb)
    )
    found: dict[int, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row.stream_id, {})[row.verb] = row.n
    return found


def _read_models(conn: Connection, ids: Mapping[int, str]) -> dict[int, list[tuple[int, str, str]]]:
    rows = conn.execute(
        sa.select(models.c.stream_id, models.c.version, models.c.kind, models.c.state)
        .where(models.c.stream_id.in_(ids), models.c.state.in_(SERVED_STATES))
        .order_by(models.c.version)
    )
    found: dict[int, list[tuple[int, str, str]]] = {}
    for row in rows:
        found.setdefault(row.stream_id, []).append((row.version, row.kind, row.state))
    return found


def _read_partitions(conn: Connection, ids: Mapping[int, str]) -> dict[int, list[PartitionFacts]]:
    rows = conn.execute(
        sa.select(
            positions.c.stream_id,
            sources.c.topic,
            sources.c.partition,
            positions.c.committed_at_us,
            positions.c.last_event_us,
        )
        .join(sources, sources.c.id == positions.c.source_id)
        .where(positions.c.stream_id.in_(ids), positions.c.active)
        .order_by(sources.c.topic, sources.c.partition)
    )
    found: dict[int, list[PartitionFacts]] = {}
    for row in rows:
        found.setdefault(row.stream_id, []).append(
            PartitionFacts(
                topic=row.topic,
                partition=row.partition,
                committed_at_us=row.committed_at_us,
                last_event_us=row.last_event_us,
            )
        )
    return found


def _read_holders(conn: Connection, now_us: int) -> dict[str, str]:
    rows = conn.execute(sa.select(leases.c.name, leases.c.holder).where(leases.c.expires_at_us > now_us))
    return {row.name: row.holder for row in rows}


def _read_drift(conn: Connection, ids: Mapping[int, str]) -> dict[int, dict[tuple[str, str], float]]:
    """Return the largest |z| / limit of the newest verdict of each horizon, by horizon and statistic.

    Only the last `_LAST_STATISTICS` rows of all streams are read.
    """
    verdicts = drift_verdicts.c
    is_recent = verdicts.id > sa.select(sa.func.max(verdicts.id) - _LAST_STATISTICS).scalar_subquery()
    newest = (
        sa.select(verdicts.stream_id, verdicts.horizon, sa.func.max(verdicts.window_end_us).label("end_us"))
        .where(is_recent, verdicts.stream_id.in_(ids))
        .group_by(verdicts.stream_id, verdicts.horizon)
        .subquery()
    )
    rows = conn.execute(
        sa.select(verdicts.stream_id, verdicts.horizon, verdicts.statistic, verdicts.z, verdicts.limit)
        .join(
            newest,
            (verdicts.stream_id == newest.c.stream_id)
            & (verdicts.horizon == newest.c.horizon)
            & (verdicts.window_end_us == newest.c.end_us),
        )
        .where(is_recent, verdicts.z.is_not(None), verdicts.limit > 0)
    )
    found: dict[int, dict[tuple[str, str], float]] = {}
    for row in rows:
        own, key = found.setdefault(row.stream_id, {}), (row.horizon, row.statistic)
        own[key] = max(own.get(key, 0.0), abs(row.z) / row.limit)
    return found


def _read_channels(conn: Connection, now_us: int) -> dict[str, ChannelFacts]:
    rows = conn.execute(
        sa.select(
            notifications.c.channel,
            sa.func.count().label("n"),
            sa.func.min(transitions.c.recorded_at_us).label("since_us"),
        )
        .join(transitions, transitions.c.id == notifications.c.transition_id)
        # A literal, as for open incidents: SQLite uses a partial index only for its own condition.
        .where(notifications.c.state == sa.literal_column("'pending'"))
        .group_by(notifications.c.channel)
    )
    return {
        row.channel: ChannelFacts(pending=row.n, oldest_pending_s=max(0.0, (now_us - row.since_us) / 1e6))
        for row in rows
    }


def _read_store_bytes(conn: Connection, dialect: str) -> int | None:
    if dialect == "postgresql":
        size: int | None = conn.scalar(sa.text("SELECT pg_database_size(current_database())"))
        return size
    pages = conn.scalar(sa.text("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"))
    return None if pages is None else int(pages)
