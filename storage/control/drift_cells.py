"""All statistics of a tested drift horizon as one compact row, and the distributions that a drift is told with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from storage.database.engine import Database
from storage.database.tables import drift_cell_names, drift_cells, feature_summaries

Float16 = NDArray[np.float16]
Float64 = NDArray[np.float64]
SummaryKind = Literal["training", "base"]

_LARGEST = float(np.finfo(np.float16).max)
_ARRAYS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftCellsRow:
    """The statistics of one tested horizon; `names` are pairs of statistic and feature, in the order of the payload."""

    horizon_us: int
    window_start_us: int
    window_end_us: int
    model_id: int
    names: Sequence[tuple[str, str]]
    limit: float
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSummaryRow:
    """The distribution of each feature of a model among `sampled` events in [from, until), as encoded quantiles."""

    model_id: int
    kind: SummaryKind
    horizon_us: int
    from_us: int
    until_us: int
    sampled: int
    payload: bytes


def encode_cells(z: Float64, effect: Float64, before: Float64, after: Float64) -> bytes:
    """Return the four arrays, (J,), as bytes: float16, little-endian, 8 bytes a statistic."""
    stacked = np.stack([z, effect, before, after])
    return np.clip(stacked, -_LARGEST, _LARGEST).astype("<f2").tobytes()


def decode_cells(payload: bytes) -> dict[str, Float16]:
    """Return the arrays that `encode_cells` wrote, by name."""
    stacked = np.frombuffer(payload, "<f2").astype(np.float16).reshape(_ARRAYS, -1)
    return dict(zip(("z", "effect", "before", "after"), stacked, strict=True))


def insert_cells(db: Database, conn: sa.Connection, stream_id: int, rows: Sequence[DriftCellsRow]) -> None:
    """Insert the statistics of tested horizons, and the names of those of a new model."""
    now_us = db.now_us(conn)
    for row in rows:
        names = {
            "model_id": row.model_id,
            "statistics": len(row.names),
            "names": json.dumps([list(each) for each in row.names], ensure_ascii=False),
        }
        conn.execute(db.insert(drift_cell_names).values(**names).on_conflict_do_nothing())
        values = {key: value for key, value in asdict(row).items() if key != "names"}
        statistics = {"stream_id": stream_id, "statistics": len(row.names), "recorded_at_us": now_us}
        conn.execute(drift_cells.insert().values(**values, **statistics))


def insert_summaries(db: Database, conn: sa.Connection, rows: Sequence[FeatureSummaryRow]) -> None:
    """Insert distributions that are not stored yet."""
    now_us = db.now_us(conn)
    for row in rows:
        insert = db.insert(feature_summaries).values(**asdict(row), recorded_at_us=now_us)
        conn.execute(insert.on_conflict_do_nothing())


def read_base_summary(conn: sa.Connection, model_id: int, horizon_us: int, from_us: int) -> FeatureSummaryRow | None:
    """Return the stored distribution of a base; None without one."""
    table = feature_summaries.c
    names = ("model_id", "kind", "horizon_us", "from_us", "until_us", "sampled", "payload")
    query = sa.select(*(table[name] for name in names)).where(
        table.model_id == model_id, table.kind == "base", table.horizon_us == horizon_us, table.from_us == from_us
    )
    row = conn.execute(query).mappings().one_or_none()
    return None if row is None else FeatureSummaryRow(**row)
