"""Deletion in chunks that are short enough not to delay commits."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from storage.database.engine import Database

CHUNK_ROWS = 5_000
"""Rows deleted in one transaction: under 100 ms on a slow disk, so that commits can run between two chunks."""


def delete_in_chunks(db: Database, delete: sa.Delete, stopped: Callable[[], bool]) -> int:
    """Run a statement that deletes at most `CHUNK_ROWS` rows until it deletes fewer; return the number of rows.

    Stops early when `stopped` returns True.
    """
    total = 0
    while not stopped():
        with db.write() as connection:
            deleted = connection.execute(delete).rowcount
        total += deleted
        if deleted < CHUNK_ROWS:
            break
    return total
