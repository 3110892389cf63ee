"""The names of the streams that the database knows."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.tables import streams


def read_stream_names(connection: Connection) -> list[str]:
    """Return the names of all streams, sorted."""
    return list(connection.scalars(sa.select(streams.c.name).order_by(streams.c.name)))
