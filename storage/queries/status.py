"""The status of each stream, read from SQL only, for `outrider status` and `outrider check`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.time_format import HOUR_US
from storage.control.models import ModelRecord, ModelStore
from storage.control.refits import RefitRow, RefitStore
from storage.control.settings import Replica, SettingsStore
from storage.control.thresholds import ThresholdRow, ThresholdStore
from storage.database.engine import Database
from storage.database.jobs import JobState, read_job_states
from storage.database.tables import (
    dead_letters,
    drift_marks,
    incidents,
    leases,
    notifications,
    sources,
    streams,
    thresholds,
    window_parts,
    windows,
)
from storage.ledger.ledger import Ledger
from storage.ledger.sources import SourceState

_TYPICAL_WINDOWS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncidentSummary:
    """Summary of an open incident."""

    id: int
    kind: str
    severity: str
    opened_at_us: int
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatus:
    """Status of one stream at `now_us` on the database's clock.

    `is_lease_held` is True if a daemon holds the stream's lease. `threshold` is in force for the latest event.
    `replicas` are the processes that run the stream, and `settings_hash` is that of the file of its settings.
    `events_per_window` is the median over the latest judged windows; None before the first. `drift_state` is the
    stored state of the drift step. `late_share_last_hour` is the share of late events among those that arrived in the
    last hour of event time.
    """

    now_us: int
    name: str
    window_size_us: int
    sealed_until_us: int | None
    is_lease_held: bool
    details: Mapping[str, Any]
    sources: Sequence[SourceState]
    model: ModelRecord | None
    threshold: ThresholdRow | None
    events_per_window: int | None
    open_incidents: Sequence[OpenIncidentSummary]
    dead_letters_last_hour: int
    late_share_last_hour: float | None
    notification_counts: Mapping[str, int]
    oldest_pending_us: int | None
    last_notification_error: str | None
    jobs: Sequence[JobState]
    drift_state: Mapping[str, Any]
    replicas: Sequence[Replica] = ()
    settings_hash: str | None = None
    last_refit: RefitRow | None = None

    @property
    def last_event_us(self) -> int | None:
        """Return the latest stored event time in microseconds."""
        return max((each.last_event_us for each in self.sources if each.last_event_us is not None), default=None)

    @property
    def last_commit_us(self) -> int | None:
        """Return the time of the last commit on the database's clock."""
        times = (each.committed_at_us for each in self.sources if each.committed_at_us is not None)
        return max(times, default=None)


def load_stream_ids(db: Database) -> dict[str, int]:
    """Return the ids of the stored streams by name, sorted by name."""
    with db.read() as connection:
        rows = connection.execute(sa.select(streams.c.name, streams.c.id).order_by(streams.c.name))
        return {row.name: row.id for row in rows}


def load_stream_status(db: Database, stream_id: int, *, lease: str) -> StreamStatus:
    """Return the status of a stream.

    Args:
        db: The database.
        stream_id: The stream.
        lease: Name of the lease that its daemon holds.
    """
    active_sources = Ledger(db).active_sources(stream_id)
    model = ModelStore(db).active(stream_id)
    store = SettingsStore(db)
    last_refit = RefitStore(db).last_refit(stream_id)
    replicas, settings_hash = store.live_replicas(stream_id), store.active_hash(stream_id)
    latest_us = max((each.last_event_us for each in active_sources if each.last_event_us is not None), default=None)
    with db.read() as connection:
        now_us = db.now_us(connection)
        row = connection.execute(sa.select(streams).where(streams.c.id == stream_id)).one()
        threshold_id = _find_threshold_in_force(connection, stream_id, latest_us)
        lease_holder = connection.scalar(
            sa.select(leases.c.holder).where(leases.c.name == lease, leases.c.expires_at_us > now_us)
        )
        open_incidents = _read_open_incidents(connection, stream_id)
        dead_letters_last_hour = _count_dead_letters(connection, stream_id, now_us - HOUR_US)
        late_share_last_hour = _read_late_share(connection, stream_id, (latest_us or 0) - HOUR_US)
        notification_counts = _count_notifications(connection, stream_id)
        oldest_pending_us = _read_oldest_pending(connection, stream_id)
        last_error = _read_last_notification_error(connection, stream_id)
        jobs = [job for job in read_job_states(connection) if _concerns_stream(job, row.name)]
        events_per_window = _typical_events_per_window(connection, stream_id)
        drift_state = connection.scalar(sa.select(drift_marks.c.state).where(drift_marks.c.stream_id == stream_id))
    return StreamStatus(
        now_us=now_us,
        name=row.name,
        window_size_us=row.window_size_us,
        sealed_until_us=row.sealed_until_us,
        is_lease_held=lease_holder is not None,
        details=json.loads(row.details or "{}"),
        sources=active_sources,
        model=model,
        threshold=None if threshold_id is None else ThresholdStore(db).threshold(threshold_id),
        events_per_window=events_per_window,
        open_incidents=open_incidents,
        dead_letters_last_hour=dead_letters_last_hour,
        late_share_last_hour=late_share_last_hour,
        notification_counts=notification_counts,
        oldest_pending_us=oldest_pending_us,
        last_notification_error=last_error,
        jobs=jobs,
        replicas=replicas,
        settings_hash=settings_hash,
        last_refit=last_refit,
        drift_state=json.loads(drift_state or "{}"),
    )


