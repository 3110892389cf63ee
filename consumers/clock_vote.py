"""The vote of the log on event times beyond the watermark. Pure functions on columns.

An event whose time is later than its source's watermark by more than `max_future` is a jump. A jump of one clock that
is ahead must not become the watermark, since all later events would be late; a jump of the stream, after a pause or
with rare events, must. The record batches that follow decide: each votes once, with the median of its times. A count
of events would prove nothing, because the batch of one producer agrees with itself.

The decision is a function of the log. It does not depend on the pieces in which the log is read, nor on the records
before the event, so that it is the same after a take-over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from consumers.batch import Int64, Mask
from consumers.windows import NO_WATERMARK_US, watermark_before

VOTE_LEAD = 5
"""The difference of votes that decides: the next five record batches, if they agree with each other.

With one wrong clock in ten, each in batches of its own, it accepts one jump of a wrong clock in 60,000; the majority of
the next five batches accepts one in 120.
"""

MAX_VOTES = 25
"""The number of votes after which the majority decides."""

MAX_OWN_OFFSETS = 15_000
MAX_VOTE_OFFSETS = 20_000
"""Offsets behind the event's own record batch, of which at most `MAX_OWN_OFFSETS` count, after which the majority
decides. Both together are less than the records that a partition may have in memory, so that no partition waits for
records that it may not read."""

FILE_BATCH_ROWS = 100
"""Rows of a file that count as one record batch, by row number: rows 0 to 99, 100 to 199, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRecords:
    """Consecutive records of one partition that have an event time, as columns in the order of offsets.

    `batch_offsets` holds the base offset of each record's batch. `is_trusted` is true where the broker's or the
    reader's clock has set or checked the time, so that it is no jump.
    """

    offsets: Int64
    times_us: Int64
    batch_offsets: Int64
    is_trusted: Mask

    def __len__(self) -> int:
        return len(self.offsets)

    @staticmethod
    def of(offsets: Int64, times_us: Int64, batch_offsets: Int64 | None, has_append_time: Mask | None) -> TimedRecords:
        """Build the columns; records without record batches are rows of a file."""
        if batch_offsets is None:
            batch_offsets = offsets - offsets % FILE_BATCH_ROWS
        if has_append_time is None:
            has_append_time = np.zeros(len(offsets), np.bool_)
        return TimedRecords(offsets=offsets, times_us=times_us, batch_offsets=batch_offsets, is_trusted=has_append_time)

    @staticmethod
    def merge(pieces: list[TimedRecords]) -> TimedRecords:
        """Merge records of one partition into one sequence in the order of offsets."""
        if len(pieces) == 1:
            return pieces[0]
        offsets = np.concatenate([piece.offsets for piece in pieces])
        order = np.argsort(offsets, kind="stable")
        return TimedRecords(
            offsets=offsets[order],
            times_us=np.concatenate([piece.times_us for piece in pieces])[order],
            batch_offsets=np.concatenate([piece.batch_offsets for piece in pieces])[order],
            is_trusted=np.concatenate([piece.is_trusted for piece in pieces])[order],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadExtent:
    """How far a log was read.

    Attributes:
        read_until: The offset after the last record that was read.
        log_end_us: The database's clock when `read_until` was the end of the log and had been for some time; None if
            it was not.
        ended: No records follow, as at the end of a file.
    """

    read_until: int
    log_end_us: int | None = None
    ended: bool = False


def has_jumps(records: TimedRecords, watermark_us: int | None, max_future_us: int) -> bool:
    """Return whether some times are beyond the watermark by more than `max_future_us` and not trusted."""
    return _first_jump(records, watermark_us, max_future_us) is not None


def _first_jump(records: TimedRecords, watermark_us: int | None, max_future_us: int) -> int | None:
    times_us = records.times_us
    jumps = (times_us - max_future_us > watermark_before(times_us, watermark_us)) & ~records.is_trusted
    return int(jumps.argmax()) if jumps.any() else None


def find_stray_times(
    records: TimedRecords, n: int, watermark_us: int | None, max_future_us: int, extent: ReadExtent
) -> tuple[Mask, int]:
    """Return a mask of the first n records with times that are not believed, and the number of decided records.

    Not believed times do not advance the watermark. The first record that cannot be decided yet ends the decision.

    Args:
        records: The records from the source's position on, as far as they are read.
        n: The number of leading records to decide.
        watermark_us: The source's watermark before them; None before its first event, which is a jump.
        max_future_us: The accepted clock skew.
        extent: How far the log was read.
    """
    stray = np.zeros(n, np.bool_)
    i = _first_jump(records, watermark_us, max_future_us)
    if i is None or i >= n:
        return stray, n
    vote = _Vote(records, max_future_us, extent)
    times = records.times_us[:n].tolist()
    trusted = records.is_trusted[:n].tolist()
    watermark = max(NO_WATERMARK_US if watermark_us is None else watermark_us, *times[:i], NO_WATERMARK_US)
    for row in range(i, n):
        time_us = times[row]
        if time_us - max_future_us > watermark and not trusted[row]:
            believed = vote.decide(row)
            if believed is None:
                return stray, row
            if not believed:
                stray[row] = True
                continue
        watermark = max(watermark, time_us)
    return stray, n


class _Vote:
    """The record batches of a log with their median times, and the decisions on single records."""

    def __init__(self, records: TimedRecords, max_future_us: int, extent: ReadExtent) -> None:
        self._records = records
        self._max_future_us = max_future_us
        self._extent = extent
        begins = np.ones(len(records), np.bool_)
        begins[1:] = records.batch_offsets[1:] != records.batch_offsets[:-1]
        self._begin_rows = np.append(np.flatnonzero(begins), len(records))
        self._base_offsets = records.batch_offsets[self._begin_rows[:-1]].tolist()
        self._batch_of_row = (np.cumsum(begins) - 1).tolist()
        # Sorted by batch, then by time; of an even number of times the lower one of the middle is the median.
        ascending = records.times_us[np.lexsort((records.times_us, np.cumsum(begins)))]
        middle = self._begin_rows[:-1] + (np.diff(self._begin_rows) - 1) // 2
        self._medians_us = ascending[middle].tolist()

    def decide(self, row: int) -> bool | None:
        """Return whether the time of a record is believed; None if further records have to decide."""
        extent = self._extent
        offset = int(self._records.offsets[row])
        earliest_us = int(self._records.times_us[row]) - self._max_future_us
        own = self._batch_of_row[row]
        end_offset = self._vote_end(offset, own)
        lead = n_votes = 0
        all_read = extent.ended or extent.log_end_us is not None or extent.read_until >= end_offset
        n_batches = len(self._base_offsets)
        for batch in range(own + 1, n_batches):
            if self._base_offsets[batch] >= end_offset or n_votes == MAX_VOTES:
                return lead > 0 or n_votes == 0
            if batch + 1 == n_batches and not all_read:
                return None
            lead += 1 if self._median_us(batch, end_offset) >= earliest_us else -1
            n_votes += 1
            if abs(lead) == VOTE_LEAD:
                return lead > 0
        if extent.read_until >= end_offset or n_votes == MAX_VOTES:
            return lead > 0 or n_votes == 0
        return self._decide_at_end(row, earliest_us, lead)

    def _vote_end(self, offset: int, own: int) -> int:
        """Return the offset before which records vote."""
        own_end = offset + MAX_OWN_OFFSETS
        if own + 1 < len(self._base_offsets):
            own_end = min(own_end, self._base_offsets[own + 1])
        return own_end + MAX_VOTE_OFFSETS

    def _median_us(self, batch: int, end_offset: int) -> int:
        """Return the median time of the records of a batch before an offset."""
        first, last = int(self._begin_rows[batch]), int(self._begin_rows[batch + 1])
        if self._records.offsets[last - 1] < end_offset:
            return int(self._medians_us[batch])
        n = int(np.searchsorted(self._records.offsets[first:last], end_offset))
        return _lower_median(self._records.times_us[first : first + n])

    def _decide_at_end(self, row: int, earliest_us: int, lead: int) -> bool | None:
        """Decide by fewer votes, at the end of a file, or at the end of a log once its clock has reached the time.

        The clock stands for the missing votes: records that are appended later have later times, so that they agree as
        soon as the clock has reached the time. If the batches that follow are divided or there are none, the records
        that follow vote in groups, those of the record's own batch too.
        """
        extent = self._extent
        is_reached = extent.log_end_us is None or earliest_us <= extent.log_end_us
        if not extent.ended and (extent.log_end_us is None or not is_reached):
            return None
        following = self._records.times_us[row + 1 :]
        if not lead and len(following):
            groups = np.array_split(following, min(VOTE_LEAD, len(following)))
            lead = sum(1 if _lower_median(group) >= earliest_us else -1 for group in groups)
            return lead > 0
        return lead > 0 if lead else is_reached


def _lower_median(times_us: Int64) -> int:
    middle = (len(times_us) - 1) // 2
    return int(np.partition(times_us, middle)[middle])
