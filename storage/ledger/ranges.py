"""Ranges of commits: the offsets and event times of consecutive commits of a source, for reads of a time range.

A row describes the commits of about one second. It is written in the transaction of each commit, so that every stored
event lies in exactly one range. Late events have bounds of their own: one old event would make the range match every
time before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.time_format import DAY_US, SECOND_US
from storage.database.engine import Database
from storage.database.tables import commit_ranges
from storage.ledger.commit import Commit, ScoreColumns

MAX_RANGE_EVENTS = 20_000
"""A range with as many events is not extended: a read of one range is one short transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRange:
    """A row of `commit_ranges`; `stored_at_us` is the time of the first of its commits."""

    source_id: int
    first_offset: int
    last_offset: int
    events: int
    min_time_us: int | None
    max_time_us: int | None
    min_late_us: int | None
    max_late_us: int | None
    stored_at_us: int

    def extends(self, after: CommitRange) -> bool:
        """Return whether this range may be joined to the earlier range `after` of the same source.

        Both are stored within a second, and on one day: scores are partitioned by the day of storing.
        """
        return (
            0 <= self.stored_at_us - after.stored_at_us < SECOND_US
            and self.stored_at_us // DAY_US == after.stored_at_us // DAY_US
            and self.events + after.events <= MAX_RANGE_EVENTS
        )


class RangeTracker:
    """The newest range of each source that this process has stored; used by all threads of a process.

    A range is extended only by the claim that stored it, so that no row of another owner is overwritten.
    """

    def __init__(self, db: Database) -> None:
        self._upsert = _make_upsert(db)
        self._newest: dict[int, tuple[int, CommitRange]] = {}

    def record(self, connection: Connection, commits: Sequence[Commit], stored_at_us: int) -> dict[int, CommitRange]:
        """Write the ranges of commits, at most one of each source, in their transaction.

        Returns:
            The ranges by source id, for `mark_stored` after the transaction is committed.
        """
        ranges = {
            commit.source_id: self._extend_newest(commit, stored_at_us) for commit in commits if len(commit.scores)
        }
        if ranges:
            connection.execute(self._upsert, [asdict(each) for each in ranges.values()])
        return ranges

    def mark_stored(self, commits: Iterable[Commit], ranges: dict[int, CommitRange]) -> None:
        """Note the ranges of commits that are stored."""
        for commit in commits:
            if commit.source_id in ranges:
                self._newest[commit.source_id] = (commit.epoch, ranges[commit.source_id])

    def forget(self, source_ids: Iterable[int]) -> None:
        """Forget the ranges of sources after a commit of unknown outcome; their next commits begin new ranges."""
        for source_id in source_ids:
            self._newest.pop(source_id, None)

    def _extend_newest(self, commit: Commit, stored_at_us: int) -> CommitRange:
        own = describe_range(commit.source_id, commit.scores, stored_at_us)
        epoch, newest = self._newest.get(commit.source_id, (-1, own))
        if epoch != commit.epoch or not own.extends(newest):
            return own
        return replace(
            newest,
            last_offset=own.last_offset,
            events=newest.events + own.events,
            min_time_us=_combine(min, newest.min_time_us, own.min_time_us),
            max_time_us=_combine(max, newest.max_time_us, own.max_time_us),
            min_late_us=_combine(min, newest.min_late_us, own.min_late_us),
            max_late_us=_combine(max, newest.max_late_us, own.max_late_us),
        )


def _make_upsert(db: Database) -> sa.Insert:
    insert = db.insert(commit_ranges)
    names = ("last_offset", "events", "min_time_us", "max_time_us", "min_late_us", "max_late_us")
    return insert.on_conflict_do_update(
        index_elements=list(commit_ranges.primary_key.columns), set_={name: insert.excluded[name] for name in names}
    )


def describe_range(source_id: int, scores: ScoreColumns, stored_at_us: int) -> CommitRange:
    """Return the range of the scores of one commit, at least one."""
    late = scores.late
    on_time_us = scores.times_us if late is None else scores.times_us[~late]
    late_us = scores.times_us[:0] if late is None else scores.times_us[late]
    return CommitRange(
        source_id=source_id,
        first_offset=int(scores.offsets[0]),
        last_offset=int(scores.offsets[-1]),
        events=len(scores),
        min_time_us=int(on_time_us.min()) if len(on_time_us) else None,
        max_time_us=int(on_time_us.max()) if len(on_time_us) else None,
        min_late_us=int(late_us.min()) if len(late_us) else None,
        max_late_us=int(late_us.max()) if len(late_us) else None,
        stored_at_us=stored_at_us,
    )


def _combine(choose: Callable[[Iterable[int]], int], first: int | None, second: int | None) -> int | None:
    values = [each for each in (first, second) if each is not None]
    return choose(values) if values else None
