"""The inbox between the polling thread and the worker: a queue with back-pressure per partition.

The polling thread must keep polling while the database is slow, so `put` never blocks. Instead `over_limit` returns the
partitions with too many records in flight, and the intake pauses exactly these.
"""

import queue
import threading
from dataclasses import dataclass

from consumers.batch import Partition, RawBatch
from storage.ledger.sources import SourceClaim

MAX_QUEUED_BYTES = 32 * 1024 * 1024
"""Bytes of fetched records in the queue, of all partitions together, above which every partition is paused."""

MAX_PENDING_RECORDS = 40_000
"""Records of one partition between the fetch and the commit, above which the partition is paused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionClaimed:
    """This process has claimed a partition; its records follow from `claim.next_offset` on."""

    partition: Partition
    claim: SourceClaim


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsFetched:
    """Records of a partition, fetched under the epoch of a claim."""

    epoch: int
    batch: RawBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRevoked:
    """The broker has revoked a partition. Its pending records are discarded; the next owner reads them again."""

    partition: Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionsCaughtUp:
    """The fetch positions were the ends of the logs, at `seen_us` or later by the database clock."""

    partitions: frozenset[Partition]
    seen_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionEnded:
    """The partition has ended: no further records follow. `seen_us` is the time by the database clock."""

    partition: Partition
    epoch: int
    seen_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlChanged:
    """The stream was sealed further or has a new threshold; the worker reads both again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """Polling has ended: the worker commits the pending records and stops."""


InboxMessage = (
    PartitionClaimed
    | RecordsFetched
    | PartitionRevoked
    | PartitionsCaughtUp
    | PartitionEnded
    | ControlChanged
    | StopRequested
)


class Inbox:
    """Messages in order, with the number of records of each partition between the fetch and the commit."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[InboxMessage] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued_bytes = 0
        self._pending: dict[Partition, int] = {}

    def put(self, message: InboxMessage) -> None:
        """Add a message without blocking."""
        if isinstance(message, RecordsFetched):
            with self._lock:
                self._queued_bytes += message.batch.size_bytes
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
                self._queued_bytes -= message.batch.size_bytes
        return message

    def release(self, partition: Partition, records: int) -> None:
        """Subtract records of a partition that were committed or discarded."""
        with self._lock:
            self._pending[partition] = max(0, self._pending.get(partition, 0) - records)

    def over_limit(self, partitions: frozenset[Partition]) -> frozenset[Partition]:
        """Return the partitions with too many records in flight; all of them when the queue is full."""
        with self._lock:
            if self._queued_bytes >= MAX_QUEUED_BYTES:
                return partitions
            return frozenset(p for p in partitions if self._pending.get(p, 0) >= MAX_PENDING_RECORDS)
