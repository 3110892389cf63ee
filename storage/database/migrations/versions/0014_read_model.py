"""Revision 0014: the read model of pages and API: roll-ups, all drift statistics, distributions; additive."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from storage.control.contributions import find_last_contributions

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_NEW_COLUMNS: tuple[tuple[str, str, sa.types.TypeEngine[Any]], ...] = (
    ("streams", "rolled_up_us", sa.BigInteger()),
    ("windows", "fires_at", sa.BigInteger()),
    ("incidents", "contributions", sa.Text()),
    ("shadow_parts", "outliers_of_both", sa.BigInteger()),
    ("shadow_windows", "outliers_of_both", sa.BigInteger()),
)


def upgrade() -> None:
    for table, name, kind in _NEW_COLUMNS:
        op.add_column(table, sa.Column(name, kind, nullable=True))
    _create_window_rollups()
    _create_drift_cells()
    _create_feature_summaries()
    _fill_contributions()


def _key(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=False)


def _create_window_rollups() -> None:
    op.create_table(
        "window_rollups",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        _key("resolution_us"),
        _key("start_us"),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("end_us", "windows", "fired", "events", "outliers", "late", "dead", "filtered")
        ),
        sa.Column("expected", sa.Double(), nullable=True),
        sa.Column("most_outliers", sa.BigInteger(), nullable=False),
        sa.Column("fires_at", sa.BigInteger(), nullable=True),
        *(
            sa.Column(name, sa.Double(), nullable=True)
            for name in ("p_value", "energy_p50", "energy_p99", "energy_max")
        ),
        sa.Column("model_version", sa.Integer(), nullable=True),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_window_rollups_stream_id")),
        sa.PrimaryKeyConstraint("stream_id", "resolution_us", "start_us", name=op.f("pk_window_rollups")),
        sqlite_with_rowid=False,
    )


def _create_drift_cells() -> None:
    op.create_table(
        "drift_cell_names",
        sa.Column("model_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("statistics", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_drift_cell_names_model_id")),
        sa.PrimaryKeyConstraint("model_id", "statistics", name=op.f("pk_drift_cell_names")),
    )
    op.create_table(
        "drift_cells",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        _key("horizon_us"),
        _key("window_end_us"),
        sa.Column("window_start_us", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("statistics", sa.Integer(), nullable=False),
        sa.Column("limit", sa.Double(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_drift_cells_stream_id")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_drift_cells_model_id")),
        sa.PrimaryKeyConstraint("stream_id", "horizon_us", "window_end_us", name=op.f("pk_drift_cells")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_drift_cells_model_id", "drift_cells", ["model_id"])


def _create_feature_summaries() -> None:
    op.create_table(
        "feature_summaries",
        sa.Column("model_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        _key("horizon_us"),
        _key("from_us"),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("sampled", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_feature_summaries_model_id")),
        sa.PrimaryKeyConstraint("model_id", "kind", "horizon_us", "from_us", name=op.f("pk_feature_summaries")),
        sqlite_with_rowid=False,
    )


def _fill_contributions() -> None:
    """Compute the contributions of the incidents of earlier versions from their details, one at a time."""
    connection = op.get_bind()
    ids = connection.execute(sa.text("SELECT id FROM incidents WHERE kind IN ('spike', 'slow_rise', 'drift')")).scalars()
    for incident_id in ids.all():
        details = connection.execute(sa.text("SELECT details FROM incidents WHERE id = :id"), {"id": incident_id})
        contributions = find_last_contributions(json.loads(details.scalar_one() or "{}"))
        if contributions is not None:
            values = {"id": incident_id, "contributions": json.dumps(contributions, ensure_ascii=False)}
            connection.execute(sa.text("UPDATE incidents SET contributions = :contributions WHERE id = :id"), values)
