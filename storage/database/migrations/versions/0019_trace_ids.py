"""Revision 0019: the trace of the record of an outlier; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outliers", sa.Column("trace_id", sa.Text(), nullable=True))
