"""Revision 0008: samples of the events of windows; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("window_parts", sa.Column("sample", sa.LargeBinary(), nullable=True))
    op.create_table(
        "window_samples",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("window_end_us", sa.BigInteger(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_window_samples_stream_id")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_window_samples_model_id")),
        sa.PrimaryKeyConstraint("stream_id", "window_start_us", name=op.f("pk_window_samples")),
    )
    op.create_index("ix_window_samples_model_id", "window_samples", ["model_id"])
