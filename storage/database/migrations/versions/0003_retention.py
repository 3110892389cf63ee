"""Revision 0003: the columns and indexes that bounded retention and bounded threshold reads need; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("thresholds", sa.Column("used_at_us", sa.BigInteger(), nullable=True))
    op.add_column("calibrations", sa.Column("recorded_at_us", sa.BigInteger(), nullable=True))
    # The last use of the existing rows is unknown: they count as used until now.
    clock = {
        "sqlite": "CAST(strftime('%s', 'now') AS INTEGER) * 1000000",
        "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    }[op.get_bind().dialect.name]
    thresholds = sa.table("thresholds", sa.column("used_at_us", sa.BigInteger()))
    op.execute(thresholds.update().values(used_at_us=sa.literal_column(clock)))
    op.create_index("ix_thresholds_model", "thresholds", ["stream_id", "model_id", "valid_from_us"], unique=False)
    op.create_index("ix_windows_threshold_id", "windows", ["threshold_id"], unique=False)
    op.create_index("ix_notifications_incident_id", "notifications", ["incident_id"], unique=False)
    op.create_index("ix_notifications_transition_id", "notifications", ["transition_id"], unique=False)
    op.create_index("ix_gaps_incident_id", "gaps", ["incident_id"], unique=False)
    op.create_index("ix_accepted_references_incident_id", "accepted_references", ["incident_id"], unique=False)
