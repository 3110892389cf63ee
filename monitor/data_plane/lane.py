"""A lane: what is pending of one source under one epoch, between the inbox and the ledger.

It can be dropped at any moment: everything in it is read again from the stored position.
"""

from collections import deque
from dataclasses import dataclass, field

from consumers.batch import Decoded, Partition
from monitor.data_plane.fold import join
from storage.ledger import Claim, Control

COMMIT_INTERVAL_S = 1.0
"""How long events may wait for others to be committed with: the latency of the history."""

TELL_AGAIN_S = 5.0
"""How often a source that lead holds back says its watermark again. A database that lost its last commits (a replica
that was promoted, a crash without synchronous commit) has forgotten it, and would wait for it for ever."""

COMMIT_EVENTS = 10_000
"""Events of one commit: a transaction of 50 to 100 ms, so that writers of other streams do not wait."""


@dataclass(slots=True, kw_only=True)
class Lane:
    """What is pending of one source under one epoch.

    `records` counts what is pending and what is on its way into the ledger, as the inbox does; since `waiting_s` there
    have been some. `unsettled` says that the head of what is pending cannot be judged before something follows it.
    """

    partition: Partition
    claim: Claim
    next_offset: int
    cursor: int | None
    watermark_us: int | None
    pending: deque[Decoded] = field(default_factory=deque)
    records: int = 0
    first_pending_s: float = 0.0
    waiting_s: float = 0.0
    last_event_s: float = 0.0
    ended: bool = False
    end_stored: bool = False
    held_at: Control | None = None
    told_s: float = float("-inf")
    unsettled: bool = False

    def add(self, decoded: Decoded, now_s: float) -> None:
        """Append what was decoded; it follows what is pending without a gap."""
        if not self.pending:
            self.first_pending_s = now_s
        if not self.records:
            self.waiting_s = now_s
        self.pending.append(decoded)
        self.unsettled = False
        self.records += len(decoded.events) + len(decoded.dead)
        if len(decoded.events):
            self.last_event_s = now_s

    def take(self) -> Decoded:
        """Remove and return the next piece to commit: up to `COMMIT_EVENTS`, and a passed-over range alone."""
        pieces = [self.pending.popleft()]
        size = len(pieces[0].events)
        while self.pending and size < COMMIT_EVENTS and not is_gap(pieces[0]) and not is_gap(self.pending[0]):
            pieces.append(self.pending.popleft())
            size += len(pieces[-1].events)
        return join(pieces)

    def is_due(self, control: Control, now_s: float, *, finishing: bool) -> bool:
        """Return whether something of this lane should be committed now.

        Args:
            control: What the stream is known to be; what lead held back under it waits for another one.
            now_s: The time.
            finishing: Nothing more is polled: waiting brings nothing.
        """
        if self.held_at is not None and self.held_at == control:
            return now_s - self.told_s >= TELL_AGAIN_S
        if not self.pending:
            return self.ended and not self.end_stored
        if self.unsettled:
            return False
        full = self.records >= COMMIT_EVENTS
        waited = now_s - self.first_pending_s >= COMMIT_INTERVAL_S
        return full or waited or self.ended or finishing or self.held_at is not None


def is_gap(piece: Decoded) -> bool:
    """Return whether the piece is a range that could not be read."""
    return piece.passed_over is not None
