"""The daily partitions of `scores` on PostgreSQL.

The partition key is the day on which a score is *stored*, so that an event with a wrong date needs no partition of its
own.
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.time_format import DAY_US
from storage.database.engine import Database

_PARTITION_LOCK_KEY = 0x6F757472_73636F72
"""The advisory lock that serialises the creation of partitions; any constant, the same in every version."""
_PARTITION_NAME = re.compile(r"scores_d(\d+)")


def day_number(time_us: int) -> int:
    """Return the day of a time as the number of days since 1970, in UTC."""
    return time_us // DAY_US


def partition_name(day: int) -> str:
    """Return the name of the table with the scores that were stored on a day."""
    return f"scores_d{day}"


def ensure_score_partitions(db: Database, day: int | None = None) -> None:
    """Create the partitions of a day (default: today, by the database's clock) and of the next; nothing on SQLite.

    Several processes may call it at once. It blocks neither readers nor commits: a partition is created as a separate
    table and then attached, which needs no exclusive lock on `scores`.
    """
    if db.dialect != "postgresql":
        return
    with db.write() as connection:
        if day is None:
            day = day_number(db.now_us(connection))
        if {day, day + 1} <= list_partition_days(connection):
            return
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PARTITION_LOCK_KEY})
        existing = list_partition_days(connection)
        for each in (day, day + 1):
            if each not in existing:
                create_partition(connection, each)


def create_partition(connection: Connection, day: int) -> None:
    """Create and attach the partition of one day; the caller holds the advisory lock.

    The function of the database runs with the rights of the owner of the tables, so that the daemon needs no right to
    create tables.
    """
    connection.execute(sa.text("SELECT create_score_partition(:day)"), {"day": day})


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
    """Drop the partitions of all days before `before_day`, one transaction each; return the dropped days.

    Raises:
        StorageUnavailable: A reader held the table for more than a second; the next call continues with the rest.
    """
    with db.read() as connection:
        expired = sorted(day for day in list_partition_days(connection) if day < before_day)
    for day in expired:
        with db.write() as connection:
            # DROP waits for readers and blocks commits while it waits, so it has a short timeout.
            connection.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
            connection.execute(sa.text("SELECT drop_score_partition(:day)"), {"day": day})
    return expired
