"""All drift statistics of the tested horizons of a stream, for the heat map of a chart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from storage.control.drift_cells import decode_cells
from storage.database.tables import drift_cell_names, drift_cells, models

Float16 = NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftCells:
    """The J statistics of one tested horizon, rounded to float16 (three digits).

    Attributes:
        horizon_us: Nominal length of the horizon.
        window_start_us: Start of the horizon.
        window_end_us: End of the horizon.
        model_version: Version of the model.
        names: Statistic and feature of each number, as in `drift_history`; the feature is empty for the whole stream.
        limit: The value that |z| must exceed.
        z: Change of each statistic in units of its standard error, (J,).
        effect: Change in units of the training deviation, (J,).
        before: Mean over the baseline, (J,).
        after: Mean over the horizon, (J,).
    """

    horizon_us: int
    window_start_us: int
    window_end_us: int
    model_version: int
    names: Sequence[tuple[str, str]]
    limit: float
    z: Float16
    effect: Float16
    before: Float16
    after: Float16


def read_drift_cells(
    conn: Connection, stream_id: int, *, horizon_us: int, from_us: int, until_us: int, limit: int = 1_000
) -> list[DriftCells]:
    """Return the last `limit` tested horizons of one length that end in (from, until], in order of time."""
    table = drift_cells.c
    newest = (
        sa.select(
            table.horizon_us,
            table.window_start_us,
            table.window_end_us,
            table.limit,
            table.payload,
            models.c.version,
            table.model_id,
            table.statistics,
        )
        .join(models, models.c.id == table.model_id)
        .where(
            table.stream_id == stream_id,
            table.horizon_us == horizon_us,
            table.window_end_us > from_us,
            table.window_end_us <= until_us,
        )
        .order_by(table.window_end_us.desc())
        .limit(limit)
    )
    rows = conn.execute(newest).all()[::-1]
    names = _read_names(conn, {row.model_id for row in rows})
    return [
        DriftCells(
            horizon_us=row.horizon_us,
            window_start_us=row.window_start_us,
            window_end_us=row.window_end_us,
            model_version=row.version,
            names=names[row.model_id, row.statistics],
            limit=row.limit,
            **decode_cells(row.payload),
        )
        for row in rows
    ]


def list_horizons(conn: Connection, stream_id: int) -> list[int]:
    """Return the lengths of the tested horizons of a stream, in microseconds, ascending."""
    lengths: list[int] = []
    while True:
        # One step along the primary key for each length, instead of reading all rows.
        shortest = sa.select(sa.func.min(drift_cells.c.horizon_us)).where(
            drift_cells.c.stream_id == stream_id, drift_cells.c.horizon_us > (lengths[-1] if lengths else -1)
        )
        length = conn.execute(shortest).scalar_one()
        if length is None:
            return lengths
        lengths.append(length)


def _read_names(conn: Connection, model_ids: set[int]) -> dict[tuple[int, int], list[tuple[str, str]]]:
    query = sa.select(drift_cell_names).where(drift_cell_names.c.model_id.in_(model_ids))
    return {
        (row.model_id, row.statistics): [(name, feature) for name, feature in json.loads(row.names)]
        for row in conn.execute(query)
    }
