"""Leases in the database, timed by its clock, so that one process at a time runs a stream's control plane."""

from __future__ import annotations

import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.tables import leases


class Leases:
    """Named leases with one holder at a time; a lease that is not renewed expires."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def acquire(self, name: str, holder: str, ttl_s: float) -> bool:
        """Take or renew a lease for `ttl_s` seconds; return whether `holder` has it.

        A lease that expires more than twice `ttl_s` from now was taken before the clock was set back, and is ignored:
        its holder may have ended, and the lease would block all others for as long as the clock was wrong.
        """
        with self._db.write() as conn:
            now_us, ttl_us = self._db.now_us(conn), int(ttl_s * 1e6)
            expired = sa.or_(leases.c.expires_at_us <= now_us, leases.c.expires_at_us > now_us + 2 * ttl_us)
            available = sa.or_(leases.c.holder == holder, expired)
            until_us = now_us + ttl_us
            updated = conn.execute(
                leases.update().where(leases.c.name == name, available).values(holder=holder, expires_at_us=until_us)
            )
            if updated.rowcount == 1:
                return True
            if conn.execute(sa.select(leases.c.name).where(leases.c.name == name)).first() is not None:
                return False
            inserted = conn.execute(
                self._db.insert(leases)
                .values(name=name, holder=holder, expires_at_us=until_us)
                .on_conflict_do_nothing()
                .returning(leases.c.name)
            )
            return inserted.first() is not None

    def find_holder(self) -> str | None:
        """Return a process that holds a lease now; None if all leases are released or expired."""
        query = sa.select(leases.c.holder).where(leases.c.expires_at_us > self._db.clock_expression()).limit(1)
        with self._db.read() as conn:
            holder: str | None = conn.scalar(query)
            return holder

    def release(self, name: str, holder: str) -> None:
        """Release a lease if `holder` has it."""
        with self._db.write() as conn:
            conn.execute(leases.delete().where(leases.c.name == name, leases.c.holder == holder))
