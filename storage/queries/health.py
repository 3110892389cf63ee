"""The stored facts about the health of streams, and the rows of the view `health`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.control.health import HELD_STATE
from storage.control.warm_up import WarmUpProgress
from storage.database.engine import Database
from storage.database.tables import (
    FOREVER_US,
    health_reports,
    incidents,
    jobs,
    leases,
    models,
    positions,
    sources,
    streams,
)

WELL_STATES = frozenset({"running", "warming_up", "ended", "starting", HELD_STATE})
"""The states of a component that need nobody's action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRow:
    """A row of the view: the state of a stream (component `stream`) or of a part with a problem."""

    stream: str | None
    component: str
    state: str
    since_us: int | None
    reason: str | None

    @property
    def is_well(self) -> bool:
        """Return whether the state needs nobody's action."""
        return self.state in WELL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """A report of one process on a component of a stream; see `storage.control.health.HealthReport`."""

    replica: str
    component: str
    state: str
    since_us: int
    reason: str | None
    reported_at_us: int
    lag_events: int | None
    waiting_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncidentFacts:
    """An open incident of a stream; `acknowledged_by` is None without a valid acknowledgement."""

    id: int
    kind: str
    severity: str
    opened_at_us: int
    summary: str
    acknowledged_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHealthFacts:
    """The stored facts about the health of one stream. Times of rows are on the database's clock.

    Attributes:
        stream: Name of the stream.
        reports: The reports of all processes, of any age.
        lease_holder: The holder of the lease on the control plane; None if nobody has taken it or it was released.
        lease_expires_us: The end of the lease, which may have passed.
        has_model: Whether there is an active model, so that the warm-up is over.
        warm_up: The progress of the warm-up as it was last reported; None when there is a model.
        owners: The process that has claimed each active partition whose source has not ended, by name of the partition;
            None before the first claim.
        is_ended: Whether all partitions have ended.
        last_commit_us: Time of the last commit.
        last_event_us: Latest stored event time.
        sealed_until_us: Event time before which all windows are sealed.
        incidents: The open incidents.
        failing_jobs: Names and errors of the failing jobs of this stream alone.
    """

    stream: str
    reports: Sequence[ReportFacts] = ()
    lease_holder: str | None = None
    lease_expires_us: int | None = None
    has_model: bool = False
    warm_up: WarmUpProgress | None = None
    owners: Mapping[str, str | None] = field(default_factory=dict)
    is_ended: bool = False
    last_commit_us: int | None = None
    last_event_us: int | None = None
    sealed_until_us: int | None = None
    incidents: Sequence[OpenIncidentFacts] = ()
    failing_jobs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthFacts:
    """The facts of all streams by name, read at `now_us` on the database's clock."""

    now_us: int
    streams: Mapping[str, StreamHealthFacts]


def read_health(db: Database) -> list[HealthRow]:
    """Return the health of all stored streams; of each stream, the row of the stream as a whole comes first."""
    view = sa.table("health", *(sa.column(name) for name in ("stream", "component", "state", "since_us", "reason")))
    is_part = sa.case((view.c.component == "stream", 0), else_=1)
    with db.read() as conn:
        rows = conn.execute(sa.select(view).order_by(view.c.stream, is_part, view.c.component))
        return [HealthRow(**row) for row in rows.mappings()]


