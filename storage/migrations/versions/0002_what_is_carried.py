"""Storage room: revision 0002, what detectors carry from window to window; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("streams", sa.Column("judge_state", sa.Text(), nullable=True))
    op.add_column("transitions", sa.Column("severity", sa.Text(), nullable=True))
    op.create_table(
        "jobs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("succeeded_at_us", sa.BigInteger(), nullable=True),
        sa.Column("failed_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_jobs")),
    )
