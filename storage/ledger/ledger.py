"""The transactional commit of batches: positions, scores, outliers, dead letters and parts of several sources.

A position advances only for the owner of its epoch, and only from the offset at which the commit begins. Every event is
therefore stored exactly once, also if processes are killed, frozen or replaced at any moment.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database
from storage.database.errors import CommitUnknown
from storage.database.partitions import day_number, ensure_score_partitions, partition_name
from storage.database.tables import streams
from storage.ledger import idle, sources
from storage.ledger.bulk import insert_scores, stage_scores
from storage.ledger.commit import (
    Commit,
    CommitOutcome,
    Committed,
    Fenced,
    KeyStateRows,
    Refused,
    Stale,
    StreamControl,
)
from storage.ledger.idle import IdleSource
from storage.ledger.key_states import insert_key_states, read_key_states
from storage.ledger.positions import (
    advance_positions,
    find_rejection,
    read_control,
    read_control_at,
    select_positions,
)
from storage.ledger.ranges import CommitRange, RangeTracker
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

log = logging.getLogger(__name__)

GROUP_ROWS = 20_000
"""Largest number of events in the commits of one transaction, so that it lasts about 100 ms."""

# Errors that the rows of one source cause. Those that a retry or an operator can resolve are translated before.
_ROW_ERRORS = (
    sa.exc.SQLAlchemyError,
    psycopg.Error,
    sqlite3.Error,
    ArithmeticError,
    TypeError,
    ValueError,
    RuntimeError,
)


class _PartitionMissingError(Exception):
    """Rolls the transaction back because `scores` has no partition for the day."""

    def __init__(self, day: int) -> None:
        super().__init__(f"no partition for day {day}")
        self.day = day


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredGroup:
    """The outcomes of a group in order, and the rows that its transaction wrote for threshold use and ranges."""

    outcomes: list[CommitOutcome]
    threshold_ids: Sequence[int]
    ranges: dict[int, CommitRange]
    stored_at_us: int


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
        return self.claim_sources([source_id], owner).get(source_id)

    def claim_sources(self, source_ids: Sequence[int], owner: str) -> dict[int, SourceClaim]:
        """Claim sources in one transaction, replacing their present owners; those that are not active are left out."""
        return sources.claim_sources(self._db, source_ids, owner)

    def commit(self, commit: Commit) -> Committed | Fenced | Stale:
        """Store one commit in a transaction of its own; see `commit_group`. An error of its rows is raised."""
        (outcome,) = self.commit_group([commit])
        if isinstance(outcome, Refused):
            raise outcome.error
        return outcome

    def commit_group(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        """Store commits of one stream, each of another source, in one transaction.

        A commit that is fenced or stale does not prevent the others. If the database refuses the rows of the group,
        each commit is stored in a transaction of its own, so that one source does not stop the others.

        Returns:
            The outcome of each commit, in order.

        Raises:
            StorageUnavailable: Nothing is stored; the same commits may be retried.
            CommitUnknown: The commits may be stored; `find_outcomes` tells which ones are.
        """
        try:
            return self._commit_together(commits)
        except _ROW_ERRORS as error:
            if len(commits) == 1:
                return [Refused(error=error)]
            log.warning(
                "A commit of %d sources failed (%s); storing them one by one.",
                len(commits),
                error,
                extra={"action": "commit"},
            )
        return [outcome for commit in commits for outcome in self.commit_group([commit])]

    def find_outcomes(self, commits: Sequence[Commit]) -> list[Committed | Fenced | None]:
        """Return the outcome of each commit of a group whose COMMIT was not answered; None: it may be repeated.

        A commit is stored if its source has the epoch of the commit and its end as position. It is not stored if the
        position is its begin. With any other position the claim is lost: another owner, or a database that lost its
        last commits.
        """
        with self._db.read() as connection:
            stored = select_positions(connection, [commit.source_id for commit in commits], lock=False)
            control = read_control(connection, commits[0].stream_id)
        outcomes: list[Committed | Fenced | None] = []
        for commit in commits:
            position = stored.get(commit.source_id)
            if position is None or position.epoch != commit.epoch:
                outcomes.append(Fenced())
            elif position.next_offset == commit.begin:
                outcomes.append(None)
            else:
                outcomes.append(Committed(control=control) if position.next_offset == commit.end else Fenced())
        return outcomes

    def _commit_together(self, commits: Sequence[Commit]) -> list[CommitOutcome]:
        features = {commit.source_id: features_to_json(commit.outliers) for commit in commits}
        while True:
            try:
                with self._db.write() as connection:
                    stored = self._store_group(connection, commits, features)
            except CommitUnknown:
                self._ranges.forget([commit.source_id for commit in commits])
                raise
            except _PartitionMissingError as missing:
                ensure_score_partitions(self._db, missing.day)
            else:
                self._threshold_use.mark_recorded(stored.threshold_ids, stored.stored_at_us)
                self._ranges.mark_stored(commits, stored.ranges)
                return stored.outcomes

    def _store_group(
        self, connection: Connection, commits: Sequence[Commit], features: Mapping[int, list[str]]
    ) -> _StoredGroup:
        """Store those commits that are neither fenced nor stale."""
        stage_scores(connection, {commit.source_id: commit.scores for commit in commits})
        stored = select_positions(connection, [commit.source_id for commit in commits], lock=True)
        # A separate statement: it must see a seal that was committed while the positions were being locked.
        control, now_us = read_control_at(connection, commits[0].stream_id, self._db.clock_expression())
        rejections = [find_rejection(commit, stored.get(commit.source_id), control) for commit in commits]
        accepted = [commit for commit, rejection in zip(commits, rejections, strict=True) if rejection is None]
        used = sorted({each for commit in accepted for each in find_used(commit.scores.threshold_ids)})
        to_record = self._threshold_use.find_due(used, now_us)
        if not record_use(connection, to_record, now_us):
            # Retention deleted a row and increased the revision in one transaction, which is visible now.
            stale = Stale(control=read_control(connection, commits[0].stream_id))
            return _StoredGroup(outcomes=_fill(rejections, stale), threshold_ids=(), ranges={}, stored_at_us=now_us)
        ranges = {}
        if accepted:
            advance_positions(connection, accepted, stored, now_us)
            self._insert_rows(connection, accepted, features, now_us)
            ranges = self._ranges.record(connection, accepted, now_us)
        outcomes = _fill(rejections, Committed(control=control))
        return _StoredGroup(outcomes=outcomes, threshold_ids=to_record, ranges=ranges, stored_at_us=now_us)

    def _insert_rows(
        self, connection: Connection, commits: Sequence[Commit], features: Mapping[int, list[str]], stored_at_us: int
    ) -> None:
        """Insert the rows of commits whose positions are advanced."""
        if any(len(commit.scores) for commit in commits):
            self._require_partition(connection, day_number(stored_at_us))
        insert_scores(connection, stored_at_us, {commit.source_id: commit.scores for commit in commits})
        insert_outliers(connection, commits, stored_at_us, [features[commit.source_id] for commit in commits])
        insert_parts(connection, commits)
        insert_shadow_parts(connection, commits)
        insert_key_states(connection, commits)
        for commit in commits:
            if len(commit.dead):
                insert_dead_letters(connection, commit, stored_at_us)
            if commit.gap_reason is not None:
                insert_gap(connection, commit, stored_at_us)

    def _require_partition(self, connection: Connection, day: int) -> None:
        if self._db.dialect == "sqlite" or day in self._known_days:
            return
        if connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": partition_name(day)}) is None:
            raise _PartitionMissingError(day)
        self._known_days |= {day}

    def mark_idle(self, idle_sources: Sequence[IdleSource], seen_us: int) -> set[int]:
        """Mark sources as idle, in one transaction; return the ids of those that are. See `idle.mark_idle`."""
        return idle.mark_idle(self._db, idle_sources, seen_us)

    def read_key_states(self, source_id: int, next_offset: int) -> Sequence[KeyStateRows]:
        """Return the states of the keys of a source at its position: a snapshot, if any, and the changes after it."""
        return read_key_states(self._db, source_id, next_offset)

    def read_control(self, stream_id: int) -> StreamControl:
        """Return the state of the stream that the control plane sets."""
        with self._db.read() as connection:
            return read_control(connection, stream_id)

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


def _fill(rejections: Sequence[CommitOutcome | None], outcome: CommitOutcome) -> list[CommitOutcome]:
    return [outcome if rejection is None else rejection for rejection in rejections]
