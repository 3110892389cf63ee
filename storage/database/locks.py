"""The row lock that serialises the control transactions of a stream."""

from __future__ import annotations

import sqlalchemy as sa

from storage.database.tables import streams

_LOCK_STREAM = sa.select(streams.c.id).where(streams.c.id == sa.bindparam("stream_id")).with_for_update(key_share=True)


def lock_stream(conn: sa.Connection, stream_id: int) -> None:
    """Lock the stream's row until the transaction ends, so that control transactions run one at a time.

    The lock also holds against a process that wrongly believes to own the stream's lease. Take it first in a
    transaction, before any row of `positions`. It is FOR NO KEY UPDATE: other transactions may still insert rows that
    refer to the stream.
    """
    conn.execute(_LOCK_STREAM, {"stream_id": stream_id})
