"""Reads and writes of the drift step: judged windows, frozen baselines, verdicts and the progress mark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa

from storage.control.drift_cells import (
    DriftCellsRow,
    FeatureSummaryRow,
    insert_cells,
    insert_summaries,
    read_base_summary,
)
from storage.control.incidents import open_incidents, write_incident
from storage.control.records import Incident
from storage.control.samples import StoredSample, read_spread_samples
from storage.control.window_facts import FIRST_UNJUDGED_END, STREAM_ID, judged_with_events
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import (
    drift_bases,
    drift_days,
    drift_marks,
    drift_verdicts,
    models,
    streams,
    thresholds,
    windows,
)

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFacts:
    """Progress of the drift step and the windows that it can process next.

    Attributes:
        until_us: Drift is judged up to this event time; None before the first step.
        rebased_from_us: Start of the baseline that follows an accepted drift; None if there was none.
        state: State that the last step stored.
        sealed_until_us: The seal of the stream.
        first_part_end_us: End of the first window that is not judged yet.
        first_windows_us: By horizon, the start of the first window with events at or after the beginning of the
            horizon's interval that contains `until_us`; None if there is none yet.
        next_window_us: Start of the first window with events at or after `until_us`; None if there is none yet.
    """

    until_us: int | None
    rebased_from_us: int | None
    state: Mapping[str, Any]
    sealed_until_us: int | None
    first_part_end_us: int | None
    first_windows_us: Mapping[int, int | None]
    next_window_us: int | None
    settings_revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftModel:
    """The model of a window, and the start of its activation: it has been in force since then without interruption.

    `season` is the kind of the active season of the outlier rate, by the threshold of the window; None without one.
    """

    model_id: int
    activated_us: int
    season: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftWindow:
    """A judged window with events; `fired` is True if its outlier count fired."""

    window_start_us: int
    events: int
    outliers: int
    fired: bool
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftBaselineRow:
    """A frozen baseline of one horizon, of the horizons since `from_us`."""

    horizon_us: int
    from_us: int
    until_us: int
    baseline: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftDayRow:
    """The sums of the windows of one local day; `hours` is the number of its hours with events."""

    start_us: int
    end_us: int
    events: int
    outliers: int
    fired: bool
    hours: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDays:
    """New days since the start of a base. The store deletes those of other bases, and those before `keep_from_us`."""

    base_from_us: int
    keep_from_us: int
    rows: Sequence[DriftDayRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftVerdictRow:
    """One statistic of one horizon, as in `drift_history`; `feature` is empty for a statistic of the whole stream."""

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
    """Rows that one drift step writes.

    `update_incidents` maps the open incidents of the stream to the incident rows to write. `cells` holds all statistics
    of the verdicts, `summaries` the distributions of the features in training and in new baselines.
    """

    until_us: int
    state: Mapping[str, Any]
    update_incidents: Callable[[Sequence[Incident]], Sequence[Incident]]
    baselines: Sequence[DriftBaselineRow] = ()
    days: StoredDays | None = None
    verdicts: Sequence[DriftVerdictRow] = ()
    cells: Sequence[DriftCellsRow] = ()
    summaries: Sequence[FeatureSummaryRow] = ()


# Built once, because the control plane runs these statements for each judged window.
_DRIFT_FACTS = (
    sa.select(
        drift_marks.c.until_us,
        drift_marks.c.rebased_from_us,
        drift_marks.c.state,
        streams.c.sealed_until_us,
        streams.c.settings_revision,
        FIRST_UNJUDGED_END.scalar_subquery().label("first_part_end_us"),
    )
    .select_from(streams.outerjoin(drift_marks, drift_marks.c.stream_id == streams.c.id))
    .where(streams.c.id == STREAM_ID)
)
_FIRST_WINDOW = (
    sa.select(windows.c.window_start_us)
    .where(
        *judged_with_events(STREAM_ID),
        windows.c.window_start_us >= sa.bindparam("from_us", type_=sa.BigInteger),
    )
    .order_by(windows.c.window_start_us)
    .limit(1)
)


class DriftStore:
    """Reads judged windows and writes drift verdicts, one step at a time per stream."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def drift_facts(self, stream_id: int, horizons_us: Sequence[int]) -> DriftFacts:
        """Return the progress of the drift step and the windows that it can process next."""
        with self._db.read() as conn:
            row = conn.execute(_DRIFT_FACTS, {"stream_id": stream_id}).one()
            first_windows = {
                horizon: _read_first_window(conn, stream_id, row.until_us, horizon) for horizon in horizons_us
            }
            next_window_us = _read_first_window(conn, stream_id, row.until_us, 1)
        return DriftFacts(
            until_us=row.until_us,
            rebased_from_us=row.rebased_from_us,
            state=json.loads(row.state or "{}"),
            sealed_until_us=row.sealed_until_us,
            first_part_end_us=row.first_part_end_us,
            first_windows_us=first_windows,
            next_window_us=next_window_us,
            settings_revision=row.settings_revision,
        )

    def find_model_before(self, stream_id: int, before_us: int) -> DriftModel | None:
        """Return the model of the last window that starts before a time; None if there is no such window."""
        newest = (
            sa.select(thresholds.c.model_id, thresholds.c.valid_from_us, thresholds.c.details)
            .join(windows, windows.c.threshold_id == thresholds.c.id)
            .where(*judged_with_events(stream_id), windows.c.window_start_us < before_us)
            .order_by(windows.c.window_start_us.desc())
            .limit(1)
        )
        with self._db.read() as conn:
            row = conn.execute(newest).first()
            if row is None:
                return None
            since_us = _read_activation(conn, stream_id, row.model_id, row.valid_from_us)
        return DriftModel(
            model_id=row.model_id,
            activated_us=row.valid_from_us if since_us is None else since_us,
            season=season_kind(json.loads(row.details or "{}")),
        )

    def windows(self, stream_id: int, model_id: int, from_us: int, until_us: int) -> Iterator[DriftWindow]:
        """Yield the judged windows of a model that start in [from, until), in order.

        The windows are read in chunks by key: a long read transaction would keep SQLite's write-ahead log from being
        truncated.
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
                    *judged_with_events(stream_id),
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

    def baselines(self, stream_id: int, from_us: int) -> list[DriftBaselineRow]:
        """Return the frozen baselines that begin at or after `from_us`, in order."""
        query = (
            sa.select(drift_bases)
            .where(drift_bases.c.stream_id == stream_id, drift_bases.c.from_us >= from_us)
            .order_by(drift_bases.c.from_us, drift_bases.c.horizon_us)
        )
        with self._db.read() as conn:
            return [
                DriftBaselineRow(
                    horizon_us=row.horizon_us,
                    from_us=row.from_us,
                    until_us=row.until_us,
                    baseline=json.loads(row.base),
                )
                for row in conn.execute(query)
            ]

    def days(self, stream_id: int, base_from_us: int) -> list[DriftDayRow]:
        """Return the stored days since the start of a base, in order."""
        query = (
            sa.select(*(drift_days.c[field.name] for field in fields(DriftDayRow)))
            .where(drift_days.c.stream_id == stream_id, drift_days.c.base_from_us == base_from_us)
            .order_by(drift_days.c.start_us)
        )
        with self._db.read() as conn:
            return [DriftDayRow(**row) for row in conn.execute(query).mappings()]

    def spread_samples(self, stream_id: int, model_id: int, from_us: int, until_us: int) -> list[StoredSample]:
        """Return the samples of the windows of a model that start in [from, until), evenly spread."""
        with self._db.read() as conn:
            return read_spread_samples(conn, stream_id, model_id, from_us=from_us, until_us=until_us)

    def base_summary(self, model_id: int, horizon_us: int, from_us: int) -> FeatureSummaryRow | None:
        """Return the distributions of the features in a frozen baseline; None without them."""
        with self._db.read() as conn:
            return read_base_summary(conn, model_id, horizon_us, from_us)

    def store_update(self, stream_id: int, stream: str, before_us: int | None, update: DriftUpdate) -> bool:
        """Store a drift step and its incident rows; return False if another step was stored since `before_us`.

        The step is one transaction that locks the stream's row, and the rows have unique keys: a second holder of the
        lease does no harm.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            if not _advance_mark(conn, stream_id, before_us, update):
                return False
            for baseline in update.baselines:
                conn.execute(
                    drift_bases.insert().values(
                        stream_id=stream_id,
                        horizon_us=baseline.horizon_us,
                        season=False,
                        from_us=baseline.from_us,
                        until_us=baseline.until_us,
                        base=json.dumps(baseline.baseline),
                    )
                )
            if update.days is not None:
                _store_days(conn, stream_id, update.days)
            if update.verdicts:
                now_us = self._db.now_us(conn)
                conn.execute(
                    drift_verdicts.insert(), [_verdict_values(stream_id, row, now_us) for row in update.verdicts]
                )
            if update.cells:
                insert_cells(self._db, conn, stream_id, update.cells)
            if update.summaries:
                insert_summaries(self._db, conn, update.summaries)
            for row in update.update_incidents(open_incidents(conn, stream_id)):
                write_incident(self._db, conn, stream_id, stream, row)
            return True


