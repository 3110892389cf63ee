"""The buffer of one claimed partition between the inbox and the ledger, and the transitions of its state.

A buffer can be discarded at any time: its records are read again from the stored position.
"""

import enum
import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from consumers.batch import Partition, Position
from consumers.decoded_batch import DecodedBatch
from monitor.pipeline.fold import join_batches
from monitor.pipeline.key_states import KeyedSource
from storage.ledger.commit import StreamControl
from storage.ledger.sources import SourceClaim

QUIET_US = 1_500_000
"""Time without further records at the end of a log after which the clock decides on future times."""

WATERMARK_REPEAT_S = 5.0
"""Interval at which the watermark of a source with held records is committed again.

A database that lost its last commits (a promoted replica, a crash without synchronous commit) has lost this watermark
and would wait for it indefinitely.
"""

COMMIT_EVENTS = 10_000
"""Events of one commit: a transaction of 50 to 100 ms, short enough for the writers of other streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldByLead:
    """The lead holds the first pending event back until the control state of the stream differs from `control`."""

    control: StreamControl


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """The first pending event waits for further records or for the clock, which decide whether its time is stray."""


Hold = HeldByLead | Undecided


class BufferState(enum.Enum):
    """State of a partition buffer: whether it has records, and the event that they wait for."""

    CLAIMED = enum.auto()
    """No pending records; further records may follow."""
    PENDING = enum.auto()
    """Pending records that may be committed."""
    HELD_BY_LEAD = enum.auto()
    """Pending records whose first event the lead holds back."""
    UNDECIDED = enum.auto()
    """Pending records whose first event waits for further records or for the clock."""
    ENDED = enum.auto()
    """No pending records, and no records follow; the end of the source is not stored."""
    END_STORED = enum.auto()
    """As `ENDED`, and the end of the source is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferAdvance:
    """Change of a buffer by a stored commit.

    Attributes:
        n_batches: Number of leading pending batches that the commit takes.
        n_records: Number of committed records: events, dead letters and filtered records.
        n_events: Number of committed events.
        position: Stored position of the source after the commit.
        watermark_us: Stored watermark of the source after the commit.
        remaining: Records of the taken batches that are not committed; they become the first pending batch.
        hold: Condition under which the remaining records wait; None if they may be committed.
        keyed: The states of the source's keys after the commit; None if the stream derives no features.
    """

    n_batches: int
    n_records: int
    n_events: int
    position: Position
    watermark_us: int | None
    remaining: DecodedBatch | None = None
    hold: Hold | None = None
    keyed: KeyedSource | None = None


