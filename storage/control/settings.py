"""The settings of a stream over event time, and the processes that run it with the hashes of their files.

A process decides whether its file becomes the stream's settings from facts that are read under the lock of the stream
(`SettingsStore.exchange`), so that two processes cannot decide differently at the same time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from config.auto import AUTO, RESOLVED
from config.setting_classes import window_lengths_us
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import replicas, settings, streams

REPLICA_TTL_S = 15.0
"""Seconds after its last heartbeat in which a process counts as running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """The settings of one class (`scope`) of a stream from an event time on; `valid_from_us` is None for the first.

    `hash` is the hash of the shared settings of the file that the row comes from.
    """

    revision: int
    scope: str
    valid_from_us: int | None
    hash: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A process that runs a stream; `settings_hash` is that of its file."""

    owner: str
    heartbeat_us: int
    settings_hash: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFacts:
    """Input of the decision about the settings of a stream.

    Attributes:
        window_size_us: The size of the newest windows.
        lead_us: The largest lead that the stream has ever had.
        sealed_until_us: The end of the sealed windows; None if no window is sealed.
        rows: All stored settings in the order of their revisions.
        live_hashes: The hashes of the files of the other processes that run the stream.
    """

    window_size_us: int
    lead_us: int
    sealed_until_us: int | None
    rows: Sequence[SettingRow]
    live_hashes: frozenset[str]

    @property
    def active_hash(self) -> str | None:
        """Return the hash of the file that the newest settings come from; None without stored settings."""
        return self.rows[-1].hash if self.rows else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSettings:
    """Rows of one or several new revisions, with the size of the newest windows and their lead."""

    rows: Sequence[SettingRow]
    window_size_us: int
    lead_us: int


class SettingsStore:
    """Reads and writes the settings of streams. One instance may be used by all threads of a process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def exchange(
        self, stream_id: int, own: Replica, decide: Callable[[SettingsFacts], NewSettings | None]
    ) -> list[SettingRow]:
        """Record a heartbeat of this process, and store the settings that `decide` returns, in one transaction.

        Returns:
            All settings of the stream in the order of their revisions.
        """
        with self._db.write() as connection:
            lock_stream(connection, stream_id)
            now_us = self._db.now_us(connection)
            self._record_heartbeat(connection, stream_id, own, now_us)
            facts = _read_facts(connection, stream_id, own.owner, now_us)
            new = decide(facts)
            if new is None:
                return list(facts.rows)
            _insert_settings(connection, stream_id, new, now_us)
            return [*facts.rows, *new.rows]

    def beat(self, own: Mapping[int, Replica]) -> list[int]:
        """Record the heartbeats of this process for its streams, by their ids, in one transaction.

        Returns:
            The streams with settings of another hash than that of the process's file.
        """
        with self._db.write() as connection:
            now_us = self._db.now_us(connection)
            for stream_id, replica in sorted(own.items()):
                self._record_heartbeat(connection, stream_id, replica, now_us)
            return [
                stream_id
                for stream_id, replica in own.items()
                if _read_active_hash(connection, stream_id) != replica.settings_hash
            ]

    def _record_heartbeat(self, connection: sa.Connection, stream_id: int, own: Replica, now_us: int) -> None:
        values = {"heartbeat_us": now_us, "settings_hash": own.settings_hash, "version": own.version}
        insert = self._db.insert(replicas).values(stream_id=stream_id, owner=own.owner, **values)
        connection.execute(insert.on_conflict_do_update(index_elements=["stream_id", "owner"], set_=values))

    def leave(self, owner: str, stream_id: int | None = None) -> None:
        """Delete the heartbeats of a process that ends, or its heartbeat of one stream."""
        of_stream = () if stream_id is None else (replicas.c.stream_id == stream_id,)
        with self._db.write() as connection:
            connection.execute(replicas.delete().where(replicas.c.owner == owner, *of_stream))

    def delete_replicas(self) -> None:
        """Delete all heartbeats: for the only process that may run on a SQLite file, before its first heartbeat."""
        with self._db.write() as connection:
            connection.execute(replicas.delete())

    def read_facts(self, stream_id: int, owner: str) -> SettingsFacts:
        """Return the facts as `exchange` reads them, for a preview of its decision."""
        with self._db.read() as connection:
            return _read_facts(connection, stream_id, owner, self._db.now_us(connection))

    def read_rows(self, stream_id: int) -> list[SettingRow]:
        """Return all settings of a stream in the order of their revisions."""
        with self._db.read() as connection:
            return _read_rows(connection, stream_id)

    def active_hash(self, stream_id: int) -> str | None:
        """Return the hash of the file that the newest settings of a stream come from; None without stored settings."""
        with self._db.read() as connection:
            return _read_active_hash(connection, stream_id)

    def live_replicas(self, stream_id: int) -> list[Replica]:
        """Return the processes that run a stream now, by owner."""
        with self._db.read() as connection:
            return _read_live(connection, stream_id, self._db.now_us(connection))


