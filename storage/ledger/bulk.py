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
  source_id INTEGER, source_offset BIGINT, event_time_us BIGINT, energy REAL, threshold_id INTEGER, key TEXT,
  event_id TEXT
) ON COMMIT DELETE ROWS"""
_COPY_SCORES = """COPY staged_scores (
  source_id, source_offset, event_time_us, energy, threshold_id, key, event_id
) FROM STDIN (FORMAT BINARY)"""
_INSERT_STAGED_SCORES = """INSERT INTO scores (
  stored_day, stored_at_us, source_id, source_offset, event_time_us, energy, threshold_id, key, event_id
) SELECT %s, %s, source_id, source_offset, event_time_us, energy, threshold_id, key, event_id FROM staged_scores
WHERE source_id = ANY(%s)"""
_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
_COPY_TRAILER = struct.pack(">h", -1)
_ROWS_PER_STATEMENT = 500

# One row in PostgreSQL's binary COPY format up to the two columns of variable length: the number of fields, then the
# length in bytes and the bytes of each field, big-endian.
_FIXED_WIDTH_ROW = np.dtype(
    [
        ("fields", ">i2"),
        ("source_id_size", ">i4"),
        ("source_id", ">i4"),
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


def stage_scores(connection: Connection, scores: Mapping[int, ScoreColumns]) -> None:
    """Copy the scores of sources into a temporary table, without a lock (PostgreSQL only); `insert_scores` follows."""
    driver = connection.connection.driver_connection
    if not any(map(len, scores.values())) or not isinstance(driver, psycopg.Connection):
        return
    rows = (pack_scores(source_id, columns) for source_id, columns in scores.items())
    with driver.cursor() as cursor:
        cursor.execute(_CREATE_STAGING_TABLE)
        with cursor.copy(_COPY_SCORES) as copy:
            copy.write(b"".join((_COPY_HEADER, *rows, _COPY_TRAILER)))


def insert_scores(connection: Connection, stored_at_us: int, scores: Mapping[int, ScoreColumns]) -> None:
    """Insert the scores of sources, one row per event, all with the same time of storing.

    On PostgreSQL the rows are in the temporary table, which may hold further sources.
    """
    n = sum(map(len, scores.values()))
    if not n:
        return
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        _insert_scores_sqlite(driver, stored_at_us, scores)
        return
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(type(driver))
    with driver.cursor() as cursor:
        cursor.execute(_INSERT_STAGED_SCORES, (day_number(stored_at_us), stored_at_us, list(scores)))
        if cursor.rowcount != n:
            message = f"{n} scores were staged, {cursor.rowcount} inserted"
            raise RuntimeError(message)


def pack_scores(source_id: int, scores: ScoreColumns) -> bytes:
    """Return the rows of a source in PostgreSQL's binary COPY format, without header and trailer."""
    without_texts = scores.keys is None and scores.ids is None
    rows = np.zeros(len(scores), _ROW_WITHOUT_TEXTS if without_texts else _FIXED_WIDTH_ROW)
    rows["fields"] = 7
    for name in ("source_id", "source_offset", "event_time_us", "energy", "threshold_id"):
        rows[f"{name}_size"] = _FIXED_WIDTH_ROW[name].itemsize
    rows["source_id"] = source_id
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


def _insert_scores_sqlite(driver: sqlite3.Connection, stored_at_us: int, scores: Mapping[int, ScoreColumns]) -> None:
    columns = _flatten_scores(scores)
    width, n = len(columns), len(columns["source_id"])
    flat: list[object] = [None] * (width * n)
    for index, values in enumerate(columns.values()):
        flat[index::width] = values
    variables = driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    step = min(_ROWS_PER_STATEMENT, (variables - 1) // width)
    head = f"INSERT INTO scores (stored_at_us, {', '.join(columns)}) VALUES "
    row = f"(?1{', ?' * width})"
    full_statement = head + ", ".join([row] * step)
    for start in range(0, n, step):
        rows = min(step, n - start)
        statement = full_statement if rows == step else head + ", ".join([row] * rows)
        driver.execute(statement, (stored_at_us, *flat[start * width : (start + rows) * width]))


def _flatten_scores(scores: Mapping[int, ScoreColumns]) -> dict[str, Sequence[object]]:
    """Return the rows of all sources as columns of the table `scores`, without the time of storing."""
    rows = list(scores.values())
    sizes = [len(each) for each in rows]
    columns: dict[str, Sequence[object]] = {
        "source_id": np.repeat(list(scores), sizes).tolist(),
        "source_offset": np.concatenate([each.offsets for each in rows]).tolist(),
        "event_time_us": np.concatenate([each.times_us for each in rows]).tolist(),
        "energy": np.concatenate([each.energies for each in rows]).astype(np.float64).tolist(),
        "threshold_id": np.concatenate([each.threshold_ids for each in rows]).tolist(),
    }
    if any(each.keys is not None for each in rows):
        columns["key"] = join_texts([each.keys for each in rows], sizes)
    if any(each.ids is not None for each in rows):
        columns["event_id"] = join_texts([each.ids for each in rows], sizes)
    return columns


def join_texts(columns: Sequence[TextColumn | None], sizes: Sequence[int]) -> list[str | None]:
    """Return the storable texts of several columns of known lengths as one column; None stands for NULLs."""
    joined: list[str | None] = []
    for texts, n in zip(columns, sizes, strict=True):
        joined += [None] * n if texts is None else make_storable(texts)
    return joined


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


def shortest_decimals(values: NDArray[np.floating[Any]]) -> list[Any]:
    """Return values as the shortest decimals that round-trip in their precision.

    NaN and infinities, which JSON lacks, become None.
    """
    return [float(str(value)) if np.isfinite(value) else None for value in values]
