"""Storage room: the commit of a batch; position, scores, outliers, dead letters and parts, all or nothing.

A position moves only for the owner of its epoch and only from where the commit began, so that every event is
stored exactly once, whoever is killed, frozen or thought dead at whatever moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database
from storage.database.partitions import day_number, ensure_score_partitions, partition_name
from storage.database.tables import FOREVER_US, positions, streams, thresholds
from storage.ledger import sources as registry
from storage.ledger.bulk import insert_scores, stage_scores
from storage.ledger.commit import (
    Commit,
    Committed,
    Fenced,
    Stale,
    StreamControl,
)
from storage.ledger.rows import (
    features_to_json,
    insert_dead_letters,
    insert_gap,
    insert_outliers,
    insert_parts,
    insert_shadow_parts,
)
from storage.ledger.sources import NewSource, SourceClaim, SourceState, StreamState


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledThreshold:
    """A limit and the event time of the first window for which it holds."""

    id: int
    model_id: int
    valid_from_us: int
    threshold: float


class _CommitRejectedError(Exception):
    """Ends the transaction without storing anything; carries what `commit` then returns."""

    def __init__(self, outcome: Fenced | Stale) -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome


class _PartitionMissingError(Exception):
    """Ends the transaction because `scores` has no partition for the day."""

    def __init__(self, day: int) -> None:
        super().__init__(f"no partition for day {day}")
        self.day = day


class Ledger:
    """What the data plane writes. One instance serves all threads of a process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known_days: frozenset[int] = frozenset()

    def open_stream(self, name: str, window_size_us: int, lead_us: int) -> StreamState:
        """Return the stream of a name, made on first sight; see `registry.open_stream` for a changed size."""
        return registry.open_stream(self._db, name, window_size_us, lead_us)

    def find_stream(self, name: str) -> int | None:
        """Return a stream's id, or None when it was never opened."""
        with self._db.read() as connection:
            return connection.scalar(sa.select(streams.c.id).where(streams.c.name == name))

    def register_sources(self, stream_id: int, found: Sequence[NewSource]) -> list[SourceState]:
        """Store new partitions and new incarnations of replaced ones; returns all active sources."""
        return registry.register_sources(self._db, stream_id, found)

    def retire_sources(self, stream_id: int, gone: Sequence[SourceState]) -> list[SourceState]:
        """Let windows wait no longer for sources that are not read any more; their positions stay."""
        return registry.retire_sources(self._db, stream_id, gone)

    def restart_sources(self, stream_id: int, new: Sequence[NewSource]) -> list[SourceState]:
        """Start partitions anew, whatever their identity: all of them or none."""
        return registry.restart_sources(self._db, stream_id, new)

    def active_sources(self, stream_id: int) -> list[SourceState]:
        """Return the active sources by topic and partition."""
        return registry.active_sources(self._db, stream_id)

    def claim_source(self, source_id: int, owner: str) -> SourceClaim | None:
        """Take a source over from whoever has it; None when it is no longer active."""
        return registry.claim_source(self._db, source_id, owner)

    def commit(self, commit: Commit) -> Committed | Fenced | Stale:
        """Store a stretch of a source, or nothing of it.

        Raises:
            StorageUnavailable: Nothing is stored; the same commit may be tried again.
            CommitUnknown: It may be stored; claim the source again and go on from its position.
        """
        features = features_to_json(commit.outliers)
        while True:
            try:
                with self._db.write() as connection:
                    return self._store_commit(connection, commit, features)
            except _CommitRejectedError as refused:
                return refused.outcome
            except _PartitionMissingError as missing:
                ensure_score_partitions(self._db, missing.day)

    def _store_commit(self, connection: Connection, commit: Commit, features: list[str]) -> Committed:
        stage_scores(connection, commit.scores)
        stored_at_us = self._advance_position(connection, commit)
        # A statement of its own: it must see a seal that ended while the move waited for the position's row.
        control = _select_control(connection, commit.stream_id)
        if _is_stale(commit, control):
            raise _CommitRejectedError(Stale(control=control))
        if len(commit.scores):
            self._require_partition(connection, day_number(stored_at_us))
            insert_scores(connection, commit.source_id, stored_at_us, commit.scores)
        if len(commit.outliers):
            insert_outliers(connection, commit, stored_at_us, features)
        if len(commit.dead):
            insert_dead_letters(connection, commit, stored_at_us)
        if commit.gap_reason is not None:
            insert_gap(connection, commit, stored_at_us)
        if commit.parts:
            insert_parts(connection, commit)
        if commit.shadow_parts:
            insert_shadow_parts(connection, commit)
        return Committed(control=control)

    def _advance_position(self, connection: Connection, commit: Commit) -> int:
        """Move the position and return the time of storing; its row stays locked until the commit ends."""
        values: dict[str, object] = {
            "next_offset": commit.end,
            "committed_at_us": self._db.clock_expression(),
            # Whatever moves, or tells of a head event, shows that there is something to wait for.
            "idle_until_us": FOREVER_US if commit.ended else 0,
        }
        if commit.end != commit.begin:
            # A commit that only says how time goes on knows no cursor, and must not lose the stored one.
            values["cursor"] = commit.end_cursor
        if commit.watermark_us is not None:
            values["watermark_us"] = _greatest(positions.c.watermark_us, commit.watermark_us)
        if len(commit.scores):
            values["last_event_us"] = _greatest(positions.c.last_event_us, int(commit.scores.times_us.max()))
        stored_at_us = connection.scalar(
            sa.update(positions)
            .where(
                positions.c.source_id == commit.source_id,
                positions.c.epoch == commit.epoch,
                positions.c.next_offset == commit.begin,
                positions.c.active,
            )
            .values(values)
            .returning(positions.c.committed_at_us)
        )
        if stored_at_us is None:
            raise _CommitRejectedError(Fenced())
        return int(stored_at_us)

    def _require_partition(self, connection: Connection, day: int) -> None:
        if self._db.dialect == "sqlite" or day in self._known_days:
            return
        if connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": partition_name(day)}) is None:
            raise _PartitionMissingError(day)
        self._known_days |= {day}

    def mark_idle(self, source_id: int, epoch: int, next_offset: int, until_us: int) -> bool:
        """Say that the source stands at its log's end and holds no window open until then; False when fenced.

        Args:
            source_id: The source.
            epoch: The claim under which this is said.
            next_offset: The end that was seen; a source that stands elsewhere is not idle.
            until_us: On the database's clock (`now_us`), counted from before the log's end was asked for.
        """
        with self._db.write() as connection:
            moved = connection.execute(
                sa.update(positions)
                .where(
                    positions.c.source_id == source_id,
                    positions.c.epoch == epoch,
                    positions.c.next_offset == next_offset,
                    positions.c.active,
                )
                .values(idle_until_us=_greatest(positions.c.idle_until_us, until_us))
            )
            return moved.rowcount == 1

    def read_control(self, stream_id: int) -> StreamControl:
        """Return what the control plane has decided for the stream."""
        with self._db.read() as connection:
            return _select_control(connection, stream_id)

    def read_threshold_schedule(self, stream_id: int, after_id: int = 0) -> list[ScheduledThreshold]:
        """Return the thresholds in the order in which they hold; of equal starts the last one counts.

        Args:
            stream_id: The stream.
            after_id: Leaves out the rows that were stored up to this one.
        """
        order = (thresholds.c.valid_from_us, thresholds.c.id)
        query = (
            sa.select(thresholds.c.id, thresholds.c.model_id, thresholds.c.valid_from_us, thresholds.c.threshold)
            .where(thresholds.c.stream_id == stream_id, thresholds.c.id > after_id)
            .order_by(*order)
        )
        with self._db.read() as connection:
            return [ScheduledThreshold(**row) for row in connection.execute(query).mappings()]


def _greatest(column: sa.Column[int], value: int) -> sa.ColumnElement[int]:
    """Return the larger of a column and a value; the value where the column is NULL."""
    new = sa.literal(value, sa.BigInteger)
    return sa.case((column > new, column), else_=new)


def _select_control(connection: Connection, stream_id: int) -> StreamControl:
    row = connection.execute(
        sa.select(streams.c.sealed_until_us, streams.c.revision, streams.c.last_tick_us).where(
            streams.c.id == stream_id
        )
    ).one()
    return StreamControl(sealed_until_us=row.sealed_until_us, revision=row.revision, last_tick_us=row.last_tick_us)


def _is_stale(commit: Commit, control: StreamControl) -> bool:
    if control.revision != commit.assumed_control.revision:
        return True
    sealed = control.sealed_until_us
    return sealed is not None and any(part.events > 0 and part.window_end_us <= sealed for part in commit.parts)
