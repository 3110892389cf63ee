"""Revision 0004: settings over event time, replicas, ranges of commits, filtered records, state of keys; additive."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("streams", sa.Column("settings_revision", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("positions", sa.Column("idle_seen_us", sa.BigInteger(), nullable=True))
    for table in ("window_parts", "windows"):
        op.add_column(table, sa.Column("filtered", sa.BigInteger(), nullable=False, server_default="0"))
    for column in ("late_sum_s", "late_max_s"):
        op.add_column("window_parts", sa.Column(column, sa.BigInteger(), nullable=False, server_default="0"))
    _create_settings()
    _create_commit_tables()
    _create_event_time_index()


def _create_settings() -> None:
    op.create_table(
        "settings",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("valid_from_us", sa.BigInteger(), nullable=True),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("recorded_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_settings_stream_id")),
        sa.PrimaryKeyConstraint("stream_id", "revision", "scope", name=op.f("pk_settings")),
    )
    op.create_table(
        "replicas",
        sa.Column("stream_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("heartbeat_us", sa.BigInteger(), nullable=False),
        sa.Column("settings_hash", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_replicas_stream_id")),
        sa.PrimaryKeyConstraint("stream_id", "owner", name=op.f("pk_replicas")),
    )


def _create_commit_tables() -> None:
    op.create_table(
        "commit_ranges",
        sa.Column("source_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_offset", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("min_time_us", sa.BigInteger(), nullable=True),
        sa.Column("max_time_us", sa.BigInteger(), nullable=True),
        sa.Column("min_late_us", sa.BigInteger(), nullable=True),
        sa.Column("max_late_us", sa.BigInteger(), nullable=True),
        sa.Column("stored_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source_id", "first_offset", name=op.f("pk_commit_ranges")),
        sqlite_with_rowid=False,
    )
    _create_range_index("times", ["source_id", "max_time_us", "min_time_us"])
    _create_range_index("wide", ["source_id", "max_time_us"], "max_time_us - min_time_us > 3600000000")
    _create_range_index("late", ["source_id", "max_late_us", "min_late_us"], "max_late_us IS NOT NULL")
    op.create_table(
        "key_states",
        sa.Column("source_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("end_offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("snapshot", sa.Boolean(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("source_id", "end_offset", name=op.f("pk_key_states")),
        sqlite_with_rowid=False,
    )


def _create_range_index(name: str, columns: list[str], condition: str | None = None) -> None:
    where = None if condition is None else sa.text(condition)
    op.create_index(
        f"ix_commit_ranges_{name}",
        "commit_ranges",
        columns,
        unique=False,
        sqlite_where=where,
        postgresql_where=where,
    )


def _create_event_time_index() -> None:
    """Create an index for `event_time`, which people write in conditions on the views; PostgreSQL only."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE INDEX ix_scores_event_time ON scores USING brin "
            "(((timestamp '2100-01-01' + (event_time_us - 4102444800000000) * interval '1 microsecond') "
            "AT TIME ZONE 'UTC')) WITH (pages_per_range = 32)"
        )
