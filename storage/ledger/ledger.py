"""The transactional commit of a batch: position, scores, outliers, dead letters and parts.

A position advances only for the owner of its epoch, and only from the offset at which the commit begins. Every event is
therefore stored exactly once, also if processes are killed, frozen or replaced at any moment.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database
from storage.database.errors import CommitUnknown
from storage.database.partitions import day_number, ensure_score_partitions, partition_name
from storage.database.tables import FOREVER_US, positions, streams
from storage.ledger import sources
from storage.ledger.bulk import insert_scores, stage_scores
from storage.ledger.commit import (
    Commit,
    Committed,
    Fenced,
    Stale,
    StreamControl,
)
from storage.ledger.ranges import RangeTracker
from storage.ledger.rows import (
    features_to_json,
    insert_dead_letters,
    insert_gap,
    insert_outliers,
    insert_parts,
    insert_shadow_parts,
)
from storage.ledger.schedule import (
    ScheduledThreshold,
    ThresholdUse,
    find_used,
    read_schedule,
    read_thresholds_at,
    record_use,
)
from storage.ledger.sources import NewSource, SourceClaim, SourceState, StreamState


class _CommitRejectedError(Exception):
    """Rolls the transaction back; `outcome` is the result of `commit`."""

    def __init__(self, outcome: Fenced | Stale) -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome


class _PartitionMissingError(Exception):
    """Rolls the transaction back because `scores` has no partition for the day."""

    def __init__(self, day: int) -> None:
        super().__init__(f"no partition for day {day}")
        self.day = day


class Ledger:
    """The transactions of the pipeline. One instance may be used by all threads of a process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known_days: frozenset[int] = frozenset()
        self._threshold_use = ThresholdUse()
        self._ranges = RangeTracker(db)

    def open_stream(self, name: str, window_size_us: int, lead_us: int) -> StreamState:
        """Return the stream with a name, created if it does not exist; see `sources.open_stream`."""
        return sources.open_stream(self._db, name, window_size_us, lead_us)

    def find_stream(self, name: str) -> int | None:
        """Return a stream's id, or None if it was never opened."""
        with self._db.read() as connection:
            return connection.scalar(sa.select(streams.c.id).where(streams.c.name == name))

    def register_sources(self, stream_id: int, discovered: Sequence[NewSource]) -> list[SourceState]:
        """Store new partitions and new incarnations of replaced ones; return all active sources."""
        return sources.register_sources(self._db, stream_id, discovered)

    def retire_sources(self, stream_id: int, unread: Sequence[SourceState]) -> list[SourceState]:
        """Deactivate sources that are no longer read; their positions are retained."""
        return sources.retire_sources(self._db, stream_id, unread)

    def restart_sources(self, stream_id: int, new: Sequence[NewSource]) -> list[SourceState]:
        """Start a new incarnation of each partition, all in one transaction."""
        return sources.restart_sources(self._db, stream_id, new)

    def active_sources(self, stream_id: int) -> list[SourceState]:
        """Return the active sources, ordered by topic and partition."""
        return sources.active_sources(self._db, stream_id)

    def claim_source(self, source_id: int, owner: str) -> SourceClaim | None:
        """Claim a source, replacing its present owner; return None if it is no longer active."""
        return sources.claim_source(self._db, source_id, owner)

    def commit(self, commit: Commit) -> Committed | Fenced | Stale:
        """Store a commit in one transaction.

        Returns:
            Whether it is stored (`Committed`), and if not, why.

        Raises:
            StorageUnavailable: Nothing is stored; the same commit may be retried.
            CommitUnknown: The commit may be stored; claim the source again and continue from its position.
        """
        features = features_to_json(commit.outliers)
        used = find_used(commit.scores.threshold_ids)
        while True:
            try:
                with self._db.write() as connection:
                    control, recorded, stored_at_us = self._store_commit(connection, commit, features, used)
                    ranges = self._ranges.record(connection, [commit], stored_at_us)
                self._threshold_use.mark_recorded(recorded, stored_at_us)
                self._ranges.mark_stored([commit], ranges)
                return Committed(control=control)
            except CommitUnknown:
                self._ranges.forget([commit.source_id])
                raise
            except _CommitRejectedError as rejected:
                return rejected.outcome
            except _PartitionMissingError as missing:
                ensure_score_partitions(self._db, missing.day)

    def _store_commit(
        self, connection: Connection, commit: Commit, features: list[str], used: Sequence[int]
    ) -> tuple[StreamControl, Sequence[int], int]:
        """Store a commit; return the control state, the threshold rows of which the use was recorded, and the time."""
        stage_scores(connection, commit.scores)
        stored_at_us = self._advance_position(connection, commit)
        # A separate statement: it must see a seal that was committed while the update waited for the position's row.
        control = _select_control(connection, commit.stream_id)
        if _is_stale(commit, control):
            raise _CommitRejectedError(Stale(control=control))
        to_record = self._threshold_use.find_due(used, stored_at_us)
        if not record_use(connection, to_record, stored_at_us):
            # Retention deleted the row and increased the revision in one transaction, which is visible now.
            raise _CommitRejectedError(Stale(control=_select_control(connection, commit.stream_id)))
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
        return control, to_record, stored_at_us

    def _advance_position(self, connection: Connection, commit: Commit) -> int:
        """Advance the position and return the time of storing; the row stays locked until the transaction ends."""
        values: dict[str, object] = {
            "next_offset": commit.end,
            "committed_at_us": self._db.clock_expression(),
            # A commit that advances, or reports a head event, shows that the source is not idle.
            "idle_until_us": FOREVER_US if commit.ended else 0,
        }
        if commit.end != commit.begin:
            # A commit that only advances the watermark has no cursor, and must not overwrite the stored one.
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
        """Mark a source as idle at the end of its log, so that it holds no window open until a time.

        Args:
            source_id: The source.
            epoch: The epoch of the caller's claim.
            next_offset: The end of the log; a source with another position is not idle.
            until_us: The end of the idle lease by the database's clock, measured from before the log's end was read.

        Returns:
            False if the claim is fenced or the position differs.
        """
        with self._db.write() as connection:
            updated = connection.execute(
                sa.update(positions)
                .where(
                    positions.c.source_id == source_id,
                    positions.c.epoch == epoch,
                    positions.c.next_offset == next_offset,
                    positions.c.active,
                )
                .values(idle_until_us=_greatest(positions.c.idle_until_us, until_us))
            )
            return updated.rowcount == 1

    def read_control(self, stream_id: int) -> StreamControl:
        """Return the state of the stream that the control plane sets."""
        with self._db.read() as connection:
            return _select_control(connection, stream_id)

    def read_threshold_schedule(
        self, stream_id: int, after_id: int = 0, from_us: int | None = None
    ) -> list[ScheduledThreshold]:
        """Return the thresholds ordered by the start of their validity; of equal starts the last one applies.

        Args:
            stream_id: The stream.
            after_id: Return only rows with a larger id.
            from_us: Return only the rows that are valid at or after this event time. None: all rows.
        """
        return read_schedule(self._db, stream_id, after_id=after_id, from_us=from_us)

    def read_thresholds_at(self, stream_id: int, times_us: Sequence[int]) -> list[ScheduledThreshold]:
        """Return the thresholds that are valid at the given event times, ordered by the start of their validity."""
        return read_thresholds_at(self._db, stream_id, times_us)


def _greatest(column: sa.Column[int], value: int) -> sa.ColumnElement[int]:
    """Return the larger of a column and a value; the value if the column is NULL."""
    new = sa.literal(value, sa.BigInteger)
    return sa.case((column > new, column), else_=new)


def _select_control(connection: Connection, stream_id: int) -> StreamControl:
    columns = (streams.c.sealed_until_us, streams.c.revision, streams.c.last_tick_us, streams.c.settings_revision)
    row = connection.execute(sa.select(*columns).where(streams.c.id == stream_id))
    return StreamControl(**row.mappings().one())


def _is_stale(commit: Commit, control: StreamControl) -> bool:
    assumed = commit.assumed_control
    if (control.revision, control.settings_revision) != (assumed.revision, assumed.settings_revision):
        return True
    sealed = control.sealed_until_us
    return sealed is not None and any(part.events > 0 and part.window_end_us <= sealed for part in commit.parts)
