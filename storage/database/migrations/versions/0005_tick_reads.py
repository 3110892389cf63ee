"""Revision 0005: indexes for reads whose cost grew with the stored thresholds and notifications; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pending = sa.text("state = 'pending'")
    op.create_index("ix_thresholds_computed", "thresholds", ["stream_id", "computed_at_us"], unique=False)
    op.create_index(
        "ix_notifications_channel",
        "notifications",
        ["channel", "transition_id"],
        unique=False,
        sqlite_where=pending,
        postgresql_where=pending,
    )
