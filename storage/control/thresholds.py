"""Reads and writes of a threshold tick: judged windows of the look-back, threshold rows and calibration rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from storage.control.incidents import open_incidents, write_incident
from storage.control.records import Incident
from storage.control.window_facts import FIRST_UNJUDGED_END, LAST_JUDGED_END, STREAM_ID
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import (
    accepted_references,
    calibrations,
    incidents,
    shadow_windows,
    streams,
    thresholds,
    windows,
)

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedWindow:
    """A judged window of one model.

    `fired` is True when a detector fired in it and the finding has not been accepted. `fired_since_us` is the start of
    the finding if it began before the window. `confirmed` is True if a person has confirmed its incident: then it is
    left out also after `threshold.adopt_after`.
    """

    window_start_us: int
    window_end_us: int
    events: int
    outliers: int
    fired: bool
    payload: bytes
    fired_since_us: int | None = None
    confirmed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAlarm:
    """The alarm of a judged window, without its statistics; the fields are those of `JudgedWindow`."""

    window_start_us: int
    window_end_us: int
    fired_since_us: int | None
    confirmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCounts:
    """Events and outliers of a judged window of any model.

    `limit` is the largest count that would not have been a spike, for a window that fired as one. `rise_since_us` is
    the start of the slow rise that a window fired in. Both are None for other windows and for accepted ones.
    """

    window_start_us: int
    window_end_us: int
    events: int
    outliers: int
    limit: int | None = None
    rise_since_us: int | None = None

    @property
    def clipped_outliers(self) -> int:
        """Return the outliers; in a spike, one more than its limit, so that a burst does not look like a season."""
        return self.outliers if self.limit is None else min(self.outliers, self.limit + 1)

    @staticmethod
    def from_details(
        window_start_us: int, window_end_us: int, events: int, outliers: int, details: Mapping[str, Any] | None
    ) -> WindowCounts:
        """Return the counts of a window with the stored details of its alarm, if it has one."""
        details = details or {}
        return WindowCounts(
            window_start_us=window_start_us,
            window_end_us=window_end_us,
            events=events,
            outliers=outliers,
            limit=details.get("limit"),
            rise_since_us=details.get("since_us"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRow:
    """A threshold row, with the inputs of its computation in `details`. `id` is None for a row to insert."""

    id: int | None = None
    model_id: int
    computed_at_us: int
    valid_from_us: int
    percentile: float
    threshold: float
    lower: float
    upper: float
    n: int
    method: str
    details: Mapping[str, Any]

    def with_id(self, threshold_id: int) -> ThresholdRow:
        """Return the row as stored under this id."""
        return replace(self, id=threshold_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictCounts:
    """Incidents by the verdict of a person, and the precision: the share of true alarms with its 95% interval."""

    true_alarms: int
    false_alarms: int
    without_verdict: int
    precision: float | None = None
    precision_lower: float | None = None
    precision_upper: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRow:
    """The false-alarm budget, the realised rate of false alarms and the verdicts at a tick."""

    at_us: int
    promised_per_week: float
    realised_per_week: float | None
    windows_learned: int
    dispersion: float
    exceedance: float
    state: str
    verdicts: VerdictCounts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TickFacts:
    """Input of the decision which tick of a stream is due.

    `first_part_end_us` is the end of the first window that is not judged yet. `acceptances` counts the accepted
    incidents: values that were computed from windows under another count are out of date.
    """

    sealed_until_us: int | None
    last_tick_us: int | None
    last_judged_end_us: int | None
    first_part_end_us: int | None
    lead_us: int
    acceptances: int = 0
    settings_revision: int = 0


class ConfirmedRange(NamedTuple):
    """Kind and times of an incident that a person has confirmed; `until_us` is None while it is open."""

    incident_id: int
    kind: str
    since_us: int
    until_us: int | None

    def contains(self, fired: str | None, window_start_us: int) -> bool:
        """Return whether a window with an alarm of kind `fired` belongs to the incident."""
        in_time = self.since_us <= window_start_us and (self.until_us is None or window_start_us < self.until_us)
        return fired == self.kind and in_time


# One statement, so that all columns are from the same snapshot. Built once: the control plane runs it per window.
_TICK_FACTS = sa.select(
    streams.c.sealed_until_us,
    streams.c.last_tick_us,
    LAST_JUDGED_END.scalar_subquery().label("last_judged_end_us"),
    FIRST_UNJUDGED_END.scalar_subquery().label("first_part_end_us"),
    streams.c.lead_us,
    streams.c.acceptances,
    streams.c.settings_revision,
).where(streams.c.id == STREAM_ID)


class ThresholdStore:
    """Reads judged windows and writes thresholds, one tick at a time per stream."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def tick_facts(self, stream_id: int) -> TickFacts:
        """Return the seal, the last tick and the progress of judging of a stream."""
        with self._db.read() as conn:
            return TickFacts(**conn.execute(_TICK_FACTS, {"stream_id": stream_id}).mappings().one())

    def threshold(self, threshold_id: int) -> ThresholdRow:
        """Return one threshold row."""
        with self._db.read() as conn:
            return to_threshold(conn.execute(sa.select(thresholds).where(thresholds.c.id == threshold_id)).one())

    def newest_threshold(self, stream_id: int) -> ThresholdRow | None:
        """Return the threshold row with the latest `valid_from_us`; None before the first model."""
        query = (
            sa.select(thresholds)
            .where(thresholds.c.stream_id == stream_id)
            .order_by(thresholds.c.valid_from_us.desc(), thresholds.c.id.desc())
            .limit(1)
        )
        with self._db.read() as conn:
            row = conn.execute(query).first()
        return None if row is None else to_threshold(row)

    def judged_windows(self, stream_id: int, model_id: int, after_us: int, until_us: int) -> list[JudgedWindow]:
        """Return the judged windows of a model that start at or after `after_us` and end at or before `until_us`.

        Windows that the model scored as a shadow of another model are included, so that a promoted model has a
        look-back. The windows are read in chunks by key: a long read transaction would keep SQLite's write-ahead log
        from being truncated.
        """
        within_bounds = (
            windows.c.stream_id == stream_id,
            windows.c.window_end_us <= until_us,
            windows.c.judged_at_us.is_not(None),
        )
        own = (
            sa.select(windows)
            .join(thresholds, thresholds.c.id == windows.c.threshold_id)
            .where(*within_bounds, thresholds.c.model_id == model_id)
        )
        in_shadow = (
            sa.select(
                windows.c.window_start_us,
                windows.c.window_end_us,
                windows.c.details,
                windows.c.adopted_at_us,
                shadow_windows.c.events,
                shadow_windows.c.outliers,
                shadow_windows.c.payload,
            )
            .join(thresholds, thresholds.c.id == windows.c.threshold_id)
            .join(shadow_windows, shadow_windows.c.window_start_us == windows.c.window_start_us)
            .where(*within_bounds, shadow_windows.c.model_id == model_id, thresholds.c.model_id != model_id)
        )
        confirmed = self._read_confirmed(stream_id)
        found = [
            _to_judged_window(row, confirmed, adopted=self._is_adopted(row.window_start_us, row.adopted_at_us))
            for query in (in_shadow, own)
            for row in self._read_in_chunks(query, after_us)
        ]
        return sorted(found, key=lambda window: window.window_start_us)

    def read_alarms(self, stream_id: int, after_us: int, until_us: int) -> list[WindowAlarm]:
        """Return the alarms of the windows in a range that do not count despite them, in order.

        They are those that `judged_windows` returns as `fired`, at a fraction of its cost.
        """
        table = windows.c
        query = (
            sa.select(table.window_start_us, table.window_end_us, table.details, table.adopted_at_us)
            .where(
                table.stream_id == stream_id,
                table.window_start_us >= after_us,
                table.window_end_us <= until_us,
                table.judged_at_us.is_not(None),
                table.details.is_not(None),
            )
            .order_by(table.window_start_us)
        )
        with self._db.read() as conn:
            rows = conn.execute(query).all()
        confirmed = self._read_confirmed(stream_id)
        alarms = []
        for row in rows:
            if self._is_adopted(row.window_start_us, row.adopted_at_us):
                continue
            details = json.loads(row.details)
            alarms.append(
                WindowAlarm(
                    window_start_us=row.window_start_us,
                    window_end_us=row.window_end_us,
                    fired_since_us=details.get("since_us"),
                    confirmed=any(each.contains(details.get("fired"), row.window_start_us) for each in confirmed),
                )
            )
        return alarms

    def _is_adopted(self, window_start_us: int, adopted_at_us: int | None) -> bool:  # noqa: ARG002 - for previews
        """Return whether a window counts in the look-back despite its alarm."""
        return adopted_at_us is not None

    def _read_confirmed(self, stream_id: int) -> list[ConfirmedRange]:
        query = sa.select(
            incidents.c.id, incidents.c.kind, incidents.c.window_start_us, incidents.c.resolved_at_us
        ).where(incidents.c.stream_id == stream_id, incidents.c.verdict == "confirmed")
        with self._db.read() as conn:
            return [ConfirmedRange(*row) for row in conn.execute(query)]

    def _read_in_chunks(self, query: sa.Select[Any], after_us: int) -> list[sa.Row[Any]]:
        found: list[sa.Row[Any]] = []
        ordered = query.order_by(windows.c.window_start_us).limit(_CHUNK)
        while True:
            with self._db.read() as conn:
                rows = conn.execute(ordered.where(windows.c.window_start_us >= after_us)).all()
            found += [row for row in rows if row.payload is not None]
            if len(rows) < _CHUNK:
                return found
            after_us = rows[-1].window_start_us + 1

    def window_counts(self, stream_id: int, after_us: int, before_us: int) -> list[WindowCounts]:
        """Return the judged windows with events that start in [after_us, before_us), of all models, in order."""
        query = (
            sa.select(
                windows.c.window_start_us,
                windows.c.window_end_us,
                windows.c.events,
                windows.c.outliers,
                windows.c.details,
                windows.c.adopted_at_us,
            )
            .where(
                windows.c.stream_id == stream_id,
                windows.c.window_start_us >= after_us,
                windows.c.window_start_us < before_us,
                windows.c.judged_at_us.is_not(None),
                windows.c.events > 0,
            )
            .order_by(windows.c.window_start_us)
        )
        with self._db.read() as conn:
            rows = conn.execute(query).all()
        return [
            WindowCounts.from_details(
                row.window_start_us,
                row.window_end_us,
                row.events,
                row.outliers,
                None
                if row.details is None or self._is_adopted(row.window_start_us, row.adopted_at_us)
                else json.loads(row.details),
            )
            for row in rows
        ]

    def store_tick(
        self,
        stream_id: int,
        *,
        last_tick_us: int | None,
        tick_us: int,
        threshold: ThresholdRow | None,
        calibration: CalibrationRow | None,
        change: Callable[[Sequence[Incident]], Sequence[Incident]] = lambda _: (),
        acceptances: int | None = None,
    ) -> bool:
        """Store the results of tick `tick_us` in one transaction.

        Args:
            stream_id: The stream.
            last_tick_us: The last tick as read before the computation.
            tick_us: The tick.
            threshold: The new threshold row, if any.
            calibration: The new calibration row, if any.
            change: Maps the open incidents of the stream to the incident rows to write.
            acceptances: The number of changes of the calibration by people that the computation has read. None: any.

        Returns:
            False, with nothing stored, if another tick was stored since `last_tick_us` was read, or if a person has
            changed the calibration since `acceptances` was read.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            last_tick = streams.c.last_tick_us
            unchanged = [last_tick.is_(None) if last_tick_us is None else last_tick == last_tick_us]
            if acceptances is not None:
                unchanged.append(streams.c.acceptances == acceptances)
            updated = conn.execute(
                streams.update().where(streams.c.id == stream_id, *unchanged).values(last_tick_us=tick_us)
            )
            if updated.rowcount != 1:
                return False
            if threshold is not None:
                insert_threshold(conn, stream_id, threshold, self._db.now_us(conn))
            if calibration is not None:
                _insert_calibration(conn, stream_id, calibration, self._db.now_us(conn))
            name = conn.execute(sa.select(streams.c.name).where(streams.c.id == stream_id)).scalar_one()
            for row in change(open_incidents(conn, stream_id)):
                write_incident(self._db, conn, stream_id, name, row)
            return True

    def count_verdicts(
        self, stream_id: int, kinds: Sequence[str], after_us: int, until_us: int
    ) -> dict[str | None, int]:
        """Return the number of incidents of these kinds opened in (after, until], by their verdict or None."""
        grouped = (
            sa.select(incidents.c.verdict, sa.func.count())
            .where(
                incidents.c.stream_id == stream_id,
                incidents.c.kind.in_(kinds),
                incidents.c.opened_at_us > after_us,
                incidents.c.opened_at_us <= until_us,
            )
            .group_by(incidents.c.verdict)
        )
        with self._db.read() as conn:
            return {verdict: int(count) for verdict, count in conn.execute(grouped)}

    def accepted_reference(self, model_id: int) -> NDArray[np.float32] | None:
        """Return the last accepted reference energies of a model, ascending; None: the model's own reference holds."""
        query = (
            sa.select(accepted_references.c.energies)
            .where(accepted_references.c.model_id == model_id, accepted_references.c.withdrawn_at_us.is_(None))
            .order_by(accepted_references.c.id.desc())
            .limit(1)
        )
        with self._db.read() as conn:
            stored = conn.execute(query).scalar_one_or_none()
        return None if stored is None else np.frombuffer(bytes(stored), "<f4").astype(np.float32)

    def count_firings(self, stream_id: int, kinds: Sequence[str], after_us: int, until_us: int) -> tuple[int, int]:
        """Return the number of incidents of these kinds opened in (after, until] and the number of judged windows."""
        opened = sa.select(sa.func.count()).where(
            incidents.c.stream_id == stream_id,
            incidents.c.kind.in_(kinds),
            incidents.c.opened_at_us > after_us,
            incidents.c.opened_at_us <= until_us,
        )
        judged = sa.select(sa.func.count()).where(
            windows.c.stream_id == stream_id,
            windows.c.judged_at_us.is_not(None),
            windows.c.window_start_us >= after_us,
            windows.c.window_end_us <= until_us,
        )
        with self._db.read() as conn:
            return conn.execute(opened).scalar_one(), conn.execute(judged).scalar_one()


