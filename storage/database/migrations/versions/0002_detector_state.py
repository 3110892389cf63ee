"""Revision 0002: the state of the window tests, shadow models, drift and jobs; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("streams", sa.Column("judge_state", sa.Text(), nullable=True))
    op.add_column("streams", sa.Column("acceptances", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("window_parts", sa.Column("first_offset", sa.BigInteger(), nullable=True))
    op.add_column("window_parts", sa.Column("last_offset", sa.BigInteger(), nullable=True))
    op.add_column("windows", sa.Column("adopted_at_us", sa.BigInteger(), nullable=True))
    op.add_column("incidents", sa.Column("accepted_at_us", sa.BigInteger(), nullable=True))
    op.create_table(
        "accepted_references",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("incident_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("energies", sa.LargeBinary(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_accepted_references_stream_id")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_accepted_references_model_id")),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_accepted_references_incident_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accepted_references")),
    )
    op.create_index("ix_accepted_references_model_id", "accepted_references", ["model_id"], unique=False)
    op.add_column("transitions", sa.Column("severity", sa.Text(), nullable=True))
    op.create_table(
        "jobs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("succeeded_at_us", sa.BigInteger(), nullable=True),
        sa.Column("failed_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_jobs")),
    )
    _create_shadows()
    _create_drift()


def _create_drift() -> None:
    op.create_table(
        "drift_marks",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=True),
        sa.Column("rebased_from_us", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_drift_marks_stream_id")),
        sa.PrimaryKeyConstraint("stream_id", name=op.f("pk_drift_marks")),
    )
    op.create_table(
        "drift_bases",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("horizon_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("season", sa.Boolean(), autoincrement=False, nullable=False),
        sa.Column("from_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_drift_bases_stream_id")),
        sa.PrimaryKeyConstraint("stream_id", "horizon_us", "season", "from_us", name=op.f("pk_drift_bases")),
    )


def _create_shadows() -> None:
    op.create_table(
        "shadows",
        sa.Column("model_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("percentile", sa.Double(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=True),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_shadows_model_id")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_shadows_stream_id")),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_shadows")),
    )
    op.create_table(
        "shadow_parts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), nullable=False),
        sa.Column("window_end_us", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shadow_parts")),
    )
    op.create_index("ix_shadow_parts_due", "shadow_parts", ["stream_id", "window_end_us"], unique=False)
    op.create_table(
        "shadow_windows",
        sa.Column("model_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("window_end_us", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("outliers", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_shadow_windows_model_id")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_shadow_windows_stream_id")),
        sa.PrimaryKeyConstraint("model_id", "window_start_us", name=op.f("pk_shadow_windows")),
    )