def read_health_facts(db: Database, names: Collection[str] | None = None) -> HealthFacts:
    """Read the facts of the named streams, by default of all stored ones, in a fixed number of queries.

    A stream that is not stored yet has facts without rows.

    Raises:
        StorageUnavailable: The database does not answer.
    """
    query = sa.select(streams.c.id, streams.c.name, streams.c.sealed_until_us, streams.c.details)
    if names is not None:
        query = query.where(streams.c.name.in_(sorted(names)))
    with db.read() as conn:
        now_us = db.now_us(conn)
        rows = conn.execute(query.order_by(streams.c.name)).all()
        ids = [row.id for row in rows]
        reports, positions_by_id = _read_reports(conn, ids), _read_positions(conn, ids)
        held, open_incidents = _read_leases(conn), _read_open_incidents(conn, ids)
        with_model = set(conn.scalars(sa.select(models.c.stream_id).where(models.c.state == "active")))
        failing = conn.execute(sa.select(jobs.c.name, jobs.c.last_error).where(jobs.c.last_error.is_not(None))).all()
    found = {
        row.name: StreamHealthFacts(
            stream=row.name,
            reports=reports.get(row.id, ()),
            **held.get(f"control:{row.name}", {}),
            has_model=row.id in with_model,
            warm_up=None if row.id in with_model else WarmUpProgress.from_details(json.loads(row.details or "{}")),
            **positions_by_id.get(row.id, {}),
            sealed_until_us=row.sealed_until_us,
            incidents=open_incidents.get(row.id, ()),
            failing_jobs={job.name: job.last_error for job in failing if job.name.partition(" ")[2] == row.name},
        )
        for row in rows
    }
    absent = {name: StreamHealthFacts(stream=name) for name in sorted(set(names or ()) - found.keys())}
    return HealthFacts(now_us=now_us, streams={**found, **absent})


def _read_reports(conn: Connection, ids: Sequence[int]) -> dict[int, list[ReportFacts]]:
    rows = conn.execute(
        sa.select(health_reports)
        .where(health_reports.c.stream_id.in_(ids))
        .order_by(health_reports.c.stream_id, health_reports.c.component, health_reports.c.replica)
    )
    found: dict[int, list[ReportFacts]] = {}
    for row in rows.mappings():
        values = dict(row)
        found.setdefault(values.pop("stream_id"), []).append(ReportFacts(**values))
    return found


def _read_positions(conn: Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    columns = positions.c
    rows = conn.execute(
        sa.select(
            columns.stream_id,
            sources.c.topic,
            sources.c.partition,
            columns.owner,
            columns.idle_until_us,
            columns.committed_at_us,
            columns.last_event_us,
        )
        .join(sources, sources.c.id == columns.source_id)
        .where(columns.stream_id.in_(ids), columns.active)
        .order_by(columns.stream_id, sources.c.topic, sources.c.partition)
    )
    return {
        stream_id: _summarise_positions(list(of_stream))
        for stream_id, of_stream in itertools.groupby(rows, key=lambda row: row.stream_id)
    }


def _summarise_positions(rows: Sequence[Any]) -> dict[str, Any]:
    return {
        "owners": {f"{row.topic}[{row.partition}]": row.owner for row in rows if row.idle_until_us != FOREVER_US},
        "is_ended": all(row.idle_until_us == FOREVER_US for row in rows),
        "last_commit_us": max((row.committed_at_us for row in rows if row.committed_at_us is not None), default=None),
        "last_event_us": max((row.last_event_us for row in rows if row.last_event_us is not None), default=None),
    }


def _read_leases(conn: Connection) -> dict[str, dict[str, Any]]:
    return {
        row.name: {"lease_holder": row.holder, "lease_expires_us": row.expires_at_us}
        for row in conn.execute(sa.select(leases.c.name, leases.c.holder, leases.c.expires_at_us))
    }


def _read_open_incidents(conn: Connection, ids: Sequence[int]) -> dict[int, list[OpenIncidentFacts]]:
    columns = incidents.c
    rows = conn.execute(
        sa.select(
            columns.stream_id,
            columns.id,
            columns.kind,
            columns.severity,
            columns.opened_at_us,
            columns.summary,
            columns.acknowledged_by,
        )
        # A literal: SQLite uses a partial index only for its own condition.
        .where(columns.stream_id.in_(ids), columns.status == sa.literal_column("'open'"))
        .order_by(columns.stream_id, columns.opened_at_us, columns.id)
    )
    found: dict[int, list[OpenIncidentFacts]] = {}
    for row in rows.mappings():
        values = dict(row)
        found.setdefault(values.pop("stream_id"), []).append(OpenIncidentFacts(**values))
    return found