def _insert_calibration(conn: sa.Connection, stream_id: int, row: CalibrationRow, now_us: int) -> None:
    verdicts = (
        {} if row.verdicts is None else {each.name: getattr(row.verdicts, each.name) for each in fields(VerdictCounts)}
    )
    conn.execute(
        calibrations.insert().values(
            stream_id=stream_id,
            at_us=row.at_us,
            promised_per_week=row.promised_per_week,
            realised_per_week=row.realised_per_week,
            windows_learned=row.windows_learned,
            dispersion=row.dispersion,
            exceedance=row.exceedance,
            state=row.state,
            recorded_at_us=now_us,
            **verdicts,
        )
    )


def insert_threshold(conn: sa.Connection, stream_id: int, row: ThresholdRow, now_us: int) -> int:
    """Insert a threshold row; return its id."""
    threshold_id: int = conn.execute(
        thresholds.insert()
        .values(
            stream_id=stream_id,
            model_id=row.model_id,
            computed_at_us=row.computed_at_us,
            valid_from_us=row.valid_from_us,
            percentile=row.percentile,
            threshold=row.threshold,
            lower=row.lower,
            upper=row.upper,
            n=row.n,
            method=row.method,
            details=json.dumps(row.details),
            recorded_at_us=now_us,
        )
        .returning(thresholds.c.id)
    ).scalar_one()
    return threshold_id


def to_threshold(row: sa.Row[Any]) -> ThresholdRow:
    """Return a row of the table."""
    return ThresholdRow(
        id=row.id,
        model_id=row.model_id,
        computed_at_us=row.computed_at_us,
        valid_from_us=row.valid_from_us,
        percentile=row.percentile,
        threshold=row.threshold,
        lower=row.lower,
        upper=row.upper,
        n=row.n,
        method=row.method,
        details=json.loads(row.details or "{}"),
    )


def _to_judged_window(row: sa.Row[Any], confirmed: Sequence[ConfirmedRange], *, adopted: bool) -> JudgedWindow:
    details = {} if row.details is None else json.loads(row.details)
    return JudgedWindow(
        window_start_us=row.window_start_us,
        window_end_us=row.window_end_us,
        events=row.events,
        outliers=row.outliers,
        fired=row.details is not None and not adopted,
        payload=row.payload,
        fired_since_us=details.get("since_us"),
        confirmed=any(each.contains(details.get("fired"), row.window_start_us) for each in confirmed),
    )
