"""The states that each process reports of its streams, for the view `health` and the incidents of kind `stopped`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from storage.control.incidents import open_incidents
from storage.control.records import Incident
from storage.database.engine import Database
from storage.database.tables import HEALTH_CLOCK_TOLERANCE_S, HEALTH_REPORT_TTL_S, health_reports, streams

STREAM_COMPONENT = "stream"
"""The component of the row that describes a stream as a whole."""

HELD_STATE = "held"
"""The state of a partition that has records and does not move."""

_DELETE_AFTER_US = 3_600_000_000
"""Age at which the rows of a process that was killed are deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """The state of a component of a stream in one process. Components other than the stream are reported as problems.

    Attributes:
        component: `stream`, or the part with a problem.
        state: The state, as in the view `health`.
        since_us: Time since which the state holds, on the database's clock.
        reason: The reason in words; None if there is nothing to explain.
        lag_events: Of the stream: offsets between its stored positions and the ends of the logs; None if unknown.
        waiting_s: Of the stream: seconds that its oldest waiting record has waited; None if unknown.
    """

    component: str
    state: str
    since_us: int
    reason: str | None = None
    lag_events: int | None = None
    waiting_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """The stored facts that decide on the incident `stopped` of a stream.

    Attributes:
        open_incidents: The open incidents of the stream, of all kinds.
        other_states: The states of the stream in other processes, from reports that are not expired.
    """

    open_incidents: Sequence[Incident]
    other_states: frozenset[str]


class HealthStore:
    """Writes the reports of one process, and reads the facts for its decisions."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find_streams(self, names: Collection[str]) -> dict[str, int]:
        """Return the ids of the streams that are stored, by name."""
        query = sa.select(streams.c.name, streams.c.id).where(streams.c.name.in_(sorted(names)))
        with self._db.read() as conn:
            return {row.name: row.id for row in conn.execute(query)}

    def replace_reports(self, replica: str, reports: Mapping[int, Sequence[HealthReport]]) -> None:
        """Replace the reports of a process by new ones, by stream id; delete those of processes that are long dead."""
        with self._db.write() as conn:
            now_us = self._db.now_us(conn)
            is_dead = health_reports.c.reported_at_us < now_us - _DELETE_AFTER_US
            conn.execute(health_reports.delete().where(sa.or_(health_reports.c.replica == replica, is_dead)))
            rows = [
                {
                    "stream_id": stream_id,
                    "replica": replica,
                    "component": each.component,
                    "state": each.state,
                    "since_us": each.since_us,
                    "reason": each.reason,
                    "reported_at_us": now_us,
                    "lag_events": each.lag_events,
                    "waiting_s": each.waiting_s,
                }
                for stream_id, of_stream in reports.items()
                for each in of_stream
            ]
            if rows:
                conn.execute(health_reports.insert(), rows)

    def held_partitions(self, stream_id: int, replica: str) -> list[HealthReport]:
        """Return the reports of held partitions by other processes, of reports that are not expired."""
        table = health_reports.c
        with self._db.read() as conn:
            rows = conn.execute(
                sa.select(table.component, table.state, table.since_us, table.reason).where(
                    table.stream_id == stream_id,
                    table.state == HELD_STATE,
                    table.replica != replica,
                    _is_fresh(self._db.now_us(conn)),
                )
            )
            return [HealthReport(**row) for row in rows.mappings()]

    def stream_facts(self, stream_id: int, replica: str) -> StreamFacts:
        """Return the open incidents of a stream, and its states in other processes."""
        with self._db.read() as conn:
            fresh = _is_fresh(self._db.now_us(conn))
            states = conn.scalars(
                sa.select(health_reports.c.state).where(
                    health_reports.c.stream_id == stream_id,
                    health_reports.c.component == STREAM_COMPONENT,
                    health_reports.c.replica != replica,
                    fresh,
                )
            )
            return StreamFacts(other_states=frozenset(states), open_incidents=open_incidents(conn, stream_id))


def _is_fresh(now_us: int) -> sa.ColumnElement[bool]:
    return health_reports.c.reported_at_us.between(
        now_us - HEALTH_REPORT_TTL_S * 1_000_000 + 1, now_us + HEALTH_CLOCK_TOLERANCE_S * 1_000_000
    )
