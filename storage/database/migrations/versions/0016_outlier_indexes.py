"""Revision 0016: indexes of outliers by key and by id of the event; additive."""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # They may have been built before the upgrade with CREATE INDEX CONCURRENTLY, see docs/upgrade.md.
    op.create_index("ix_outliers_key", "outliers", ["key", "event_time_us"], if_not_exists=True)
    op.create_index("ix_outliers_event_id", "outliers", ["event_id"], if_not_exists=True)
