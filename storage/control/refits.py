"""The refits of a stream: when each was due, what became of it, and the shadow model that it brought.

A row is inserted when the refit is decided, with the windows that it leaves out, so that another process repeats the
same fit. Each later change of its state is one transaction under the lock of the stream's row, and happens once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from storage.control.models import Activation, NewModel, activate_model, insert_model
from storage.control.samples import SampleStore, StoredSample
from storage.control.shadows import (
    MergedWindow,
    ShadowStore,
    ShadowWindow,
    end_shadows,
    increment_revision,
    is_in_shadow,
    store_verdict,
)
from storage.control.thresholds import ThresholdRow
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import incidents, models, refits, shadows

RefitState = Literal["postponed", "skipped", "fitting", "failed", "shadow", "promoted", "rejected", "replaced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitRow:
    """A refit that was due at an event time.

    Attributes:
        due_us: The event time: windows that end at or before it may be used.
        state: `postponed`, `skipped` and `failed` without a model; `fitting`; `shadow` until its gate is decided, then
            `promoted` or `rejected`; `replaced` if a person ended the shadow run.
        model_id: The model that was fitted.
        gate_us: Event time of the decision whether the model becomes active.
        details: The selection of the windows, the reason of a state, the figures of the gate.
    """

    due_us: int
    state: RefitState
    model_id: int | None = None
    gate_us: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentSpan:
    """The windows of an incident: up to `until_us`; None while it is open."""

    kind: str
    since_us: int
    until_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedShadow:
    """The shadow model of a refit: valid from `since_us`, with a threshold, and judged by the gate at `gate_us`."""

    model: NewModel
    percentile: float
    threshold: float
    since_us: int
    gate_us: int


class RefitStore:
    """Reads and changes the refits of streams."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._samples = SampleStore(db)
        self._shadows = ShadowStore(db)

    def last_refit(self, stream_id: int) -> RefitRow | None:
        """Return the refit with the latest due time; None before the first."""
        with self._db.read() as conn:
            return _read_last(conn, stream_id)

    def list_refits(self, stream_id: int, limit: int = 100) -> list[RefitRow]:
        """Return the newest refits of a stream, latest first."""
        query = _select_refits(stream_id).limit(limit)
        with self._db.read() as conn:
            return [_to_row(row) for row in conn.execute(query)]

    def find_incidents(self, stream_id: int, kinds: Sequence[str], after_us: int, until_us: int) -> list[IncidentSpan]:
        """Return the incidents that were open at some time in (after, until], as known at `until_us`.

        Left out are those that a person accepted as normal. An incident that was resolved later was open at `until_us`.
        """
        query = (
            sa.select(incidents.c.kind, incidents.c.window_start_us, incidents.c.resolved_at_us)
            .where(
                incidents.c.stream_id == stream_id,
                incidents.c.kind.in_(kinds),
                incidents.c.opened_at_us <= until_us,
                sa.or_(incidents.c.resolved_at_us.is_(None), incidents.c.resolved_at_us > after_us),
                incidents.c.accepted_at_us.is_(None),
            )
            .order_by(incidents.c.window_start_us, incidents.c.kind)
        )
        with self._db.read() as conn:
            rows = conn.execute(query).all()
        return [
            IncidentSpan(
                kind=row.kind,
                since_us=row.window_start_us,
                until_us=None
                if row.resolved_at_us is None or row.resolved_at_us > until_us
                else int(row.resolved_at_us),
            )
            for row in rows
        ]

    def read_samples(self, stream_id: int, after_us: int, until_us: int) -> list[StoredSample]:
        """Return the samples of the windows that start at or after `after_us` and end at or before `until_us`."""
        return list(self._samples.read_samples(stream_id, after_us, until_us))

    def last_sample_end_us(self, stream_id: int) -> int | None:
        """Return the end of the last window with a sample; None without samples."""
        return self._samples.last_end_us(stream_id)

    def feature_names(self, stream_id: int) -> dict[int, tuple[str, ...]]:
        """Return the feature names of each model of a stream."""
        query = sa.select(models.c.id, models.c.feature_names).where(models.c.stream_id == stream_id)
        with self._db.read() as conn:
            return {model_id: tuple(json.loads(names)) for model_id, names in conn.execute(query)}

    def has_other_shadow(self, stream_id: int) -> bool:
        """Return whether the stream has a shadow model that no refit has brought."""
        with self._db.read() as conn:
            return _has_other_shadow(conn, stream_id)

    def begin(self, stream_id: int, last_due_us: int | None, row: RefitRow) -> bool:
        """Insert a refit; return False, with nothing stored, if another one was inserted since the last was read."""
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            last = _read_last(conn, stream_id)
            if (None if last is None else last.due_us) != last_due_us:
                return False
            conn.execute(
                refits.insert().values(
                    stream_id=stream_id,
                    due_us=row.due_us,
                    state=row.state,
                    details=json.dumps(row.details),
                    recorded_at_us=self._db.now_us(conn),
                )
            )
            return True

    def finish(self, stream_id: int, row: RefitRow, fitted: FittedShadow) -> int | None:
        """Store the model of a refit as the shadow model of the stream; return its id, None if the refit is finished.

        The shadow model of an earlier refit ends. If a person has started a shadow model since, the refit is skipped.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            if not _is_in_state(conn, stream_id, row.due_us, "fitting"):
                return None
            if _has_other_shadow(conn, stream_id):
                _set_state(conn, stream_id, row, "skipped", {"reason": "a shadow model of a person runs"})
                return None
            end_shadows(conn, stream_id)
            model_id = insert_model(conn, stream_id, fitted.model, "shadow", self._db.now_us(conn))
            conn.execute(
                shadows.insert().values(
                    model_id=model_id,
                    stream_id=stream_id,
                    percentile=fitted.percentile,
                    threshold=fitted.threshold,
                    since_us=fitted.since_us,
                    due_us=None,
                    ended=False,
                )
            )
            values = {"model_id": model_id, "gate_us": fitted.gate_us}
            _set_state(conn, stream_id, row, "shadow", {"since_us": fitted.since_us}, **values)
            increment_revision(conn, stream_id)
            return model_id

    def fail(self, stream_id: int, row: RefitRow, state: Literal["failed", "skipped"], reason: str) -> bool:
        """Store that a refit brought no model; return False if it is finished."""
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            if not _is_in_state(conn, stream_id, row.due_us, "fitting"):
                return False
            _set_state(conn, stream_id, row, state, {"reason": reason})
            return True

    def shadow_windows(self, stream_id: int, model_id: int) -> list[ShadowWindow]:
        """Return the judged windows that a shadow model scored, in order, with the active model's payloads."""
        return self._shadows.windows(stream_id, model_id)

    def merge_shadow_windows(self, stream_id: int, merge: Callable[[Sequence[bytes]], MergedWindow]) -> None:
        """Merge the shadow parts of all sealed windows."""
        while self._shadows.merge_windows(stream_id, merge):
            pass

    def promote(
        self,
        stream_id: int,
        row: RefitRow,
        first_threshold: Callable[[int, Activation], ThresholdRow],
        verdict: Mapping[str, Any],
    ) -> bool:
        """Activate the model of a refit from the next free window on; return False if it is decided already."""
        assert row.model_id is not None, "a shadow model is stored with the refit"
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            if not _is_in_state(conn, stream_id, row.due_us, "shadow"):
                return False
            if not is_in_shadow(conn, row.model_id):
                _set_state(conn, stream_id, row, "replaced", {"reason": "a person ended the shadow run"})
                return True
            activate_model(conn, stream_id, row.model_id, first_threshold, self._db.now_us(conn))
            store_verdict(conn, row.model_id, verdict)
            _set_state(conn, stream_id, row, "promoted", verdict)
            return True

    def reject(self, stream_id: int, row: RefitRow, verdict: Mapping[str, Any]) -> bool:
        """End the shadow run of a refit; its model becomes a candidate. Return False if it is decided already."""
        assert row.model_id is not None, "a shadow model is stored with the refit"
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            if not _is_in_state(conn, stream_id, row.due_us, "shadow"):
                return False
            if not is_in_shadow(conn, row.model_id):
                _set_state(conn, stream_id, row, "replaced", {"reason": "a person ended the shadow run"})
                return True
            end_shadows(conn, stream_id)
            store_verdict(conn, row.model_id, verdict)
            _set_state(conn, stream_id, row, "rejected", verdict)
            increment_revision(conn, stream_id)
            return True


