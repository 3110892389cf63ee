"""Signed links that have acted: each acts once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.time_format import DAY_US
from storage.database.chunks import CHUNK_ROWS, delete_in_chunks
from storage.database.engine import Database
from storage.database.tables import used_links

_MARGIN_US = DAY_US
"""A clock that is set back by less than a day makes no used link valid again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUse:
    """The use of a signed link: its id, and the time until which the id must be known, because the link is valid."""

    id: str
    expires_at_us: int


def is_link_used(db: Database, link_id: str) -> bool:
    """Return whether a link has acted."""
    with db.read() as conn:
        return conn.execute(sa.select(used_links.c.id).where(used_links.c.id == link_id)).first() is not None


def record_link_use(conn: Connection, use: LinkUse, now_us: int) -> bool:
    """Record that a link acts in this transaction; return False if it has acted already.

    The caller holds the lock on the stream's row, so that only one transaction at a time uses the links of a stream.
    """
    if conn.execute(sa.select(used_links.c.id).where(used_links.c.id == use.id)).first() is not None:
        return False
    conn.execute(used_links.insert().values(id=use.id, used_at_us=now_us, expires_at_us=use.expires_at_us))
    return True


def delete_used_links(db: Database, now_us: int, stopped: Callable[[], bool]) -> None:
    """Delete the uses of links that expired a day before a time."""
    expired = sa.select(used_links.c.id).where(used_links.c.expires_at_us < now_us - _MARGIN_US).limit(CHUNK_ROWS)
    delete_in_chunks(db, sa.delete(used_links).where(used_links.c.id.in_(expired)), stopped)
