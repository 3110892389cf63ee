"""The buffer of one claimed partition between the inbox and the ledger.

A buffer can be discarded at any time: its records are read again from the stored position.
"""

from collections import deque
from dataclasses import dataclass, field

from consumers.batch import DecodedBatch, Partition
from monitor.pipeline.fold import join_batches
from storage.ledger.commit import StreamControl
from storage.ledger.sources import SourceClaim

COMMIT_INTERVAL_S = 1.0
"""Maximum time that events wait for further events of the same commit. It is the latency of the history."""

WATERMARK_REPEAT_S = 5.0
"""Interval at which the watermark of a source with held records is committed again.

A database that lost its last commits (a promoted replica, a crash without synchronous commit) has lost this watermark
and would wait for it indefinitely.
"""

COMMIT_EVENTS = 10_000
"""Events of one commit: a transaction of 50 to 100 ms, short enough for the writers of other streams."""


@dataclass(slots=True, kw_only=True)
class PartitionBuffer:
    """The pending records of one source under one claim.

    `record_count` counts the records from the fetch to the commit, as the inbox does; `records_since_s` is the time
    since which there have been any, `pending_since_s` the time since which some wait for their commit. `held_under` is
    the stream's control state under which the lead held the pending records back. `undecided` is True when the first
    pending event has to wait for further events that decide whether its time is stray.
    """

    partition: Partition
    claim: SourceClaim
    next_offset: int
    cursor: int | None
    watermark_us: int | None
    pending: deque[DecodedBatch] = field(default_factory=deque)
    record_count: int = 0
    pending_since_s: float = 0.0
    records_since_s: float = 0.0
    last_event_s: float = 0.0
    ended: bool = False
    end_stored: bool = False
    held_under: StreamControl | None = None
    last_announced_s: float = float("-inf")
    undecided: bool = False

    def add(self, batch: DecodedBatch, now_s: float) -> None:
        """Append a decoded batch that follows the pending ones without a gap."""
        if not self.pending:
            self.pending_since_s = now_s
        if not self.record_count:
            self.records_since_s = now_s
        self.pending.append(batch)
        self.undecided = False
        self.record_count += len(batch.events) + len(batch.dead_letters)
        if len(batch.events):
            self.last_event_s = now_s

    def take_batch(self) -> DecodedBatch:
        """Remove and return the next batch to commit: about `COMMIT_EVENTS` events, or one unreadable range alone."""
        batches = [self.pending.popleft()]
        size = len(batches[0].events)
        while (
            self.pending
            and size < COMMIT_EVENTS
            and not is_unreadable_range(batches[0])
            and not is_unreadable_range(self.pending[0])
        ):
            batches.append(self.pending.popleft())
            size += len(batches[-1].events)
        return join_batches(batches)

    def is_due(self, control: StreamControl, now_s: float, *, finishing: bool) -> bool:
        """Return whether this buffer needs a commit now.

        Args:
            control: The stream's control state; records that the lead held back under it wait until it changes.
            now_s: The time on the monotonic clock.
            finishing: Polling has ended, so that waiting for further records is useless.
        """
        if self.held_under is not None and self.held_under == control:
            return now_s - self.last_announced_s >= WATERMARK_REPEAT_S
        if not self.pending:
            return self.ended and not self.end_stored
        if self.undecided:
            return False
        full = self.record_count >= COMMIT_EVENTS
        waited = now_s - self.pending_since_s >= COMMIT_INTERVAL_S
        return full or waited or self.ended or finishing or self.held_under is not None


def is_unreadable_range(batch: DecodedBatch) -> bool:
    """Return whether a batch represents a range of offsets that could not be read."""
    return batch.skip_reason is not None