def _find_threshold_in_force(connection: Connection, stream_id: int, at_us: int | None) -> int | None:
    query = (
        sa.select(thresholds.c.id)
        .where(thresholds.c.stream_id == stream_id)
        .order_by(thresholds.c.valid_from_us.desc(), thresholds.c.id.desc())
        .limit(1)
    )
    if at_us is not None:
        query = query.where(thresholds.c.valid_from_us <= at_us)
    threshold_id: int | None = connection.scalar(query)
    return threshold_id


def _read_open_incidents(connection: Connection, stream_id: int) -> list[OpenIncidentSummary]:
    rows = connection.execute(
        sa.select(
            incidents.c.id,
            incidents.c.kind,
            incidents.c.severity,
            incidents.c.opened_at_us,
            incidents.c.summary,
        )
        .where(incidents.c.stream_id == stream_id, incidents.c.status == "open")
        .order_by(incidents.c.id)
    )
    return [OpenIncidentSummary(**row) for row in rows.mappings()]


def _count_dead_letters(connection: Connection, stream_id: int, since_us: int) -> int:
    source_ids = sa.select(sources.c.id).where(sources.c.stream_id == stream_id)
    count = connection.scalar(
        sa.select(sa.func.sum(dead_letters.c.count)).where(
            dead_letters.c.source_id.in_(source_ids), dead_letters.c.recorded_at_us >= since_us
        )
    )
    return int(count or 0)


def _read_late_share(connection: Connection, stream_id: int, since_us: int) -> float | None:
    """Return the share of late events among those that arrived since an event time; None without events.

    Windows that are not judged yet are included: a watermark that a wrong clock has moved leaves them open.
    """
    events = late = 0
    for table, time_us in ((windows, windows.c.window_start_us), (window_parts, window_parts.c.window_end_us)):
        counts = sa.select(sa.func.sum(table.c.events), sa.func.sum(table.c.late)).where(
            table.c.stream_id == stream_id, time_us > since_us
        )
        of_table = connection.execute(counts).one()
        events, late = events + int(of_table[0] or 0), late + int(of_table[1] or 0)
    return late / (events + late) if events + late else None


def _count_notifications(connection: Connection, stream_id: int) -> dict[str, int]:
    rows = connection.execute(
        sa.select(notifications.c.state, sa.func.count())
        .join(incidents, incidents.c.id == notifications.c.incident_id)
        .where(incidents.c.stream_id == stream_id)
        .group_by(notifications.c.state)
    )
    return {state: int(count) for state, count in rows}


def _read_oldest_pending(connection: Connection, stream_id: int) -> int | None:
    oldest: int | None = connection.scalar(
        sa.select(sa.func.min(notifications.c.created_at_us)).where(
            notifications.c.state == "pending", notifications.c.incident_id.in_(_select_incident_ids(stream_id))
        )
    )
    return oldest


def _read_last_notification_error(connection: Connection, stream_id: int) -> str | None:
    """Return the error of the latest undelivered notification as `channel: error`."""
    row = connection.execute(
        sa.select(notifications.c.channel, notifications.c.last_error)
        .where(
            notifications.c.last_error.is_not(None), notifications.c.incident_id.in_(_select_incident_ids(stream_id))
        )
        .order_by(notifications.c.transition_id.desc(), notifications.c.channel)
        .limit(1)
    ).first()
    return None if row is None else f"{row.channel}: {row.last_error}"


def _select_incident_ids(stream_id: int) -> sa.Select[Any]:
    return sa.select(incidents.c.id).where(incidents.c.stream_id == stream_id)


def _concerns_stream(job: JobState, stream: str) -> bool:
    """Return whether a job serves all streams or this one; a job of one stream is named `job stream`."""
    job_stream = job.name.partition(" ")[2]
    return job_stream in {"", stream}


def _typical_events_per_window(connection: Connection, stream_id: int) -> int | None:
    latest = connection.scalars(
        sa.select(windows.c.events)
        .where(windows.c.stream_id == stream_id, windows.c.judged_at_us.is_not(None))
        .order_by(windows.c.window_start_us.desc())
        .limit(_TYPICAL_WINDOWS)
    ).all()
    return round(statistics.median(latest)) if latest else None
