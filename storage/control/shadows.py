"""Shadow models: models that score beside the active one, their windows and the verdicts on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from storage.control.models import (
    Activation,
    ModelRecord,
    NewModel,
    activate_model,
    find_next_activation,
    insert_model,
    read_model_record,
)
from storage.control.thresholds import ThresholdRow
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import models, shadow_parts, shadow_windows, shadows, streams, thresholds, windows

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class NewShadow:
    """Parameters of a new shadow model; its threshold is the percentile of its reference energies.

    `due_after_us` is the length of event time after which the daemon decides whether to promote the model. None leaves
    the decision to the user.
    """

    percentile: float
    threshold: float
    due_after_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowModel:
    """A stored shadow model."""

    model_id: int
    version: int
    kind: str
    percentile: float
    threshold: float
    since_us: int
    due_us: int | None
    sealed_until_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledShadow:
    """A shadow model, its threshold, and the start of the first window that it scores completely."""

    model_id: int
    threshold: float
    since_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowWindow:
    """A judged window scored by the active model and by the shadow model; the payloads are encoded parts."""

    window_start_us: int
    window_end_us: int
    fired: bool
    active_threshold_id: int
    active_payload: bytes
    shadow_payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedWindow:
    """The merged parts of one window of a model."""

    events: int
    outliers: int
    payload: bytes


class ShadowStore:
    """Starts, promotes and ends shadow models; a stream has at most one."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def start(self, stream_id: int, model: NewModel, shadow: NewShadow) -> ModelRecord:
        """Store a model as the shadow model that scores beside the active one from the next free window on.

        The shadow run of the previous shadow model ends; that model becomes a candidate.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            end_shadows(conn, stream_id)
            model_id = insert_model(conn, stream_id, model, "shadow", self._db.now_us(conn))
            since_us = find_next_activation(conn, stream_id).valid_from_us
            conn.execute(
                shadows.insert().values(
                    model_id=model_id,
                    stream_id=stream_id,
                    percentile=shadow.percentile,
                    threshold=shadow.threshold,
                    since_us=since_us,
                    due_us=None if shadow.due_after_us is None else since_us + shadow.due_after_us,
                    ended=False,
                )
            )
            increment_revision(conn, stream_id)
            return read_model_record(conn, model_id)

    def read_scheduled(self, stream_id: int) -> list[ScheduledShadow]:
        """Return the current shadow models of a stream; they change only with the revision."""
        query = sa.select(shadows.c.model_id, shadows.c.threshold, shadows.c.since_us).where(
            shadows.c.stream_id == stream_id, ~shadows.c.ended
        )
        with self._db.read() as connection:
            return [ScheduledShadow(**row) for row in connection.execute(query).mappings()]

    def end(self, stream_id: int, model_id: int, verdict: Mapping[str, Any]) -> bool:
        """End the shadow run of a model and store the verdict. The model becomes a candidate; its windows remain.

        Returns False if the model is no longer a shadow model, because another process decided first.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            if not is_in_shadow(conn, model_id):
                return False
            end_shadows(conn, stream_id)
            store_verdict(conn, model_id, verdict)
            increment_revision(conn, stream_id)
            return True

    def promote(
        self,
        stream_id: int,
        model_id: int,
        first_threshold: Callable[[int, Activation], ThresholdRow],
        verdict: Mapping[str, Any],
    ) -> ModelRecord | None:
        """Activate a shadow model and store the verdict in one transaction.

        Returns None if the model is no longer a shadow model, because another process decided first.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            if not is_in_shadow(conn, model_id):
                return None
            activate_model(conn, stream_id, model_id, first_threshold, self._db.now_us(conn))
            store_verdict(conn, model_id, verdict)
            return read_model_record(conn, model_id)

    def current(self, stream_id: int) -> ShadowModel | None:
        """Return the shadow model of a stream; None if it has none."""
        query = (
            sa.select(
                shadows.c.model_id,
                models.c.version,
                models.c.kind,
                shadows.c.percentile,
                shadows.c.threshold,
                shadows.c.since_us,
                shadows.c.due_us,
                streams.c.sealed_until_us,
            )
            .join(models, models.c.id == shadows.c.model_id)
            .join(streams, streams.c.id == shadows.c.stream_id)
            .where(shadows.c.stream_id == stream_id, ~shadows.c.ended)
        )
        with self._db.read() as conn:
            row = conn.execute(query).mappings().one_or_none()
        return None if row is None else ShadowModel(**row)

    def store_verdict(self, model_id: int, verdict: Mapping[str, Any]) -> None:
        """Store a verdict on a model that remains a shadow model until the next verdict is due."""
        with self._db.write() as conn:
            store_verdict(conn, model_id, verdict)

    def verdicts(self, stream_id: int) -> dict[int, Mapping[str, Any]]:
        """Return the last verdict on each current or former shadow model of a stream, by model id."""
        query = sa.select(shadows.c.model_id, shadows.c.verdict).where(
            shadows.c.stream_id == stream_id, shadows.c.verdict.is_not(None)
        )
        with self._db.read() as conn:
            return {model_id: json.loads(verdict) for model_id, verdict in conn.execute(query)}

    def merge_windows(self, stream_id: int, merge: Callable[[Sequence[bytes]], MergedWindow], limit: int = 200) -> int:
        """Merge the shadow parts of sealed windows, one transaction per window; return the number of windows."""
        sealed = sa.select(streams.c.sealed_until_us).where(streams.c.id == stream_id).scalar_subquery()
        due = (
            sa.select(shadow_parts.c.model_id, shadow_parts.c.window_start_us)
            .where(shadow_parts.c.stream_id == stream_id, shadow_parts.c.window_end_us <= sealed)
            .distinct()
            .order_by(shadow_parts.c.window_start_us)
            .limit(limit)
        )
        with self._db.read() as conn:
            due_windows = conn.execute(due).all()
        for model_id, start_us in due_windows:
            self._merge_window(stream_id, model_id, start_us, merge)
        return len(due_windows)

    def _merge_window(
        self, stream_id: int, model_id: int, start_us: int, merge: Callable[[Sequence[bytes]], MergedWindow]
    ) -> None:
        of_window = (
            shadow_parts.c.stream_id == stream_id,
            shadow_parts.c.model_id == model_id,
            shadow_parts.c.window_start_us == start_us,
        )
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            rows = conn.execute(sa.select(shadow_parts).where(*of_window).order_by(shadow_parts.c.id)).all()
            if not rows:
                return
            merged = merge([row.payload for row in rows])
            conn.execute(
                shadow_windows.insert().values(
                    model_id=model_id,
                    window_start_us=start_us,
                    stream_id=stream_id,
                    window_end_us=rows[0].window_end_us,
                    events=merged.events,
                    outliers=merged.outliers,
                    payload=merged.payload,
                    outliers_of_both=_sum_known([row.outliers_of_both for row in rows]),
                )
            )
            conn.execute(shadow_parts.delete().where(shadow_parts.c.id.in_([row.id for row in rows])))

    def windows(self, stream_id: int, model_id: int, after_us: int = 0) -> list[ShadowWindow]:
        """Return the judged windows that a shadow model scored, in order, with the active model's payloads.

        Windows of an earlier active model are left out: its energies are not comparable with those of the current one.
        """
        active = (
            sa.select(models.c.id).where(models.c.stream_id == stream_id, models.c.state == "active").scalar_subquery()
        )
        found: list[ShadowWindow] = []
        while True:
            query = (
                sa.select(
                    shadow_windows.c.window_start_us,
                    shadow_windows.c.window_end_us,
                    sa.and_(windows.c.details.is_not(None), windows.c.adopted_at_us.is_(None)).label("fired"),
                    windows.c.threshold_id.label("active_threshold_id"),
                    windows.c.payload.label("active_payload"),
                    shadow_windows.c.payload.label("shadow_payload"),
                )
                .join(
                    windows,
                    sa.and_(
                        windows.c.stream_id == stream_id,
                        windows.c.window_start_us == shadow_windows.c.window_start_us,
                    ),
                )
                .join(thresholds, thresholds.c.id == windows.c.threshold_id)
                .where(
                    shadow_windows.c.model_id == model_id,
                    shadow_windows.c.window_start_us >= after_us,
                    windows.c.judged_at_us.is_not(None),
                    windows.c.events > 0,
                    thresholds.c.model_id == active,
                )
                .order_by(shadow_windows.c.window_start_us)
                .limit(_CHUNK)
            )
            with self._db.read() as conn:
                rows = conn.execute(query).mappings().all()
            found += [ShadowWindow(**(dict(row) | {"fired": bool(row["fired"])})) for row in rows]
            if len(rows) < _CHUNK:
                return found
            after_us = rows[-1]["window_start_us"] + 1


def _sum_known(counts: Sequence[int | None]) -> int | None:
    """Return the sum; None if a part of an older version has no count."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def is_in_shadow(conn: sa.Connection, model_id: int | None) -> bool:
    """Return whether a model scores as shadow model."""
    query = sa.select(shadows.c.model_id).where(shadows.c.model_id == model_id, ~shadows.c.ended)
    return conn.execute(query).first() is not None


def end_shadows(conn: sa.Connection, stream_id: int) -> None:
    """End the shadow runs of a stream; the models become candidates. The caller holds the lock on the stream's row."""
    running = sa.select(shadows.c.model_id).where(shadows.c.stream_id == stream_id, ~shadows.c.ended)
    conn.execute(models.update().where(models.c.id.in_(running)).values(state="candidate"))
    conn.execute(shadow_parts.delete().where(shadow_parts.c.stream_id == stream_id))
    conn.execute(shadows.update().where(shadows.c.stream_id == stream_id).values(ended=True))


def store_verdict(conn: sa.Connection, model_id: int, verdict: Mapping[str, Any]) -> None:
    """Store the verdict of the gate on a model."""
    conn.execute(shadows.update().where(shadows.c.model_id == model_id).values(verdict=json.dumps(verdict)))


def increment_revision(conn: sa.Connection, stream_id: int) -> None:
    """Increment the revision, so that commits in flight are scored again with the new set of shadow models."""
    conn.execute(streams.update().where(streams.c.id == stream_id).values(revision=streams.c.revision + 1))
