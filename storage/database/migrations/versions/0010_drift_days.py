"""Revision 0010: sums of whole days for the drift test; baselines of differences from earlier days are deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drift_days",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("base_from_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("start_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("outliers", sa.BigInteger(), nullable=False),
        sa.Column("fired", sa.Boolean(), nullable=False),
        sa.Column("hours", sa.Integer(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_drift_days_stream_id")),
        sa.PrimaryKeyConstraint("stream_id", "base_from_us", "start_us", name=op.f("pk_drift_days")),
    )
    op.execute(sa.text("DELETE FROM drift_bases WHERE season"))
