"""The copy of a database into an empty one of the same or the other kind, in chunks.

The source is read in one snapshot. The target has no valid schema revision until the copy is complete, so that neither
a daemon nor a reader can use an incomplete copy. Leases are not copied.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.errors import ConfigError, OutriderError
from storage.database.engine import Database
from storage.database.leases import Leases
from storage.database.migrations.upgrade import upgrade
from storage.database.partitions import day_number, ensure_score_partitions
from storage.database.revisions import INCOMPLETE_COPY, KNOWN_REVISIONS
from storage.database.tables import leases, metadata, replicas, scores

_CHUNK_ROWS = 5_000
_CHUNK_ROWS_WITH_PAYLOAD = 500
"""Rows of a table with binary columns: a payload has some ten kilobytes."""

_STORED_DAY = "stored_day"
"""The partition key of `scores` on PostgreSQL."""

Row = tuple[Any, ...]


class CopyFailed(OutriderError):  # noqa: N818 - names the state, as its siblings do
    """The target does not hold the rows of the source after a copy."""


def copy_database(source: Database, target: Database, report: Callable[[str, int], None]) -> int:
    """Copy all rows of a database into an empty one; return their number.

    Args:
        source: The database to read; it is not changed.
        target: An empty database; the tables are created if necessary.
        report: Called with the name and the number of rows of each table that is copied.

    Raises:
        ConfigError: A daemon uses one of the databases, both are the same one, or the target holds rows.
        SchemaMismatch: The source has another schema than this version, or the target is an incomplete copy.
        StorageUnavailable: One of the databases cannot be reached; the target is incomplete if the copy has begun.
        CopyFailed: The target does not hold the rows of the source.
    """
    if source.identity == target.identity:
        message = f"{source.address} is both the source and the target: name another target"
        raise ConfigError(message)
    with ExitStack() as stack:
        for db in (source, target):
            stack.enter_context(db.lock_for_daemon())
        source.check_schema()
        _refuse_running_daemon(source)
        _prepare_target(target)
        _set_revision(target, INCOMPLETE_COPY)
        with source.read() as reader:
            _begin_snapshot(source, reader)
            counts = {table.name: _copy_table(source, reader, target, table, report) for table in _copied_tables()}
            _check_counts(reader, target, counts)
        if target.dialect == "postgresql":
            _reset_sequences(target)
        _set_revision(target, KNOWN_REVISIONS[-1])
        target.checkpoint_wal()
    return sum(counts.values())


def _copied_tables() -> list[sa.Table]:
    """Return the tables in an order in which every row follows the rows that it refers to."""
    return [table for table in metadata.sorted_tables if table not in (leases, replicas)]


def _refuse_running_daemon(db: Database) -> None:
    """Raise if a daemon holds a lease of a PostgreSQL database; on SQLite the lock of the daemon shows it.

    Raises:
        ConfigError: A daemon runs, or it ended without releasing its lease, which then expires.
    """
    holder = Leases(db).find_holder() if db.dialect == "postgresql" else None
    if holder is not None:
        message = (
            f"{db.address} is in use by an Outrider daemon ({holder}): stop it; after a daemon was killed, "
            "try again in a minute"
        )
        raise ConfigError(message)


def _prepare_target(target: Database) -> None:
    """Create or upgrade the tables of the target, which must be empty."""
    revision = target.schema_revision()
    if revision is not None:
        if revision not in KNOWN_REVISIONS:
            target.check_schema()
        _refuse_running_daemon(target)
        _refuse_rows(target)
    upgrade(target)


def _refuse_rows(target: Database) -> None:
    with target.read() as connection:
        existing = set(sa.inspect(connection).get_table_names())
        for table in _copied_tables():
            if (
                table.name in existing
                and connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first()
            ):
                message = (
                    f"{target.address} is not empty (table {table.name} has rows): a copy replaces nothing; "
                    "name a new file or an empty database as the target"
                )
                raise ConfigError(message)


def _set_revision(target: Database, revision: str) -> None:
    with target.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def _begin_snapshot(source: Database, reader: Connection) -> None:
    """Make the transaction read one snapshot, however long it takes; a transaction of SQLite does so already."""
    if source.dialect == "postgresql":
        reader.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        reader.exec_driver_sql("SET LOCAL statement_timeout = 0")
        reader.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")


def _copy_table(
    source: Database, reader: Connection, target: Database, table: sa.Table, report: Callable[[str, int], None]
) -> int:
    """Copy the rows of a table, one transaction of the target for each chunk; return their number."""
    has_days = table is scores and target.dialect == "postgresql"
    names = [*table.c.keys(), *([_STORED_DAY] if has_days else [])]
    days: set[int] = set()
    total = 0
    for rows in _read_chunks(source, reader, table):
        if has_days:
            stored_at = names.index("stored_at_us")
            rows = [(*row, day_number(row[stored_at])) for row in rows]  # noqa: PLW2901 - the rows of the target
            for day in sorted({row[-1] for row in rows} - days):
                ensure_score_partitions(target, day)
                days.add(day)
        with target.write() as connection:
            _insert_rows(connection, table.name, names, rows)
        total += len(rows)
    report(table.name, total)
    return total


def _read_chunks(source: Database, reader: Connection, table: sa.Table) -> Iterator[Sequence[Row]]:
    """Yield the rows of a table in the order of the primary key, of scores on PostgreSQL within each stored day."""
    has_payload = any(isinstance(column.type, sa.LargeBinary) for column in table.c)
    order: list[Any] = list(table.primary_key.columns)
    if table is scores and source.dialect == "postgresql":
        order.insert(0, sa.literal_column(_STORED_DAY))
    query = sa.select(table).order_by(*order)
    size = _CHUNK_ROWS_WITH_PAYLOAD if has_payload else _CHUNK_ROWS
    # PostgreSQL returns the shortest decimal that rounds to the float32; SQLite stores and compares the float32 itself.
    narrow = [index for index, column in enumerate(table.c) if isinstance(column.type, sa.REAL)]
    for rows in reader.execute(query, execution_options={"yield_per": size}).partitions():
        yield [_to_float32(tuple(row), narrow) for row in rows] if narrow else [tuple(row) for row in rows]


def _to_float32(row: Row, columns: Sequence[int]) -> Row:
    values = list(row)
    for index in columns:
        if values[index] is not None:
            values[index] = float(np.float32(values[index]))
    return tuple(values)


def _insert_rows(connection: Connection, table: str, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Insert rows through the driver. Table and column names are constants of this package, never input."""
    columns = ", ".join(f'"{name}"' for name in names)
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        placeholders = ", ".join("?" * len(names))
        driver.executemany(f"INSERT INTO {table} ({columns}) VALUES ({placeholders})", rows)
        return
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(type(driver))
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _check_counts(reader: Connection, target: Database, counts: dict[str, int]) -> None:
    """Compare the number of rows of each table in the snapshot of the source and in the target."""
    for table in _copied_tables():
        query = sa.select(sa.func.count()).select_from(table)
        expected = reader.execute(query).scalar_one()
        with target.read() as connection:
            found = connection.execute(query).scalar_one()
        if not expected == found == counts[table.name]:
            message = (
                f"{target.address} has {found} rows in table {table.name}, the source has {expected}: "
                "check that nothing else writes to the target, delete it and copy again"
            )
            raise CopyFailed(message)


def _reset_sequences(target: Database) -> None:
    """Let the sequence of each id of a PostgreSQL database continue after the largest copied id."""
    with target.write() as connection:
        for table in _copied_tables():
            if "id" in table.c and isinstance(table.c.id.type, sa.Integer):
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), coalesce(max(id), 1), "
                    f"max(id) IS NOT NULL) FROM {table.name}"
                )
