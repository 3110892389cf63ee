"""Revision 0015: the lag in the reports of the daemons, and a view `health` that proves what it says; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("health_reports", sa.Column("lag_events", sa.BigInteger(), nullable=True))
    op.add_column("health_reports", sa.Column("waiting_s", sa.Double(), nullable=True))