def _read_facts(connection: sa.Connection, stream_id: int, owner: str, now_us: int) -> SettingsFacts:
    stream = connection.execute(
        sa.select(streams.c.window_size_us, streams.c.lead_us, streams.c.sealed_until_us).where(
            streams.c.id == stream_id
        )
    )
    live = _read_live(connection, stream_id, now_us)
    return SettingsFacts(
        **stream.mappings().one(),
        rows=_read_rows(connection, stream_id),
        live_hashes=frozenset(each.settings_hash for each in live if each.owner != owner),
    )


def _read_rows(connection: sa.Connection, stream_id: int) -> list[SettingRow]:
    columns = (
        settings.c.revision,
        settings.c.scope,
        settings.c.valid_from_us,
        settings.c.hash,
        settings.c.content,
    )
    query = sa.select(*columns).where(settings.c.stream_id == stream_id)
    rows = connection.execute(query.order_by(settings.c.revision, settings.c.scope)).mappings()
    return [SettingRow(**{**row, "content": json.loads(row["content"])}) for row in rows]


def _read_active_hash(connection: sa.Connection, stream_id: int) -> str | None:
    query = sa.select(settings.c.hash).where(settings.c.stream_id == stream_id)
    active: str | None = connection.scalar(query.order_by(settings.c.revision.desc()).limit(1))
    return active


def _read_live(connection: sa.Connection, stream_id: int, now_us: int) -> list[Replica]:
    """Return the processes with a recent heartbeat. One in the future is from before the clock was set back."""
    ttl_us = int(REPLICA_TTL_S * 1e6)
    query = sa.select(replicas.c.owner, replicas.c.heartbeat_us, replicas.c.settings_hash, replicas.c.version).where(
        replicas.c.stream_id == stream_id,
        replicas.c.heartbeat_us > now_us - ttl_us,
        replicas.c.heartbeat_us <= now_us + ttl_us,
    )
    return [Replica(**row) for row in connection.execute(query.order_by(replicas.c.owner)).mappings()]


def _insert_settings(connection: sa.Connection, stream_id: int, new: NewSettings, now_us: int) -> None:
    for row in new.rows:
        connection.execute(
            settings.insert().values(
                stream_id=stream_id,
                revision=row.revision,
                scope=row.scope,
                valid_from_us=row.valid_from_us,
                hash=row.hash,
                content=json.dumps(row.content, sort_keys=True),
                recorded_at_us=now_us,
            )
        )
    connection.execute(
        streams.update()
        .where(streams.c.id == stream_id)
        .values(
            settings_revision=max(row.revision for row in new.rows),
            window_size_us=new.window_size_us,
            lead_us=sa.case((streams.c.lead_us > new.lead_us, streams.c.lead_us), else_=new.lead_us),
        )
    )


def record_resolved(connection: sa.Connection, stream_id: int, resolved: Mapping[str, object], now_us: int) -> None:
    """Store the values that the first model found for settings that are `auto`, as a new revision of the settings.

    The file's values stay `auto`; the found ones have the prefix `resolved.`. Does nothing without stored settings. The
    caller holds the lock on the stream's row.
    """
    newest = {row.scope: row for row in _read_rows(connection, stream_id)}
    found = [
        replace(row, content={**row.content, **values})
        for row in newest.values()
        if (values := {f"{RESOLVED}{key}": each for key, each in resolved.items() if row.content.get(key) == AUTO})
    ]
    if not found:
        return
    columns = (streams.c.settings_revision, streams.c.window_size_us, streams.c.lead_us)
    revision, size_us, lead_us = connection.execute(sa.select(*columns).where(streams.c.id == stream_id)).one()
    active = _read_active_hash(connection, stream_id) or found[0].hash
    for row in found:
        if row.scope == "fold":
            size_us, lead_us = window_lengths_us(row.content)
    new = NewSettings(
        rows=[replace(row, revision=revision + 1, hash=active) for row in found],
        window_size_us=size_us,
        lead_us=lead_us,
    )
    _insert_settings(connection, stream_id, new, now_us)


def delete_settings(db: Database, cut_us: int) -> int:
    """Delete settings that later ones of their class have superseded; return their number.

    A row is superseded if a later one was stored before `cut_us` and is valid for all windows that are not sealed.
    """
    later = settings.alias("later")
    superseding = (
        sa.select(later.c.revision)
        .join(streams, streams.c.id == later.c.stream_id)
        .where(
            later.c.stream_id == settings.c.stream_id,
            later.c.scope == settings.c.scope,
            later.c.revision > settings.c.revision,
            later.c.recorded_at_us < cut_us,
            sa.or_(later.c.valid_from_us.is_(None), later.c.valid_from_us <= streams.c.sealed_until_us),
        )
        .correlate(settings)
        .exists()
    )
    with db.write() as connection:
        return connection.execute(sa.delete(settings).where(superseding)).rowcount


def delete_replicas(db: Database, cut_us: int) -> int:
    """Delete the heartbeats of processes that have had none since a time; return their number."""
    with db.write() as connection:
        return connection.execute(sa.delete(replicas).where(replicas.c.heartbeat_us < cut_us)).rowcount
