"""Streams, their sources and incarnations, and the ownership of a source.

Locks are taken in the order of the control plane: the row of the stream, then the rows of `positions` by source id. No
function here can therefore deadlock with a seal, nor with a commit, which locks its positions in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import positions, sources, streams
from storage.ledger.commit import StreamControl
from storage.ledger.unread_logs import record_unread_logs


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """A stored stream."""

    id: int
    name: str
    window_size_us: int
    control: StreamControl


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSource:
    """A discovered partition; `next_offset` and `cursor` are its start if it is new or has another identity."""

    topic: str
    partition: int
    identity: str
    next_offset: int
    cursor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """A partition in its current incarnation, with its position."""

    source_id: int
    topic: str
    partition: int
    incarnation: int
    identity: str
    next_offset: int
    cursor: int | None
    watermark_us: int | None
    last_event_us: int | None
    idle_until_us: int
    epoch: int
    owner: str | None
    committed_at_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceClaim:
    """The right to commit for a source, until another owner claims it; `epoch` increases with each claim."""

    source_id: int
    epoch: int
    next_offset: int
    cursor: int | None
    watermark_us: int | None


def open_stream(db: Database, name: str, window_size_us: int, lead_us: int) -> StreamState:
    """Return the stream with a name; create it if it does not exist.

    An existing stream is not changed: its settings change by `storage.control.settings`.

    Args:
        db: The database.
        name: The stream's name.
        window_size_us: The length of the first windows of a new stream.
        lead_us: The lead of a new stream, grace + ahead.
    """
    with db.write() as connection:
        row = _select_stream(connection, name)
        if row is None:
            connection.execute(
                db.insert(streams)
                .values(
                    name=name,
                    window_size_us=window_size_us,
                    lead_us=lead_us,
                    revision=0,
                    created_at_us=db.clock_expression(),
                )
                .on_conflict_do_nothing()
            )
            row = _select_stream(connection, name)
        if row is None:
            message = f"stream {name} was deleted while it was being opened"
            raise LookupError(message)
        return StreamState(
            id=row.id,
            name=row.name,
            window_size_us=row.window_size_us,
            control=StreamControl(
                sealed_until_us=row.sealed_until_us,
                revision=row.revision,
                last_tick_us=row.last_tick_us,
                settings_revision=row.settings_revision,
            ),
        )


def _select_stream(connection: Connection, name: str) -> sa.Row[tuple[object, ...]] | None:
    return connection.execute(sa.select(streams).where(streams.c.name == name)).one_or_none()


def register_sources(db: Database, stream_id: int, discovered: Sequence[NewSource]) -> list[SourceState]:
    """Store new partitions, and a new incarnation of each partition with a changed identity.

    A stored partition with the same identity keeps its position, also if it was retired.

    Returns:
        All active sources of the stream.
    """
    with db.write() as connection:
        lock_stream(connection, stream_id)
        current = {(each.topic, each.partition): each for each in _select_active_sources(connection, stream_id)}
        replaced = [
            each
            for each in discovered
            if (each.topic, each.partition) in current and current[each.topic, each.partition].identity != each.identity
        ]
        replaced_ids = [current[each.topic, each.partition].source_id for each in replaced]
        record_unread_logs(db, connection, replaced_ids)
        _deactivate(connection, replaced_ids)
        for each in discovered:
            is_active = (each.topic, each.partition) in current and each not in replaced
            if not is_active and not _reactivate_source(connection, stream_id, each):
                _insert_source(db, connection, stream_id, each)
        return _select_active_sources(connection, stream_id)


def retire_sources(db: Database, stream_id: int, unread: Sequence[SourceState]) -> list[SourceState]:
    """Deactivate sources that are no longer read, so that windows do not wait for them; return those that were active.

    Their positions are retained, and `register_sources` reactivates them. A commit by a previous owner is fenced.
    """
    if not unread:
        return []
    with db.write() as connection:
        lock_stream(connection, stream_id)
        active = {each.source_id for each in _select_active_sources(connection, stream_id)}
        retired = [each for each in unread if each.source_id in active]
        _deactivate(connection, [each.source_id for each in retired])
        return retired


def restart_sources(db: Database, stream_id: int, new: Sequence[NewSource]) -> list[SourceState]:
    """Start a new incarnation of each partition, also with the same identity: a replaced log, or a reset position.

    All are stored in one transaction. The rows of the old incarnations remain; a commit by a previous owner is fenced.

    Returns:
        The new sources.
    """
    with db.write() as connection:
        lock_stream(connection, stream_id)
        restarted = {(each.topic, each.partition): each.identity for each in new}
        current = _select_active_sources(connection, stream_id)
        former = [each for each in current if (each.topic, each.partition) in restarted]
        replaced = [each for each in former if restarted[each.topic, each.partition] != each.identity]
        record_unread_logs(db, connection, [each.source_id for each in replaced])
        _deactivate(connection, [each.source_id for each in former])
        for each in new:
            _insert_source(db, connection, stream_id, each)
        return [
            each for each in _select_active_sources(connection, stream_id) if (each.topic, each.partition) in restarted
        ]


def active_sources(db: Database, stream_id: int) -> list[SourceState]:
    """Return the active sources of a stream, ordered by topic and partition."""
    with db.read() as connection:
        return _select_active_sources(connection, stream_id)


def claim_sources(db: Database, source_ids: Sequence[int], owner: str) -> dict[int, SourceClaim]:
    """Claim sources, replacing their present owners, in one transaction.

    Returns:
        The claims by source. A source without a claim is no longer active: read the sources again.
    """
    with db.write() as connection:
        # In the order of their ids, as a commit locks them.
        connection.execute(
            sa.select(positions.c.source_id)
            .where(positions.c.source_id.in_(source_ids))
            .order_by(positions.c.source_id)
            .with_for_update()
        ).all()
        rows = connection.execute(
            sa.update(positions)
            .where(positions.c.source_id.in_(source_ids), positions.c.active)
            .values(epoch=positions.c.epoch + 1, owner=owner, idle_until_us=0)
            .returning(
                positions.c.source_id,
                positions.c.epoch,
                positions.c.next_offset,
                positions.c.cursor,
                positions.c.watermark_us,
            )
        )
        return {row["source_id"]: SourceClaim(**row) for row in rows.mappings()}


def _select_active_sources(connection: Connection, stream_id: int) -> list[SourceState]:
    rows = connection.execute(
        sa.select(
            positions.c.source_id,
            sources.c.topic,
            sources.c.partition,
            sources.c.incarnation,
            sources.c.identity,
            positions.c.next_offset,
            positions.c.cursor,
            positions.c.watermark_us,
            positions.c.last_event_us,
            positions.c.idle_until_us,
            positions.c.epoch,
            positions.c.owner,
            positions.c.committed_at_us,
        )
        .join_from(positions, sources, sources.c.id == positions.c.source_id)
        .where(positions.c.stream_id == stream_id, positions.c.active)
        .order_by(sources.c.topic, sources.c.partition)
    )
    return [SourceState(**row) for row in rows.mappings()]


def _deactivate(connection: Connection, source_ids: Sequence[int]) -> None:
    for source_id in sorted(source_ids):
        connection.execute(
            sa.update(positions)
            .where(positions.c.source_id == source_id)
            .values(active=False, epoch=positions.c.epoch + 1)
        )


def _reactivate_source(connection: Connection, stream_id: int, source: NewSource) -> bool:
    """Reactivate the retired source of a partition if its last incarnation has the same identity; return success."""
    last = connection.execute(
        sa.select(sources.c.id, sources.c.identity)
        .where(
            sources.c.stream_id == stream_id,
            sources.c.topic == source.topic,
            sources.c.partition == source.partition,
        )
        .order_by(sources.c.incarnation.desc())
        .limit(1)
    ).first()
    if last is None or last.identity != source.identity:
        return False
    reactivation = sa.update(positions).where(positions.c.source_id == last.id, ~positions.c.active)
    return connection.execute(reactivation.values(active=True, idle_until_us=0)).rowcount == 1


def _insert_source(db: Database, connection: Connection, stream_id: int, new: NewSource) -> int:
    last = connection.scalar(
        sa.select(sa.func.max(sources.c.incarnation)).where(
            sources.c.stream_id == stream_id,
            sources.c.topic == new.topic,
            sources.c.partition == new.partition,
        )
    )
    source_id = connection.scalar(
        sa.insert(sources)
        .values(
            stream_id=stream_id,
            topic=new.topic,
            partition=new.partition,
            incarnation=(last or 0) + 1,
            identity=new.identity,
            created_at_us=db.clock_expression(),
        )
        .returning(sources.c.id)
    )
    if source_id is None:
        message = "the database returned no id for a new source"
        raise LookupError(message)
    source_id = int(source_id)
    connection.execute(
        sa.insert(positions).values(
            source_id=source_id,
            stream_id=stream_id,
            active=True,
            next_offset=new.next_offset,
            cursor=new.cursor,
            epoch=0,
            idle_until_us=0,
        )
    )
    return source_id