def read_rebase(conn: sa.Connection, stream_id: int) -> int | None:
    """Return the start of the baseline that follows an accepted drift; None if there was none."""
    query = sa.select(drift_marks.c.rebased_from_us).where(drift_marks.c.stream_id == stream_id)
    return conn.execute(query).scalar_one_or_none()


def season_kind(threshold_details: Mapping[str, Any]) -> str | None:
    """Return the kind of the active season in the details of a threshold row; None without one."""
    kind = (threshold_details.get("season") or {}).get("kind")
    return None if kind is None else str(kind)


def rebase_drift(conn: sa.Connection, stream_id: int, from_us: int | None) -> None:
    """Start a new baseline at `from_us`, because a drift was accepted as normal; None starts it with the model.

    The caller holds the lock on the stream's row and runs this in the transaction of the acceptance.
    """
    mark = conn.execute(sa.select(drift_marks.c.until_us).where(drift_marks.c.stream_id == stream_id)).first()
    if mark is None:
        conn.execute(drift_marks.insert().values(stream_id=stream_id, rebased_from_us=from_us))
    else:
        conn.execute(drift_marks.update().where(drift_marks.c.stream_id == stream_id).values(rebased_from_us=from_us))


def _read_first_window(conn: sa.Connection, stream_id: int, until_us: int | None, horizon_us: int) -> int | None:
    from_us = 0 if until_us is None else until_us // horizon_us * horizon_us
    return conn.execute(_FIRST_WINDOW, {"stream_id": stream_id, "from_us": from_us}).scalar_one_or_none()


