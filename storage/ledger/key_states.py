"""Storage of the states of keys: one row per source and commit that changed some, and from time to time a snapshot.

A take-over reads the newest snapshot of a source and the changes after it. The numbers are stored bit for bit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database
from storage.database.tables import key_states
from storage.ledger.bulk import insert_columns
from storage.ledger.commit import Commit, KeyStateRows

_HEADER = struct.Struct("<BII")  # version, number of keys, numbers per state
_VERSION = 1
_NO_KEY = -1


def encode_key_states(rows: KeyStateRows) -> bytes:
    """Return the states as bytes, little-endian; a key is encoded as UTF-8, with its length, -1 for None."""
    texts = [None if key is None else key.encode("utf-8", "surrogatepass") for key in rows.keys]
    lengths = np.array([_NO_KEY if text is None else len(text) for text in texts], "<i4")
    return b"".join(
        [
            _HEADER.pack(_VERSION, len(texts), rows.values.shape[1]),
            lengths.tobytes(),
            rows.last_offsets.astype("<i8").tobytes(),
            rows.values.astype("<f8").tobytes(),
            *(text for text in texts if text is not None),
        ]
    )


def decode_key_states(payload: bytes) -> KeyStateRows:
    """Return the states from their bytes.

    Raises:
        ValueError: Another version has written them.
    """
    version, n, width = _HEADER.unpack_from(payload)
    if version != _VERSION:
        message = f"the state of keys has version {version}; this program reads version {_VERSION}"
        raise ValueError(message)
    place = _HEADER.size
    lengths = np.frombuffer(payload, "<i4", n, place)
    place += lengths.nbytes
    last_offsets = np.frombuffer(payload, "<i8", n, place).astype(np.int64)
    place += last_offsets.nbytes
    values = np.frombuffer(payload, "<f8", n * width, place).astype(np.float64).reshape(n, width)
    place += values.nbytes
    keys: list[str | None] = []
    for length in lengths.tolist():
        keys.append(None if length == _NO_KEY else payload[place : place + length].decode("utf-8", "surrogatepass"))
        place += max(length, 0)
    return KeyStateRows(keys=tuple(keys), last_offsets=last_offsets, values=values)


def insert_key_states(connection: Connection, commits: Sequence[Commit]) -> None:
    """Insert the states that commits changed; a snapshot replaces all earlier rows of its source."""
    changes = [(commit.source_id, commit.end, commit.key_state) for commit in commits if commit.key_state is not None]
    if not changes:
        return
    for source_id, end_offset, change in changes:
        if change.is_snapshot:
            earlier = (key_states.c.source_id == source_id, key_states.c.end_offset < end_offset)
            connection.execute(sa.delete(key_states).where(*earlier))
    insert_columns(
        connection,
        "key_states",
        {
            "source_id": [source_id for source_id, _, _ in changes],
            "end_offset": [end_offset for _, end_offset, _ in changes],
            "snapshot": [change.is_snapshot for _, _, change in changes],
            "payload": [encode_key_states(change.rows) for _, _, change in changes],
        },
    )


def read_key_states(db: Database, source_id: int, next_offset: int) -> Sequence[KeyStateRows]:
    """Return the newest snapshot of a source up to its position, if any, and the changes after it, in order."""
    columns = (key_states.c.end_offset, key_states.c.snapshot, key_states.c.payload)
    query = (
        sa.select(*columns)
        .where(key_states.c.source_id == source_id, key_states.c.end_offset <= next_offset)
        .order_by(key_states.c.end_offset)
    )
    with db.read() as connection:
        rows = connection.execute(query).all()
    first = max((index for index, row in enumerate(rows) if row.snapshot), default=0)
    return [decode_key_states(row.payload) for row in rows[first:]]
