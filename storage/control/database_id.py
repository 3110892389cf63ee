"""The id of a database: ids of incidents repeat in other databases, and receivers may get messages of several."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.tables import streams

_CHARACTERS = 12


class DatabaseId:
    """Reads the id of a database at the first use. A copy of the database has the same id."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._id: str | None = None

    def read(self) -> str:
        """Return the id, from the first stream of the database; streams are never deleted.

        Raises:
            LookupError: The database has no stream yet, and so no incident.
        """
        if self._id is None:
            query = sa.select(streams.c.id, streams.c.name, streams.c.created_at_us).order_by(streams.c.id).limit(1)
            with self._db.read() as conn:
                first = conn.execute(query).one_or_none()
            if first is None:
                message = f"{self._db.address} has no stream yet"
                raise LookupError(message)
            self._id = hashlib.sha256("|".join(map(str, first)).encode()).hexdigest()[:_CHARACTERS]
        return self._id
