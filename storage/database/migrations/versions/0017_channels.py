"""Revision 0017: the reason of a failed delivery, and an index of delivered notifications; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("notifications", sa.Column("reason", sa.Text(), nullable=True))
    is_set = sa.text("delivered_at_us IS NOT NULL")
    op.create_index(
        "ix_notifications_delivered",
        "notifications",
        ["channel", "delivered_at_us"],
        sqlite_where=is_set,
        postgresql_where=is_set,
    )
