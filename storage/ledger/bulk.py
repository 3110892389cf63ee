"""Bulk insertion into a running transaction, through the driver instead of SQLAlchemy.

SQLAlchemy's executemany costs ten times as much on PostgreSQL and four times as much on SQLite. Table and column names
in the statements are constants of this package, never input.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from storage.database.partitions import day_number
from storage.database.tables import metadata
from storage.database.texts import TextColumn, make_storable
from storage.ledger.commit import ScoreColumns

# A client that freezes inside a COPY would keep its transaction open indefinitely: no timeout applies while the server
# waits for the rest of the data. Scores are therefore copied into a temporary table, before the commit locks any row.
# After that the transaction consists of single statements, to which the session's timeouts apply.
_CREATE_STAGING_TABLE = """CREATE TEMPORARY TABLE IF NOT EXISTS staged_scores (
  source_offset BIGINT, event_time_us BIGINT, energy REAL, threshold_id INTEGER, key TEXT, event_id TEXT
) ON COMMIT DELETE ROWS"""
_COPY_SCORES = (
    "COPY staged_scores (source_offset, event_time_us, energy, threshold_id, key, event_id) FROM STDIN (FORMAT BINARY)"
)
_INSERT_STAGED_SCORES = """INSERT INTO scores (
  stored_day, source_id, stored_at_us, source_offset, event_time_us, energy, threshold_id, key, event_id
) SELECT %s, %s, %s, source_offset, event_time_us, energy, threshold_id, key, event_id FROM staged_scores"""
_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
_COPY_TRAILER = struct.pack(">h", -1)
_ROWS_PER_STATEMENT = 500

# One row in PostgreSQL's binary COPY format up to the two columns of variable length: the number of fields, then the
# length in bytes and the bytes of each field, big-endian.
_FIXED_WIDTH_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("source_offset_size", ">i4"),
        ("source_offset", ">i8"),
        ("event_time_us_size", ">i4"),
        ("event_time_us", ">i8"),
        ("energy_size", ">i4"),
        ("energy", ">f4"),
        ("threshold_id_size", ">i4"),
        ("threshold_id", ">i4"),
    ]
)
_ROW_WITHOUT_TEXTS = np.dtype([*_FIXED_WIDTH_ROW.descr, ("key_size", ">i4"), ("event_id_size", ">i4")])
_COPY_NULL = struct.pack(">i", -1)


def stage_scores(connection: Connection, scores: ScoreColumns) -> None:
    """Copy the scores into a temporary table, without a lock (PostgreSQL only); `insert_scores` must follow."""
    driver = connection.connection.driver_connection
    if not len(scores) or not isinstance(driver, psycopg.Connection):
        return
    with driver.cursor() as cursor:
        cursor.execute(_CREATE_STAGING_TABLE)
        with cursor.copy(_COPY_SCORES) as copy:
            copy.write(b"".join((_COPY_HEADER, pack_scores(scores), _COPY_TRAILER)))


def insert_scores(connection: Connection, source_id: int, stored_at_us: int, scores: ScoreColumns) -> None:
    """Insert one row per event, all with the same time of storing; on PostgreSQL from the temporary table."""
    if not len(scores):
        return
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        _insert_scores_sqlite(driver, source_id, stored_at_us, scores)
        return
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(type(driver))
    with driver.cursor() as cursor:
        cursor.execute(_INSERT_STAGED_SCORES, (day_number(stored_at_us), source_id, stored_at_us))
        if cursor.rowcount != len(scores):
            message = f"{len(scores)} scores were staged, {cursor.rowcount} inserted"
            raise RuntimeError(message)


def pack_scores(scores: ScoreColumns) -> bytes:
    """Return the rows in PostgreSQL's binary COPY format, without header and trailer."""
    without_texts = scores.keys is None and scores.ids is None
    rows = np.zeros(len(scores), _ROW_WITHOUT_TEXTS if without_texts else _FIXED_WIDTH_ROW)
    rows["fields"] = 6
    for name in ("source_offset", "event_time_us", "energy", "threshold_id"):
        rows[f"{name}_size"] = _FIXED_WIDTH_ROW[name].itemsize
    rows["source_offset"] = scores.offsets
    rows["event_time_us"] = scores.times_us
    rows["energy"] = scores.energies
    rows["threshold_id"] = scores.threshold_ids
    if without_texts:
        rows["key_size"] = rows["event_id_size"] = -1
        return rows.tobytes()
    pieces: list[bytes] = [b""] * (3 * len(scores))
    pieces[0::3] = rows.view(f"V{_FIXED_WIDTH_ROW.itemsize}").tolist()
    pieces[1::3] = _pack_texts(scores.keys, len(scores))
    pieces[2::3] = _pack_texts(scores.ids, len(scores))
    return b"".join(pieces)


def _pack_texts(texts: TextColumn | None, n: int) -> list[bytes]:
    if texts is None:
        return [_COPY_NULL] * n
    size = struct.Struct(">i").pack
    encoded = (None if text is None else text.encode() for text in make_storable(texts))
    return [_COPY_NULL if data is None else size(len(data)) + data for data in encoded]


def _insert_scores_sqlite(driver: sqlite3.Connection, source_id: int, stored_at_us: int, scores: ScoreColumns) -> None:
    columns: dict[str, Sequence[object]] = {
        "source_offset": scores.offsets.tolist(),
        "event_time_us": scores.times_us.tolist(),
        "energy": scores.energies.astype(np.float64).tolist(),
        "threshold_id": scores.threshold_ids.tolist(),
    }
    if scores.keys is not None:
        columns["key"] = make_storable(scores.keys)
    if scores.ids is not None:
        columns["event_id"] = make_storable(scores.ids)
    width, n = len(columns), len(scores)
    flat: list[object] = [None] * (width * n)
    for index, values in enumerate(columns.values()):
        flat[index::width] = values
    variables = driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    step = min(_ROWS_PER_STATEMENT, (variables - 2) // width)
    head = f"INSERT INTO scores (source_id, stored_at_us, {', '.join(columns)}) VALUES "
    row = f"(?1, ?2{', ?' * width})"
    full_statement = head + ", ".join([row] * step)
    for start in range(0, n, step):
        rows = min(step, n - start)
        statement = full_statement if rows == step else head + ", ".join([row] * rows)
        driver.execute(statement, (source_id, stored_at_us, *flat[start * width : (start + rows) * width]))


def insert_columns(connection: Connection, table: str, columns: Mapping[str, Sequence[object]]) -> None:
    """Insert rows, given as columns of equal length, into a table; texts must be storable (`make_storable`)."""
    names = ", ".join(f'"{name}"' for name in columns)
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        rows = zip(*columns.values(), strict=True)
        placeholders = ", ".join("?" * len(columns))
        driver.executemany(f"INSERT INTO {table} ({names}) VALUES ({placeholders})", rows)
        return
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(type(driver))
    types = (metadata.tables[table].c[name].type.compile(connection.dialect) for name in columns)
    arrays = ", ".join(f"%s::{kind}[]" for kind in types)
    with driver.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays})",
            [list(values) for values in columns.values()],
        )


def shortest_decimals(values: NDArray[np.float32]) -> list[Any]:
    """Return float32 values as the shortest decimals that round-trip; None for NaN and infinities, which JSON lacks."""
    return [float(str(value)) if np.isfinite(value) else None for value in values]
