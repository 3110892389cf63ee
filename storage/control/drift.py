"""Storage room: what drift is judged on and what it leaves: windows, frozen bases, verdicts, how far it has come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from storage.control.incidents import open_incidents, write_incident
from storage.control.records import IncidentRow, StoredIncident
from storage.control.windows import is_unjudged_part
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import drift_bases, drift_marks, drift_verdicts, streams, thresholds, window_parts, windows

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFacts:
    """How far drift is judged, and what there is to judge.

    `first_windows_us` has, by horizon, the start of the first window with events from the horizon's place that
    `until_us` lies in; None where there is none yet. `first_part_end_us` is the end of the first window that is still
    to be judged.
    """

    until_us: int | None
    rebased_from_us: int | None
    state: Mapping[str, Any]
    sealed_until_us: int | None
    first_part_end_us: int | None
    first_windows_us: Mapping[int, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftWindow:
    """A judged window with events; `fired` when its count of outliers did."""

    window_start_us: int
    events: int
    outliers: int
    fired: bool
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftBaseRow:
    """A frozen base; `season` when it is of differences against the days before."""

    horizon_us: int
    season: bool
    from_us: int
    until_us: int
    base: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftVerdictRow:
    """One statistic of one horizon, as drift_history shows it; `feature` is empty where it is the whole stream's."""

    horizon: str
    window_start_us: int
    window_end_us: int
    statistic: str
    feature: str
    before: float
    after: float
    effect: float
    z: float
    limit: float
    drifted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftUpdate:
    """All that judging drift up to a time writes."""

    until_us: int
    state: Mapping[str, Any]
    update_incidents: Callable[[Sequence[StoredIncident]], Sequence[IncidentRow]]
    bases: Sequence[DriftBaseRow] = ()
    verdicts: Sequence[DriftVerdictRow] = ()


