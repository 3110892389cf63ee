"""Revision 0009: verbs of people on incidents, mutes, and the precision from verdicts; additive."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# SQLite generates row ids only for a column whose type is exactly INTEGER.
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_INCIDENT_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "acknowledged_at_us": sa.BigInteger(),
    "acknowledged_by": sa.Text(),
    "acknowledged_until_us": sa.BigInteger(),
    "verdict": sa.Text(),
    "reopen_until_us": sa.BigInteger(),
}
_CALIBRATION_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "true_alarms": sa.BigInteger(),
    "false_alarms": sa.BigInteger(),
    "without_verdict": sa.BigInteger(),
    "precision": sa.Double(),
    "precision_lower": sa.Double(),
    "precision_upper": sa.Double(),
}


def upgrade() -> None:
    for name, kind in _INCIDENT_COLUMNS.items():
        op.add_column("incidents", sa.Column(name, kind, nullable=True))
    is_set = sa.text("reopen_until_us IS NOT NULL")
    op.create_index(
        "ix_incidents_reopen",
        "incidents",
        ["stream_id", "reopen_until_us"],
        sqlite_where=is_set,
        postgresql_where=is_set,
    )
    op.execute("UPDATE incidents SET verdict = 'accepted' WHERE accepted_at_us IS NOT NULL")
    for name, kind in _CALIBRATION_COLUMNS.items():
        op.add_column("calibrations", sa.Column(name, kind, nullable=True))
    op.add_column("accepted_references", sa.Column("withdrawn_at_us", sa.BigInteger(), nullable=True))
    _create_incident_verbs()
    _create_mutes()


def _create_incident_verbs() -> None:
    op.create_table(
        "incident_verbs",
        sa.Column("id", _ID, nullable=False),
        sa.Column("incident_id", _ID, nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("judged_until_us", sa.BigInteger(), nullable=True),
        sa.Column("tick_us", sa.BigInteger(), nullable=True),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("effects", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_incident_verbs_incident_id")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_incident_verbs_stream_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident_verbs")),
    )
    op.create_index("ix_incident_verbs_incident_id", "incident_verbs", ["incident_id"])
    op.create_index("ix_incident_verbs_stream", "incident_verbs", ["stream_id", "at_us"])


def _create_mutes() -> None:
    op.create_table(
        "mutes",
        sa.Column("id", _ID, nullable=False),
        sa.Column("stream", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("incident_id", _ID, nullable=True),
        sa.Column("starts_at_us", sa.BigInteger(), nullable=False),
        sa.Column("ends_at_us", sa.BigInteger(), nullable=False),
        sa.Column("weekly", sa.Text(), nullable=True),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("held_back", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_mutes_incident_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mutes")),
    )
    op.create_index("ix_mutes_ends_at_us", "mutes", ["ends_at_us"])
    op.create_index("ix_mutes_incident_id", "mutes", ["incident_id"])
