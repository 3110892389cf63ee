"""A lane: what is pending of one source under one epoch, between the inbox and the ledger.

It can be dropped at any moment: everything in it is read again from the stored position.
"""

from collections import deque
from dataclasses import dataclass, field

from consumers.batch import DecodedBatch, Partition
from monitor.pipeline.fold import join_batches
from storage.ledger.commit import StreamControl
from storage.ledger.sources import SourceClaim

COMMIT_INTERVAL_S = 1.0
"""How long events may wait for others to be committed with: the latency of the history."""

WATERMARK_REPEAT_S = 5.0
"""How often a source that lead holds back says its watermark again. A database that lost its last commits (a replica
that was promoted, a crash without synchronous commit) has forgotten it, and would wait for it for ever."""

COMMIT_EVENTS = 10_000
"""Events of one commit: a transaction of 50 to 100 ms, so that writers of other streams do not wait."""


@dataclass(slots=True, kw_only=True)
class PartitionBuffer:
    """What is pending of one source under one epoch.

    `records` counts what is pending and what is on its way into the ledger, as the inbox does; since `waiting_s` there
    have been some. `unsettled` says that the head of what is pending cannot be judged before something follows it.
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

    def add(self, decoded: DecodedBatch, now_s: float) -> None:
        """Append what was decoded; it follows what is pending without a gap."""
        if not self.pending:
            self.pending_since_s = now_s
        if not self.record_count:
            self.records_since_s = now_s
        self.pending.append(decoded)
        self.undecided = False
        self.record_count += len(decoded.events) + len(decoded.dead_letters)
        if len(decoded.events):
            self.last_event_s = now_s

    def take_batch(self) -> DecodedBatch:
        """Remove and return the next piece to commit: up to `COMMIT_EVENTS`, and a passed-over range alone."""
        pieces = [self.pending.popleft()]
        size = len(pieces[0].events)
        while (
            self.pending
            and size < COMMIT_EVENTS
            and not is_unreadable_range(pieces[0])
            and not is_unreadable_range(self.pending[0])
        ):
            pieces.append(self.pending.popleft())
            size += len(pieces[-1].events)
        return join_batches(pieces)

    def is_due(self, control: StreamControl, now_s: float, *, finishing: bool) -> bool:
        """Return whether something of this lane should be committed now.

        Args:
            control: What the stream is known to be; what lead held back under it waits for another one.
            now_s: The time.
            finishing: Nothing more is polled: waiting brings nothing.
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


def is_unreadable_range(piece: DecodedBatch) -> bool:
    """Return whether the piece is a range that could not be read."""
    return piece.skip_reason is not None
