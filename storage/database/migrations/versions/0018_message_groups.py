"""Revision 0018: the group of a message that is sent together with others; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("notifications", sa.Column("group_id", sa.Text(), nullable=True))