@dataclass(slots=True, kw_only=True)
class PartitionBuffer:
    """The pending records of one source under one claim.

    `record_count` counts the records from the fetch to the commit, as the inbox does; `records_since_s` is the time
    since which there have been any, `pending_since_s` the time since which some wait for their commit, and
    `waiting_since_s` the time since which the position has not moved although there are pending records; `last_hold` is
    the last condition that the first of them has waited for, also while it is decided again. `hold` is the
    condition that the first pending event waits for. Since `log_end_since_us`, by the database's clock, the last
    pending record is known to be the last one of the log; `log_end_us` is the time until which it was, once that has
    lasted `QUIET_US`. `idle` is true from the storing of the idle source to its next commit. `keyed` holds the stored
    states of the source's keys; None if the stream derives no features. Other times are on the monotonic clock.

    Only the methods change a buffer.
    """

    partition: Partition
    claim: SourceClaim
    position: Position
    watermark_us: int | None
    pending: deque[DecodedBatch] = field(default_factory=deque)
    hold: Hold | None = None
    log_end_since_us: int | None = None
    log_end_us: int | None = None
    ended: bool = False
    end_stored: bool = False
    record_count: int = 0
    pending_since_s: float = 0.0
    records_since_s: float = 0.0
    waiting_since_s: float = 0.0
    last_hold: Hold | None = None
    last_event_s: float = 0.0
    last_announced_s: float = float("-inf")
    idle: bool = False
    keyed: KeyedSource | None = None

    @classmethod
    def from_claim(cls, partition: Partition, claim: SourceClaim, now_s: float) -> "PartitionBuffer":
        """Return the empty buffer of a new claim, at the stored position."""
        return cls(
            partition=partition,
            claim=claim,
            position=Position(next_offset=claim.next_offset, cursor=claim.cursor),
            watermark_us=claim.watermark_us,
            last_event_s=now_s,
        )

    @property
    def state(self) -> BufferState:
        """Return the state of the buffer."""
        if self.pending:
            match self.hold:
                case None:
                    return BufferState.PENDING
                case HeldByLead():
                    return BufferState.HELD_BY_LEAD
                case Undecided():
                    return BufferState.UNDECIDED
                case other:
                    assert_never(other)
        if self.ended:
            return BufferState.END_STORED if self.end_stored else BufferState.ENDED
        return BufferState.CLAIMED

    def set_keyed(self, keyed: KeyedSource) -> None:
        """Set the states of the source's keys at its stored position."""
        self.keyed = keyed

    def add(self, batch: DecodedBatch, now_s: float) -> None:
        """Append a decoded batch that follows the pending ones without a gap; it may decide an undecided event."""
        if batch.end == batch.begin:
            return
        if not self.pending:
            self.pending_since_s = self.waiting_since_s = now_s
        if not self.record_count:
            self.records_since_s = now_s
        self.pending.append(batch)
        self.log_end_since_us = self.log_end_us = None
        self._decide()
        self.record_count += batch.n_records
        if len(batch.events):
            self.last_event_s = now_s

    def reach_log_end(self, clock_us: int) -> None:
        """Record that the pending records end the log at a time of the database's clock.

        It decides an event once no record has followed for `QUIET_US`: in a stream that goes on, record batches decide.
        """
        if self.log_end_since_us is None:
            self.log_end_since_us = clock_us
        if clock_us - self.log_end_since_us >= QUIET_US:
            self.log_end_us = clock_us
            self._decide()

    def end(self, clock_us: int | None = None) -> None:
        """Record that no further records follow, which decides an undecided event.

        `clock_us` is the time of the database's clock; None for a back-test.
        """
        self.ended = True
        self.log_end_us = clock_us
        self._decide()

    def _decide(self) -> None:
        if isinstance(self.hold, Undecided):
            self.hold = None

    def apply_hold(self, hold: Hold, now_s: float) -> None:
        """Let the pending records wait for a condition, because none of them could be committed."""
        self.hold = self.last_hold = hold
        self.pending_since_s = now_s

    def apply_commit(self, advance: BufferAdvance, now_s: float) -> None:
        """Replace the batches of a stored commit by the remaining records, and set the stored position."""
        for _ in range(advance.n_batches):
            self.pending.popleft()
        if advance.remaining is not None:
            self.pending.appendleft(advance.remaining)
        self.hold = self.last_hold = advance.hold
        if advance.position != self.position:
            self.waiting_since_s = now_s
        self.position = advance.position
        self.watermark_us = advance.watermark_us
        self.keyed = advance.keyed
        self.record_count -= advance.n_records
        self.end_stored = self.idle = False
        self.pending_since_s = self.last_announced_s = now_s

    def apply_repeated_watermark(self, now_s: float) -> None:
        """Record that the watermark of the held records is committed again now."""
        self.last_announced_s = now_s
        self.idle = False

    def apply_idle(self) -> None:
        """Record that the source is stored as idle; the next commit ends this."""
        self.idle = True

    def apply_stored_end(self) -> None:
        """Record that the end of the source is stored."""
        self.end_stored = True

    def is_due(self, control: StreamControl, now_s: float) -> bool:
        """Return whether this buffer has a step to carry out now.

        Args:
            control: The stream's control state; records that the lead held back under it wait until it changes.
            now_s: The time on the monotonic clock.
        """
        match self.state:
            case BufferState.CLAIMED | BufferState.UNDECIDED | BufferState.END_STORED:
                return False
            case BufferState.PENDING | BufferState.ENDED:
                return True
            case BufferState.HELD_BY_LEAD:
                return not self.is_held_under(control) or now_s - self.last_announced_s >= WATERMARK_REPEAT_S
            case other:
                assert_never(other)

    def is_urgent(self, control: StreamControl, now_s: float) -> bool:
        """Return whether this buffer is due and gains nothing by waiting for further records."""
        if self.state is BufferState.PENDING:
            return self.record_count >= COMMIT_EVENTS or self.ended
        return self.is_due(control, now_s)

    def count_next_events(self) -> int:
        """Return the number of events of the next commit, before any of them is held back."""
        pieces = itertools.islice(self.pending, count_joined_batches(self.pending)) if self.pending else ()
        return sum(len(batch.events) for batch in pieces)

    def is_held_under(self, control: StreamControl) -> bool:
        """Return whether the lead holds the first pending event back under this control state."""
        return self.hold == HeldByLead(control=control)


def next_batch(pending: Sequence[DecodedBatch]) -> tuple[DecodedBatch, int]:
    """Return the next batch to commit, and the number of leading pending batches that it joins.

    Args:
        pending: Consecutive batches, at least one.
    """
    n = count_joined_batches(pending)
    return join_batches([pending[i] for i in range(n)]), n


def count_joined_batches(pending: Sequence[DecodedBatch]) -> int:
    """Return the number of leading batches, at least one, that one commit takes.

    They have about `COMMIT_EVENTS` events together, or are one unreadable range alone.
    """
    n, size = 1, len(pending[0].events)
    while (
        n < len(pending)
        and size < COMMIT_EVENTS
        and not is_unreadable_range(pending[0])
        and not is_unreadable_range(pending[n])
    ):
        size += len(pending[n].events)
        n += 1
    return n


def is_unreadable_range(batch: DecodedBatch) -> bool:
    """Return whether a batch represents a range of offsets that could not be read."""
    return batch.skip_reason is not None