def _read_activation(conn: sa.Connection, stream_id: int, model_id: int, until_us: int) -> int | None:
    """Return the start of the activation of a model that is in force at `until_us`.

    Reads one row of each model through an index, independent of the number of threshold rows.
    """
    other_ids = conn.scalars(
        sa.select(models.c.id).where(models.c.stream_id == stream_id, models.c.id != model_id)
    ).all()
    starts = []
    for other_id in other_ids:
        last = sa.select(sa.func.max(thresholds.c.valid_from_us)).where(
            thresholds.c.stream_id == stream_id,
            thresholds.c.model_id == other_id,
            thresholds.c.valid_from_us <= until_us,
        )
        starts.append(conn.execute(last).scalar_one())
    own = [
        thresholds.c.stream_id == stream_id,
        thresholds.c.model_id == model_id,
        thresholds.c.valid_from_us <= until_us,
    ]
    other_from_us = max((start for start in starts if start is not None), default=None)
    if other_from_us is not None:
        own.append(thresholds.c.valid_from_us > other_from_us)
    since_us: int | None = conn.execute(sa.select(sa.func.min(thresholds.c.valid_from_us)).where(*own)).scalar_one()
    return since_us


def _advance_mark(conn: sa.Connection, stream_id: int, before_us: int | None, update: DriftUpdate) -> bool:
    of_stream = drift_marks.c.stream_id == stream_id
    mark = conn.execute(sa.select(drift_marks.c.until_us).where(of_stream)).first()
    if (None if mark is None else mark.until_us) != before_us:
        return False
    values = {"until_us": update.until_us, "state": json.dumps(update.state)}
    if mark is None:
        conn.execute(drift_marks.insert().values(stream_id=stream_id, **values))
    else:
        conn.execute(drift_marks.update().where(of_stream).values(**values))
    return True


def _store_days(conn: sa.Connection, stream_id: int, days: StoredDays) -> None:
    """Insert new days and delete the expired ones, so that the number of rows of a stream is bounded."""
    if days.rows:
        own = {"stream_id": stream_id, "base_from_us": days.base_from_us}
        conn.execute(drift_days.insert(), [own | asdict(row) for row in days.rows])
    expired = (drift_days.c.base_from_us != days.base_from_us) | (drift_days.c.start_us < days.keep_from_us)
    conn.execute(drift_days.delete().where(drift_days.c.stream_id == stream_id, expired))


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
