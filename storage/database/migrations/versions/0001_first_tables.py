"""Revision 0001: every table of the first release; frozen, later changes are separate revisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", _ID, nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("source_offset", sa.BigInteger(), nullable=False),
        sa.Column("end_offset", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_index("ix_dead_letters_recorded", "dead_letters", ["source_id", "recorded_at_us"], unique=False)
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "outliers",
        sa.Column("source_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("source_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_time_us", sa.BigInteger(), nullable=False),
        sa.Column("energy", sa.REAL(), nullable=False),
        sa.Column("threshold_id", sa.Integer(), nullable=False),
        sa.Column("stored_at_us", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("features", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("source_id", "source_offset", name=op.f("pk_outliers")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_outliers_event_time_us", "outliers", ["event_time_us"], unique=False)
    _create_scores()
    op.create_table(
        "streams",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("window_size_us", sa.BigInteger(), nullable=False),
        sa.Column("lead_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sealed_until_us", sa.BigInteger(), nullable=True),
        sa.Column("last_tick_us", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("details", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_streams")),
        sa.UniqueConstraint("name", name=op.f("uq_streams_name")),
    )
    op.create_table(
        "window_parts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), nullable=False),
        sa.Column("window_end_us", sa.BigInteger(), nullable=False),
        sa.Column("threshold_id", sa.Integer(), nullable=True),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("outliers", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.BigInteger(), nullable=False),
        sa.Column("dead", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_window_parts")),
    )
    op.create_index(
        "ix_window_parts_due", "window_parts", ["stream_id", "window_end_us", "window_start_us"], unique=False
    )
    op.create_table(
        "calibrations",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("promised_per_week", sa.Double(), nullable=True),
        sa.Column("realised_per_week", sa.Double(), nullable=True),
        sa.Column("windows_learned", sa.BigInteger(), nullable=True),
        sa.Column("dispersion", sa.Double(), nullable=True),
        sa.Column("exceedance", sa.Double(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_calibrations_stream_id")),
        sa.PrimaryKeyConstraint("stream_id", "at_us", name=op.f("pk_calibrations")),
    )
    op.create_table(
        "drift_verdicts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("horizon", sa.Text(), nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), nullable=False),
        sa.Column("window_end_us", sa.BigInteger(), nullable=False),
        sa.Column("statistic", sa.Text(), nullable=False),
        sa.Column("feature", sa.Text(), server_default="", nullable=False),
        sa.Column("before", sa.Double(), nullable=True),
        sa.Column("after", sa.Double(), nullable=True),
        sa.Column("effect", sa.Double(), nullable=True),
        sa.Column("z", sa.Double(), nullable=True),
        sa.Column("limit", sa.Double(), nullable=True),
        sa.Column("drifted", sa.Boolean(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_drift_verdicts_stream_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_verdicts")),
        sa.UniqueConstraint(
            "stream_id",
            "horizon",
            "window_end_us",
            "statistic",
            "feature",
            name=op.f("uq_drift_verdicts_stream_id_horizon_window_end_us_statistic_feature"),
        ),
    )
    op.create_table(
        "incidents",
        sa.Column("id", _ID, nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), nullable=False),
        sa.Column("opened_at_us", sa.BigInteger(), nullable=False),
        sa.Column("resolved_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_told_us", sa.BigInteger(), nullable=False),
        sa.Column("clean_windows", sa.BigInteger(), nullable=False),
        sa.Column("windows_fired", sa.BigInteger(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_incidents_stream_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
    )
    op.create_index("ix_incidents_opened", "incidents", ["stream_id", "opened_at_us"], unique=False)
    op.create_index(
        "uq_incidents_open",
        "incidents",
        ["stream_id", "kind"],
        unique=True,
        sqlite_where=sa.text("status = 'open'"),
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_table(
        "models",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("artefact", sa.LargeBinary(), nullable=False),
        sa.Column("checksum", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("valid_from_us", sa.BigInteger(), nullable=True),
        sa.Column("feature_names", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_models_stream_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("stream_id", "version", name=op.f("uq_models_stream_id_version")),
    )
    op.create_table(
        "sources",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("incarnation", sa.Integer(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_sources_stream_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint(
            "stream_id",
            "topic",
            "partition",
            "incarnation",
            name=op.f("uq_sources_stream_id_topic_partition_incarnation"),
        ),
    )
    op.create_table(
        "gaps",
        sa.Column("id", _ID, nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("from_offset", sa.BigInteger(), nullable=False),
        sa.Column("to_offset", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.Column("event_time_us", sa.BigInteger(), nullable=True),
        sa.Column("incident_id", _ID, nullable=True),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_gaps_incident_id")),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_gaps_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gaps")),
    )
    op.create_index("ix_gaps_source_id", "gaps", ["source_id"], unique=False)
    op.create_table(
        "positions",
        sa.Column("source_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("watermark_us", sa.BigInteger(), nullable=True),
        sa.Column("last_event_us", sa.BigInteger(), nullable=True),
        sa.Column("idle_until_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("committed_at_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_positions_source_id")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_positions_stream_id")),
        sa.PrimaryKeyConstraint("source_id", name=op.f("pk_positions")),
    )
    op.create_index("ix_positions_stream_id", "positions", ["stream_id"], unique=False)
    op.create_table(
        "thresholds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("computed_at_us", sa.BigInteger(), nullable=False),
        sa.Column("valid_from_us", sa.BigInteger(), nullable=False),
        sa.Column("percentile", sa.Double(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("lower", sa.Double(), nullable=True),
        sa.Column("upper", sa.Double(), nullable=True),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=True),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_thresholds_model_id")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_thresholds_stream_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_thresholds")),
    )
    op.create_index(
        "ix_thresholds_valid_from", "thresholds", ["stream_id", "valid_from_us", "id"], unique=False
    )
    op.create_table(
        "transitions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("incident_id", _ID, nullable=False),
        sa.Column("stream_id", sa.Integer(), nullable=False),
        sa.Column("transition", sa.Text(), nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=True),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_transitions_incident_id")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_transitions_stream_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transitions")),
        sa.UniqueConstraint(
            "incident_id",
            "transition",
            "window_start_us",
            name=op.f("uq_transitions_incident_id_transition_window_start_us"),
        ),
    )
    op.create_table(
        "notifications",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("incident_id", _ID, nullable=False),
        sa.Column("transition_id", _ID, nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["incident_id"], ["incidents.id"], name=op.f("fk_notifications_incident_id")),
        sa.ForeignKeyConstraint(
            ["transition_id"], ["transitions.id"], name=op.f("fk_notifications_transition_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
    )
    op.create_index(
        "ix_notifications_pending",
        "notifications",
        ["next_attempt_at_us"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_table(
        "windows",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("window_end_us", sa.BigInteger(), nullable=False),
        sa.Column("threshold_id", sa.Integer(), nullable=True),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("outliers", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.BigInteger(), nullable=False),
        sa.Column("dead", sa.BigInteger(), nullable=False),
        sa.Column("expected", sa.Double(), nullable=True),
        sa.Column("p_value", sa.Double(), nullable=True),
        sa.Column("energy_p50", sa.Double(), nullable=True),
        sa.Column("energy_p99", sa.Double(), nullable=True),
        sa.Column("energy_max", sa.Double(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("details", sa.Text(), nullable=True),
        sa.Column("judged_at_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_windows_stream_id")),
        sa.ForeignKeyConstraint(["threshold_id"], ["thresholds.id"], name=op.f("fk_windows_threshold_id")),
        sa.PrimaryKeyConstraint("stream_id", "window_start_us", name=op.f("pk_windows")),
    )
    op.create_index("ix_windows_judged", "windows", ["stream_id", "judged_at_us"], unique=False)


def _create_scores() -> None:
    """Create `scores`: on PostgreSQL partitioned by the day of storing, by `ensure_score_partitions`."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            """
            CREATE TABLE scores (
                source_id INTEGER NOT NULL,
                source_offset BIGINT NOT NULL,
                event_time_us BIGINT NOT NULL,
                energy REAL NOT NULL,
                threshold_id INTEGER NOT NULL,
                stored_at_us BIGINT NOT NULL,
                key TEXT,
                event_id TEXT,
                CONSTRAINT pk_scores PRIMARY KEY (source_id, source_offset)
            ) WITHOUT ROWID
            """
        )
        return
    op.execute(
        """
        CREATE TABLE scores (
            stored_day INTEGER NOT NULL,
            source_id INTEGER NOT NULL,
            source_offset BIGINT NOT NULL,
            event_time_us BIGINT NOT NULL,
            energy REAL NOT NULL,
            threshold_id INTEGER NOT NULL,
            stored_at_us BIGINT NOT NULL,
            key TEXT,
            event_id TEXT,
            CONSTRAINT pk_scores PRIMARY KEY (stored_day, source_id, source_offset)
        ) PARTITION BY RANGE (stored_day)
        """
    )
    # Events arrive about in the order of their times: 100 kB of block ranges do the work of a 200 MB tree.
    op.execute(
        "CREATE INDEX ix_scores_event_time_us ON scores USING brin (event_time_us) WITH (pages_per_range = 32)"
    )


def downgrade() -> None:
    """Refuse to downgrade: it would drop stored data; restore a backup instead."""
    raise NotImplementedError(downgrade.__doc__)
