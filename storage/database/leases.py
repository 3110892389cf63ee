"""Storage room: leases, held in the database and timed by its clock, so that one holder at a time runs a stream."""

from __future__ import annotations

import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.tables import leases


class Leases:
    """Names that one holder at a time may hold; a holder that stops renewing loses its lease by itself."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def acquire(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or renew the lease for `ttl_s` seconds; return whether it is ours now.

        One that holds for much longer than that was taken before the clock was set back, and counts for nothing: its
        holder may be gone, and would keep everybody else waiting for as long as the clock was wrong.
        """
        with self._db.write() as conn:
            now_us, ttl_us = self._db.now_us(conn), int(ttl_s * 1e6)
            over = sa.or_(leases.c.expires_at_us <= now_us, leases.c.expires_at_us > now_us + 2 * ttl_us)
            mine = sa.or_(leases.c.holder == holder, over)
            until_us = now_us + ttl_us
            taken = conn.execute(
                leases.update().where(leases.c.name == name, mine).values(holder=holder, expires_at_us=until_us)
            )
            if taken.rowcount == 1:
                return True
            if conn.execute(sa.select(leases.c.name).where(leases.c.name == name)).first() is not None:
                return False
            added = conn.execute(
                self._db.insert(leases)
                .values(name=name, holder=holder, expires_at_us=until_us)
                .on_conflict_do_nothing()
                .returning(leases.c.name)
            )
            return added.first() is not None

    def release(self, name: str, holder: str) -> None:
        """Give the lease up, if it is ours."""
        with self._db.write() as conn:
            conn.execute(leases.delete().where(leases.c.name == name, leases.c.holder == holder))
