"""Revision 0013: messages of chats that are changed at each transition, and signed links that have acted; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "posted_messages",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("incident_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("notification_id", sa.Text(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_posted_messages_incident_id")),
        sa.PrimaryKeyConstraint("channel", "incident_id", name=op.f("pk_posted_messages")),
    )
    op.create_index("ix_posted_messages_incident_id", "posted_messages", ["incident_id"], unique=False)
    op.create_table(
        "used_links",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("used_at_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_used_links")),
    )
    op.create_index("ix_used_links_expires_at_us", "used_links", ["expires_at_us"], unique=False)