def _select_refits(stream_id: int) -> sa.Select[Any]:
    return sa.select(refits).where(refits.c.stream_id == stream_id).order_by(refits.c.due_us.desc())


def _read_last(conn: sa.Connection, stream_id: int) -> RefitRow | None:
    row = conn.execute(_select_refits(stream_id).limit(1)).first()
    return None if row is None else _to_row(row)


def _to_row(row: sa.Row[Any]) -> RefitRow:
    return RefitRow(
        due_us=row.due_us,
        state=row.state,
        model_id=row.model_id,
        gate_us=row.gate_us,
        details=json.loads(row.details or "{}"),
    )


def _is_in_state(conn: sa.Connection, stream_id: int, due_us: int, state: RefitState) -> bool:
    query = sa.select(refits.c.due_us).where(
        refits.c.stream_id == stream_id, refits.c.due_us == due_us, refits.c.state == state
    )
    return conn.execute(query).first() is not None


def _set_state(
    conn: sa.Connection, stream_id: int, row: RefitRow, state: RefitState, details: Mapping[str, Any], **values: Any
) -> None:
    conn.execute(
        refits.update()
        .where(refits.c.stream_id == stream_id, refits.c.due_us == row.due_us)
        .values(state=state, details=json.dumps({**row.details, **details}), **values)
    )


def _has_other_shadow(conn: sa.Connection, stream_id: int) -> bool:
    of_refit = sa.exists().where(refits.c.stream_id == stream_id, refits.c.model_id == shadows.c.model_id)
    query = sa.select(shadows.c.model_id).where(shadows.c.stream_id == stream_id, ~shadows.c.ended, ~of_refit)
    return conn.execute(query).first() is not None
