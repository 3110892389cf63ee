"""The inbox between the polling thread and the worker: a bounded queue that holds partitions back, never blocks.

The polling thread must go on polling while the store is slow, so `put` does not block; instead `crowded` says which
partitions have enough under way, and the source pauses exactly those.
"""

import queue
import threading
from dataclasses import dataclass

from consumers.batch import Partition, RawBatch, Table
from storage.ledger.sources import SourceClaim

MAX_QUEUED_BYTES = 32 * 1024 * 1024
MAX_PENDING_RECORDS = 40_000
_ESTIMATED_ROW_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionClaimed:
    """A partition is ours from `claim.next_offset` on."""

    partition: Partition
    claim: SourceClaim


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsFetched:
    """Records of a partition, fetched under an epoch."""

    epoch: int
    batch: RawBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRevoked:
    """A partition is no longer ours; what is pending of it is another's to read again."""

    partition: Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionCaughtUp:
    """The fetch position was the log's end: the source may be called idle until `until_us` on the database's clock."""

    partition: Partition
    until_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionEnded:
    """Nothing more will ever come from this partition."""

    partition: Partition
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlChanged:
    """The stream was sealed further or has a new threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """Nothing more is polled: commit what is there and stop."""


InboxMessage = (
    PartitionClaimed
    | RecordsFetched
    | PartitionRevoked
    | PartitionCaughtUp
    | PartitionEnded
    | ControlChanged
    | StopRequested
)


class Inbox:
    """Messages in order, and how much of each partition is under way between the fetch and the commit."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[InboxMessage] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued_bytes = 0
        self._pending: dict[Partition, int] = {}

    def put(self, message: InboxMessage) -> None:
        """Add a message; never blocks."""
        if isinstance(message, RecordsFetched):
            with self._lock:
                self._queued_bytes += estimate_size_bytes(message.batch)
                partition = message.batch.partition
                self._pending[partition] = self._pending.get(partition, 0) + len(message.batch)
        self._messages.put(message)

    def get(self, timeout_s: float) -> InboxMessage | None:
        """Return the next message, or None after `timeout_s` without one."""
        try:
            message = self._messages.get(timeout=max(timeout_s, 0.0)) if timeout_s > 0 else self._messages.get_nowait()
        except queue.Empty:
            return None
        if isinstance(message, RecordsFetched):
            with self._lock:
                self._queued_bytes -= estimate_size_bytes(message.batch)
        return message

    def release(self, partition: Partition, records: int) -> None:
        """Say that so many records of a partition are committed, or dropped."""
        with self._lock:
            self._pending[partition] = max(0, self._pending.get(partition, 0) - records)

    def over_limit(self, partitions: frozenset[Partition]) -> frozenset[Partition]:
        """Return those that have enough under way; all of them when the queue is full."""
        with self._lock:
            if self._queued_bytes >= MAX_QUEUED_BYTES:
                return partitions
            return frozenset(p for p in partitions if self._pending.get(p, 0) >= MAX_PENDING_RECORDS)


def estimate_size_bytes(batch: RawBatch) -> int:
    """Return about how much memory the values of a batch take."""
    if isinstance(batch.values, Table):
        return len(batch) * _ESTIMATED_ROW_BYTES
    return sum(len(value) for value in batch.values if value is not None)
