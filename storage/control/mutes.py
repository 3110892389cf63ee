"""Mutes: messages that a person does not want, by stream, kind, key or incident, for a time or weekly.

A mute is evaluated in the transaction that stores a message. The message is stored with the state `muted` and is never
sent; the first matching mute counts it. Incidents are stored and shown as without a mute.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from config.weekly_window import parse_weekly_window
from storage.control.records import Incident
from storage.database.engine import Database
from storage.database.tables import incidents, mutes, streams


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMute:
    """A mute to add; None in `stream`, `kind`, `key` or `incident_id` matches everything.

    It holds in [starts_at_us, ends_at_us) on the database's clock, and only in the weekly window `weekly` if there is
    one (`config.weekly_window`), in the time zone of the stream.
    """

    stream: str | None = None
    kind: str | None = None
    key: str | None = None
    incident_id: int | None = None
    starts_at_us: int
    ends_at_us: int
    weekly: str | None = None
    who: str
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMute(NewMute):
    """A mute with its id and the number of messages that it has held back."""

    id: int
    held_back: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MutableMessage:
    """The properties of a message that mutes match; `keys` are the suspect keys of its incident."""

    stream: str
    kind: str
    incident_id: int
    keys: frozenset[str]


def suspect_keys(row: Incident) -> frozenset[str]:
    """Return the suspect keys of an incident: those of its transition, else of its last opening."""
    details = [{} if row.transition is None else row.transition.details]
    details += [row.details.get(name, {}) for name in ("reopened", "opened")]
    return frozenset(next((_key_names(each) for each in details if each.get("keys")), ()))


def _key_names(details: Any) -> list[str]:
    return [str(suspect["key"]) for suspect in details["keys"]]


def find_mute(
    stored: Iterable[StoredMute], message: MutableMessage, *, now_us: int, timezone: str
) -> StoredMute | None:
    """Return the first mute that holds a message back; None if it is sent.

    Mutes of keys hold back a message only if together they name all suspect keys of its incident.
    """
    matching = list_matching(stored, message, now_us=now_us, timezone=timezone)
    return next((mute for mute in matching if mute.key is None), None) or _find_by_keys(matching, message)


def list_matching(
    stored: Iterable[StoredMute], message: MutableMessage, *, now_us: int, timezone: str
) -> list[StoredMute]:
    """Return the mutes in force that match a message, or one of its keys; see `find_mute` for whether they hold."""
    return [mute for mute in stored if _is_in_force(mute, now_us, timezone) and _matches(mute, message)]


def _find_by_keys(matching: Sequence[StoredMute], message: MutableMessage) -> StoredMute | None:
    keys = {mute.key for mute in matching if mute.key is not None}
    covers = bool(message.keys) and keys >= message.keys
    return next((mute for mute in matching if mute.key is not None), None) if covers else None


def _is_in_force(mute: StoredMute, now_us: int, timezone: str) -> bool:
    if not mute.starts_at_us <= now_us < mute.ends_at_us:
        return False
    return mute.weekly is None or parse_weekly_window(mute.weekly).contains(now_us, timezone)


def _matches(mute: StoredMute, message: MutableMessage) -> bool:
    wanted = (
        (mute.stream, message.stream),
        (mute.kind, message.kind),
        (mute.incident_id, message.incident_id),
    )
    is_own_key = mute.key is None or mute.key in message.keys
    return is_own_key and all(value is None or value == own for value, own in wanted)


def hold_back(conn: sa.Connection, message: MutableMessage, *, now_us: int, timezone: str, messages: int) -> bool:
    """Return whether a mute holds messages back, and count them.

    Args:
        conn: The transaction that stores the messages.
        message: The properties that the messages share.
        now_us: Time on the database's clock.
        timezone: IANA name of the time zone of the stream.
        messages: Number of new messages, one per channel; nothing is counted if it is 0.
    """
    if not messages:
        return False
    in_force = sa.select(mutes).where(mutes.c.starts_at_us <= now_us, mutes.c.ends_at_us > now_us)
    # Transactions of several streams lock the mutes in one order.
    in_force = in_force.order_by(mutes.c.id).with_for_update()
    found = find_mute(map(_to_mute, conn.execute(in_force)), message, now_us=now_us, timezone=timezone)
    if found is None:
        return False
    conn.execute(mutes.update().where(mutes.c.id == found.id).values(held_back=mutes.c.held_back + messages))
    return True


class MuteStore:
    """Adds, ends and lists mutes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, mute: NewMute) -> int:
        """Add a mute; return its id."""
        names = ("stream", "kind", "key", "incident_id", "starts_at_us", "ends_at_us", "weekly", "who", "note")
        with self._db.write() as conn:
            values = {name: getattr(mute, name) for name in names} | {"created_at_us": self._db.now_us(conn)}
            mute_id: int = conn.execute(mutes.insert().values(**values).returning(mutes.c.id)).scalar_one()
        return mute_id

    def end(self, mute_id: int) -> StoredMute | None:
        """End a mute now; return it as it was before, or None if there is no such mute."""
        with self._db.write() as conn:
            now_us = self._db.now_us(conn)
            row = conn.execute(sa.select(mutes).where(mutes.c.id == mute_id).with_for_update()).one_or_none()
            if row is None:
                return None
            if row.ends_at_us > now_us:
                ends = {"ends_at_us": now_us, "starts_at_us": min(row.starts_at_us, now_us)}
                conn.execute(mutes.update().where(mutes.c.id == mute_id).values(**ends))
            return _to_mute(row)

    def read_all(self) -> Sequence[StoredMute]:
        """Return all mutes, oldest first."""
        with self._db.read() as conn:
            return [_to_mute(row) for row in conn.execute(sa.select(mutes).order_by(mutes.c.id))]

    def now_us(self) -> int:
        """Return the time on the database's clock, which decides whether a mute holds."""
        return self._db.now_us()

    def has_incident(self, incident_id: int) -> bool:
        """Return whether an incident exists."""
        with self._db.read() as conn:
            return conn.execute(sa.select(incidents.c.id).where(incidents.c.id == incident_id)).first() is not None

    def stream_names(self) -> list[str]:
        """Return the names of the stored streams, sorted."""
        with self._db.read() as conn:
            return list(conn.scalars(sa.select(streams.c.name).order_by(streams.c.name)))


def _to_mute(row: sa.Row[Any]) -> StoredMute:
    return StoredMute(
        id=row.id,
        stream=row.stream,
        kind=row.kind,
        key=row.key,
        incident_id=row.incident_id,
        starts_at_us=row.starts_at_us,
        ends_at_us=row.ends_at_us,
        weekly=row.weekly,
        who=row.who,
        note=row.note,
        held_back=row.held_back,
    )
