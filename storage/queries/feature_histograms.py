"""Samples of windows and stored distributions of features: the input of `monitor.models.feature_histograms`."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.control.drift_cells import FeatureSummaryRow
from storage.database.tables import drift_cells, feature_summaries, models, window_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledModel:
    """The model that scored the events of a time: its fields are the columns of the samples."""

    model_id: int
    feature_names: tuple[str, ...]


def find_sampled_model(conn: Connection, stream_id: int, until_us: int) -> SampledModel | None:
    """Return the model of the last sampled window that starts before a time; None without one."""
    query = (
        sa.select(window_samples.c.model_id, models.c.feature_names)
        .join(models, models.c.id == window_samples.c.model_id)
        .where(window_samples.c.stream_id == stream_id, window_samples.c.window_start_us < until_us)
        .order_by(window_samples.c.window_start_us.desc())
        .limit(1)
    )
    row = conn.execute(query).first()
    return None if row is None else SampledModel(model_id=row.model_id, feature_names=_decode_names(row.feature_names))


def read_summaries(conn: Connection, model_id: int) -> list[FeatureSummaryRow]:
    """Return the stored distributions of a model: the training events, then the bases by horizon, oldest first."""
    table = feature_summaries.c
    names = ("model_id", "kind", "horizon_us", "from_us", "until_us", "sampled", "payload")
    query = (
        sa.select(*(table[name] for name in names))
        .where(table.model_id == model_id)
        .order_by(table.kind.desc(), table.horizon_us, table.from_us)
    )
    return [FeatureSummaryRow(**row) for row in conn.execute(query).mappings()]


def find_tested_horizon(conn: Connection, stream_id: int, *, horizon_us: int, until_us: int) -> tuple[int, int] | None:
    """Return start and end of the last tested horizon of a length that ends at or before a time; None without one."""
    table = drift_cells.c
    query = (
        sa.select(table.window_start_us, table.window_end_us)
        .where(table.stream_id == stream_id, table.horizon_us == horizon_us, table.window_end_us <= until_us)
        .order_by(table.window_end_us.desc())
        .limit(1)
    )
    row = conn.execute(query).first()
    return None if row is None else (row.window_start_us, row.window_end_us)


def _decode_names(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
