"""Revision 0011: the refits of streams; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "refits",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("due_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.Column("gate_us", sa.BigInteger(), nullable=True),
        sa.Column("details", sa.Text(), nullable=True),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_refits_stream_id")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_refits_model_id")),
        sa.PrimaryKeyConstraint("stream_id", "due_us", name=op.f("pk_refits")),
    )
    op.create_index("ix_refits_model_id", "refits", ["model_id"])
