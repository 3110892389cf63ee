"""Models with their artefacts. A model becomes active through the first threshold row that refers to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from config.errors import ModelError
from storage.control.settings import record_resolved
from storage.control.thresholds import ThresholdRow, insert_threshold
from storage.control.warm_up import WarmUpProgress
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import models, shadow_parts, shadows, streams, thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    """A model to store."""

    kind: str
    artefact: bytes
    feature_names: Sequence[str]
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A row of the models table, without the artefact."""

    id: int
    version: int
    kind: str
    state: str
    created_at_us: int
    valid_from_us: int | None
    feature_names: tuple[str, ...]
    summary: Mapping[str, Any]

    @property
    def derived_fields(self) -> tuple[str, ...]:
        """Return the fields that the model derives features of."""
        fields = self.summary.get("derive", "none")
        return () if fields == "none" else tuple(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """Earliest time from which a model can be valid; no stored event and no threshold row is later."""

    valid_from_us: int
    computed_at_us: int


class ModelStore:
    """Stores and activates models; only the threshold schedule determines which model is in force."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(
        self,
        stream_id: int,
        model: NewModel,
        first_threshold: Callable[[int, Activation], ThresholdRow],
        *,
        only_first: bool = False,
        sizes: Mapping[str, object] | None = None,
    ) -> ModelRecord | None:
        """Store a model and activate it, in one transaction.

        Args:
            stream_id: The stream.
            model: The model.
            first_threshold: Returns the model's first threshold row for the model id and the activation.
            only_first: Store nothing and return None if the stream already has a model, because another process
                finished the warm-up first.
            sizes: The values found for settings that are `auto`, by their keys. The first model stores them.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            is_first = _read_newest_version(conn, stream_id) is None
            if only_first and not is_first:
                return None
            if is_first:
                found = {
                    "event.features": list(model.feature_names),
                    "model.n_components": model.summary.get("n_components"),
                    "event.derive": model.summary.get("derive", "none"),
                    **(sizes or {}),
                }
                record_resolved(conn, stream_id, found, self._db.now_us(conn))
            model_id = insert_model(conn, stream_id, model, "candidate", self._db.now_us(conn))
            activate_model(conn, stream_id, model_id, first_threshold, self._db.now_us(conn))
            return read_model_record(conn, model_id)

    def promote(
        self, stream_id: int, model_id: int, first_threshold: Callable[[int, Activation], ThresholdRow]
    ) -> ModelRecord:
        """Activate a stored model from the next free window on."""
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            activate_model(conn, stream_id, model_id, first_threshold, self._db.now_us(conn))
            return read_model_record(conn, model_id)

    def report_warm_up(self, stream_id: int, progress: WarmUpProgress) -> None:
        """Store the progress of a warm-up, for `outrider status`."""
        details = json.dumps({"warm_up": progress.to_details()})
        with self._db.write() as conn:
            conn.execute(streams.update().where(streams.c.id == stream_id).values(details=details))

    def list(self, stream_id: int) -> list[ModelRecord]:
        """Return the models of a stream, oldest first."""
        query = _select_models().where(models.c.stream_id == stream_id).order_by(models.c.version)
        with self._db.read() as conn:
            return [_to_record(row) for row in conn.execute(query)]

    def active(self, stream_id: int) -> ModelRecord | None:
        """Return the active model, or None before the first one."""
        return next((model for model in reversed(self.list(stream_id)) if model.state == "active"), None)

    def derives(self, stream_id: int) -> bool:
        """Return whether a stored model of a stream derives features from earlier events of a key."""
        return any(model.derived_fields for model in self.list(stream_id))

    def load(self, model_id: int) -> tuple[ModelRecord, bytes]:
        """Return a stored model and its artefact.

        Raises:
            ModelError: There is no such model, or its artefact does not match its checksum.
        """
        with self._db.read() as connection:
            row = connection.execute(sa.select(models).where(models.c.id == model_id)).one_or_none()
        if row is None:
            message = f"there is no model {model_id} in {self._db.address}"
            raise ModelError(message)
        if artefact_checksum(row.artefact) != row.checksum:
            message = (
                f"model {row.version} of stream {row.stream_id} in {self._db.address} is damaged (its "
                f"checksum does not match): promote another version or fit again"
            )
            raise ModelError(message)
        return _to_record(row), bytes(row.artefact)

    def artefact(self, model_id: int) -> bytes:
        """Return a model's artefact."""
        with self._db.read() as conn:
            return bytes(conn.execute(sa.select(models.c.artefact).where(models.c.id == model_id)).scalar_one())


def artefact_checksum(artefact: bytes) -> str:
    """Return the checksum that `models.checksum` holds: SHA-256 in hexadecimal."""
    return hashlib.sha256(artefact).hexdigest()


def activate_model(
    conn: sa.Connection,
    stream_id: int,
    model_id: int,
    first_threshold: Callable[[int, Activation], ThresholdRow],
    now_us: int,
) -> None:
    """Activate a model from the next free window on. The caller holds the lock on the stream's row.

    If the model was a shadow model, its shadow run ends. Its parts of open windows are deleted, because a look-back
    holds only complete windows.
    """
    activation = find_next_activation(conn, stream_id)
    insert_threshold(conn, stream_id, first_threshold(model_id, activation), now_us)
    of_stream = models.c.stream_id == stream_id
    conn.execute(models.update().where(of_stream, models.c.state == "active").values(state="retired"))
    conn.execute(
        models.update().where(models.c.id == model_id).values(state="active", valid_from_us=activation.valid_from_us)
    )
    conn.execute(shadows.update().where(shadows.c.model_id == model_id).values(ended=True))
    conn.execute(shadow_parts.delete().where(shadow_parts.c.model_id == model_id))
    conn.execute(streams.update().where(streams.c.id == stream_id).values(revision=streams.c.revision + 1))


def insert_model(conn: sa.Connection, stream_id: int, model: NewModel, state: str, now_us: int) -> int:
    """Insert a model with the next version number; return its id. The caller holds the lock on the stream's row."""
    model_id: int = conn.execute(
        models.insert()
        .values(
            stream_id=stream_id,
            version=(_read_newest_version(conn, stream_id) or 0) + 1,
            kind=model.kind,
            state=state,
            artefact=model.artefact,
            checksum=artefact_checksum(model.artefact),
            created_at_us=now_us,
            feature_names=json.dumps(list(model.feature_names)),
            summary=json.dumps(model.summary),
        )
        .returning(models.c.id)
    ).scalar_one()
    return model_id


def read_model_record(conn: sa.Connection, model_id: int) -> ModelRecord:
    """Return a stored model without its artefact."""
    return _to_record(conn.execute(_select_models().where(models.c.id == model_id)).one())


def _read_newest_version(conn: sa.Connection, stream_id: int) -> int | None:
    newest: int | None = conn.execute(
        sa.select(sa.func.max(models.c.version)).where(models.c.stream_id == stream_id)
    ).scalar_one()
    return newest


def find_next_activation(conn: sa.Connection, stream_id: int) -> Activation:
    """Return the earliest activation: a window start later than every stored event and every threshold row.

    The first model of a stream is valid from time 0.
    """
    size_us, sealed_until_us, lead_us = conn.execute(
        sa.select(streams.c.window_size_us, streams.c.sealed_until_us, streams.c.lead_us).where(
            streams.c.id == stream_id
        )
    ).one()
    # One statement for each column: SQLite reads the end of an index only for a single maximum.
    newest_from_us, newest_computed_us = (
        conn.execute(sa.select(sa.func.max(column)).where(thresholds.c.stream_id == stream_id)).scalar_one()
        for column in (thresholds.c.valid_from_us, thresholds.c.computed_at_us)
    )
    if newest_from_us is None:
        return Activation(valid_from_us=0, computed_at_us=0)
    # One microsecond after every earlier computation, so that no tick and no other activation has the same time.
    computed_at_us = max(newest_computed_us, sealed_until_us or 0) + 1
    if sealed_until_us is None:
        return Activation(valid_from_us=newest_from_us, computed_at_us=computed_at_us)
    free_us = -(-(sealed_until_us + lead_us) // size_us) * size_us
    return Activation(valid_from_us=max(free_us, newest_from_us + size_us), computed_at_us=computed_at_us)


def _select_models() -> sa.Select[Any]:
    return sa.select(*(column for column in models.c if column.name != "artefact"))


def _to_record(row: sa.Row[Any]) -> ModelRecord:
    return ModelRecord(
        id=row.id,
        version=row.version,
        kind=row.kind,
        state=row.state,
        created_at_us=row.created_at_us,
        valid_from_us=row.valid_from_us,
        feature_names=tuple(json.loads(row.feature_names)),
        summary=json.loads(row.summary or "{}"),
    )
