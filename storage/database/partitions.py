"""Storage room: the daily partitions of `scores` on PostgreSQL.

The partition key is the day of *storing*: one event with a stray date must not need a partition of its own.
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database

DAY_US = 86_400_000_000
_PARTITION_LOCK_KEY = 0x6F757472_73636F72
"""Any constant that all Outriders share: makers of partitions queue behind it."""
_PARTITION_NAME = re.compile(r"scores_d(\d+)")


def day_number(time_us: int) -> int:
    """Return the number of the day (UTC, since 1970) of a time."""
    return time_us // DAY_US


def partition_name(day: int) -> str:
    """Return the table that holds the scores stored on a day."""
    return f"scores_d{day}"


def ensure_score_partitions(db: Database, day: int | None = None) -> None:
    """Make the partitions of a day (default: the database's today) and of the day after; nothing on SQLite.

    Safe when several processes call it at once. Readers and committers are not held up: a partition is made
    beside the table and attached, which needs no exclusive lock on it.
    """
    if db.dialect != "postgresql":
        return
    with db.write() as connection:
        if day is None:
            day = day_number(db.now_us(connection))
        if {day, day + 1} <= list_partition_days(connection):
            return
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PARTITION_LOCK_KEY})
        present = list_partition_days(connection)
        for each in (day, day + 1):
            if each not in present:
                create_partition(connection, each)


def create_partition(connection: Connection, day: int) -> None:
    """Make and attach the partition of one day; the caller holds the makers' lock."""
    name = partition_name(day)
    connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE scores INCLUDING ALL)")
    connection.exec_driver_sql(f"ALTER TABLE scores ATTACH PARTITION {name} FOR VALUES FROM ({day}) TO ({day + 1})")


def list_partition_days(connection: Connection) -> set[int]:
    """Return the days that have a partition."""
    names = connection.scalars(
        sa.text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = to_regclass('scores')"
        )
    )
    return {int(match[1]) for match in map(_PARTITION_NAME.fullmatch, names) if match}


def drop_score_partitions(db: Database, before_day: int) -> list[int]:
    """Drop the partitions of the days before a day, one transaction each; returns the days dropped.

    Raises:
        StorageUnavailable: A reader held the table for more than a second; the next call goes on from there.
    """
    with db.read() as connection:
        old = sorted(day for day in list_partition_days(connection) if day < before_day)
    for day in old:
        with db.write() as connection:
            # Dropping waits for readers and makes committers wait behind it: so it gives up soon.
            connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {partition_name(day)}")
    return old