class DriftStore:
    """Reads windows and writes verdicts; one step at a time per stream."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def drift_facts(self, stream_id: int, horizons_us: Sequence[int]) -> DriftFacts:
        """Return how far drift is judged, and what there is to judge."""
        first_part = (
            sa.select(sa.func.min(window_parts.c.window_end_us)).where(*is_unjudged_part(stream_id)).scalar_subquery()
        )
        query = (
            sa.select(
                drift_marks.c.until_us,
                drift_marks.c.rebased_from_us,
                drift_marks.c.state,
                streams.c.sealed_until_us,
                first_part.label("first_part_end_us"),
            )
            .select_from(streams.outerjoin(drift_marks, drift_marks.c.stream_id == streams.c.id))
            .where(streams.c.id == stream_id)
        )
        with self._db.read() as conn:
            row = conn.execute(query).one()
            firsts = {horizon: _read_first_window(conn, stream_id, row.until_us, horizon) for horizon in horizons_us}
        return DriftFacts(
            until_us=row.until_us,
            rebased_from_us=row.rebased_from_us,
            state=json.loads(row.state or "{}"),
            sealed_until_us=row.sealed_until_us,
            first_part_end_us=row.first_part_end_us,
            first_windows_us=firsts,
        )

    def find_model_before(self, stream_id: int, before_us: int) -> tuple[int, int] | None:
        """Return the model of the last window that starts before a time, and since when it has been the schedule's."""
        newest = (
            sa.select(thresholds.c.model_id, thresholds.c.valid_from_us)
            .join(windows, windows.c.threshold_id == thresholds.c.id)
            .where(*_judged_with_events(stream_id), windows.c.window_start_us < before_us)
            .order_by(windows.c.window_start_us.desc())
            .limit(1)
        )
        with self._db.read() as conn:
            row = conn.execute(newest).first()
            if row is None:
                return None
            of_stream = thresholds.c.stream_id == stream_id
            earlier = thresholds.c.valid_from_us <= row.valid_from_us
            other = conn.execute(
                sa.select(sa.func.max(thresholds.c.valid_from_us)).where(
                    of_stream, earlier, thresholds.c.model_id != row.model_id
                )
            ).scalar_one()
            own = [of_stream, earlier, thresholds.c.model_id == row.model_id]
            if other is not None:
                own.append(thresholds.c.valid_from_us > other)
            since = conn.execute(sa.select(sa.func.min(thresholds.c.valid_from_us)).where(*own)).scalar_one()
        return row.model_id, row.valid_from_us if since is None else since

    def windows(self, stream_id: int, model_id: int, from_us: int, until_us: int) -> Iterator[DriftWindow]:
        """Yield the judged windows of a model that start in [from, until), in order.

        Read in chunks by key, so that no long read holds back SQLite's write-ahead log.
        """
        while True:
            query = (
                sa.select(
                    windows.c.window_start_us,
                    windows.c.events,
                    windows.c.outliers,
                    windows.c.details,
                    windows.c.payload,
                )
                .join(thresholds, thresholds.c.id == windows.c.threshold_id)
                .where(
                    *_judged_with_events(stream_id),
                    windows.c.window_start_us >= from_us,
                    windows.c.window_start_us < until_us,
                    windows.c.payload.is_not(None),
                    thresholds.c.model_id == model_id,
                )
                .order_by(windows.c.window_start_us)
                .limit(_CHUNK)
            )
            with self._db.read() as conn:
                rows = conn.execute(query).all()
            for row in rows:
                yield DriftWindow(
                    window_start_us=row.window_start_us,
                    events=row.events,
                    outliers=row.outliers,
                    fired=row.details is not None,
                    payload=row.payload,
                )
            if len(rows) < _CHUNK:
                return
            from_us = rows[-1].window_start_us + 1

    def bases(self, stream_id: int, from_us: int) -> list[DriftBaseRow]:
        """Return the frozen bases that count from a time."""
        query = sa.select(drift_bases).where(drift_bases.c.stream_id == stream_id, drift_bases.c.from_us == from_us)
        with self._db.read() as conn:
            return [
                DriftBaseRow(
                    horizon_us=row.horizon_us,
                    season=row.season,
                    from_us=row.from_us,
                    until_us=row.until_us,
                    base=json.loads(row.base),
                )
                for row in conn.execute(query)
            ]

    def store_update(self, stream_id: int, stream: str, before_us: int | None, step: DriftUpdate) -> bool:
        """Store a step, with what it makes of the open incidents; False when another one was stored since `before_us`.

        One transaction under the stream's row, and unique keys besides: a second holder of the lease does no harm.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            if not _advance_mark(conn, stream_id, before_us, step):
                return False
            for base in step.bases:
                conn.execute(
                    drift_bases.insert().values(
                        stream_id=stream_id,
                        horizon_us=base.horizon_us,
                        season=base.season,
                        from_us=base.from_us,
                        until_us=base.until_us,
                        base=json.dumps(base.base),
                    )
                )
            if step.verdicts:
                now_us = self._db.now_us(conn)
                conn.execute(
                    drift_verdicts.insert(), [_verdict_values(stream_id, row, now_us) for row in step.verdicts]
                )
            for change in step.update_incidents(open_incidents(conn, stream_id)):
                write_incident(self._db, conn, stream_id, stream, change)
            return True


def rebase_drift(conn: sa.Connection, stream_id: int, from_us: int) -> None:
    """Let a new base begin at a time: what is seen from then on is the new normal.

    Called by whoever lets a person accept a drift, in the same transaction, holding the stream's row.
    """
    known = conn.execute(sa.select(drift_marks.c.until_us).where(drift_marks.c.stream_id == stream_id)).first()
    if known is None:
        conn.execute(drift_marks.insert().values(stream_id=stream_id, rebased_from_us=from_us))
    else:
        conn.execute(drift_marks.update().where(drift_marks.c.stream_id == stream_id).values(rebased_from_us=from_us))


def _judged_with_events(stream_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (windows.c.stream_id == stream_id, windows.c.judged_at_us.is_not(None), windows.c.events > 0)


def _read_first_window(conn: sa.Connection, stream_id: int, until_us: int | None, horizon_us: int) -> int | None:
    query = (
        sa.select(windows.c.window_start_us)
        .where(*_judged_with_events(stream_id))
        .order_by(windows.c.window_start_us)
        .limit(1)
    )
    if until_us is not None:
        query = query.where(windows.c.window_start_us >= until_us // horizon_us * horizon_us)
    return conn.execute(query).scalar_one_or_none()


def _advance_mark(conn: sa.Connection, stream_id: int, before_us: int | None, step: DriftUpdate) -> bool:
    of_stream = drift_marks.c.stream_id == stream_id
    known = conn.execute(sa.select(drift_marks.c.until_us).where(of_stream)).first()
    if (None if known is None else known.until_us) != before_us:
        return False
    values = {"until_us": step.until_us, "state": json.dumps(step.state)}
    if known is None:
        conn.execute(drift_marks.insert().values(stream_id=stream_id, **values))
    else:
        conn.execute(drift_marks.update().where(of_stream).values(**values))
    return True


def _verdict_values(stream_id: int, row: DriftVerdictRow, now_us: int) -> dict[str, Any]:
    return {
        "stream_id": stream_id,
        "horizon": row.horizon,
        "window_start_us": row.window_start_us,
        "window_end_us": row.window_end_us,
        "statistic": row.statistic,
        "feature": row.feature,
        "before": row.before,
        "after": row.after,
        "effect": row.effect,
        "z": row.z,
        "limit": row.limit,
        "drifted": row.drifted,
        "recorded_at_us": now_us,
    }
