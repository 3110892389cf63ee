"""The source protocol, implemented by Kafka topics, files and the synthetic stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal, Protocol

from config.errors import BrokerUnavailable
from consumers.batch import Partition, Position, RawBatch

Layout = Literal["lines", "table"]
StartPosition = Literal["earliest", "latest"] | int
"""The start of a partition without a stored position. An integer is a time in microseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionInfo:
    """The current state of one partition: the identity of its log, and the readable offsets [begin, end).

    A changed `identity` means another log under the same name, for example a re-created topic or a replaced
    file. Offsets of the old log are not valid in the new one.
    """

    partition: Partition
    identity: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PollResult:
    """The result of one poll.

    Batches of one partition are contiguous: each begins at the end of the one before. `assigned` and
    `revoked` are changes since the last poll. `replaced` partitions have another log, or a position beyond
    its end. They deliver nothing until the caller discovers and seeks them again. `ended` partitions have
    delivered all their records. Each is reported once per seek.
    """

    batches: list[RawBatch] = field(default_factory=list)
    assigned: frozenset[Partition] = frozenset()
    revoked: frozenset[Partition] = frozenset()
    replaced: frozenset[Partition] = frozenset()
    ended: frozenset[Partition] = frozenset()


class Source(Protocol):
    """A source of raw records.

    One thread makes all calls, from the first to `close`. A source does not persist positions: the caller
    stores them and restores them with `seek`.

    The states of a partition: `discover` finds it, `poll` reports it as assigned, the caller claims its
    stored position and calls `seek`, and `poll` then delivers its batches in order until the partition is
    revoked, replaced or ended. Another `seek` is allowed at any time while the partition is assigned.
    Batches of the old position are not delivered after it.

    Every method except `close` may raise `BrokerUnavailable`: wait and call again, no data is lost.
    `ConfigError` requires an operator (no such topic, no such file, access denied). The content of records
    never raises an exception: their bytes are delivered unchanged.
    """

    @property
    def layout(self) -> Layout:
        """Return "lines" for one value per record, "table" for a table of columns. Constant."""
        ...

    def discover(self) -> list[PartitionInfo]:
        """Return all partitions in order, including those assigned to other members. Not cached.

        May be called at any time. Blocks for one or two requests, bounded by the client's timeouts.

        Raises:
            ConfigError: A topic or the file does not exist, or is not readable.
            BrokerUnavailable: No broker answered.
        """
        ...

    def resolve(self, start: StartPosition, partitions: Sequence[PartitionInfo]) -> dict[Partition, Position]:
        """Return the start position of each partition. Blocks like `discover`.

        A time resolves to the first record at or after it, or to the end if there is none. In a file, a time
        resolves to the beginning.
        """
        ...

    def seek(self, partition: Partition, position: Position) -> None:
        """Set the position of an assigned partition, which starts its delivery. Does not block.

        Raises:
            KeyError: The partition is not assigned. The caller discards it.
        """
        ...

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        """Pause exactly these partitions and resume all others. Does not block.

        Partitions that are not assigned are ignored. Fetched records of paused partitions are retained, and
        are delivered after the partition is resumed.
        """
        ...

    def poll(self, timeout_s: float) -> PollResult:
        """Return new batches and partition changes. Wait up to `timeout_s` seconds for the first one.

        An assigned partition delivers nothing before `seek`. A timeout of zero does not wait. Reading and
        decompressing one bounded fetch is not part of the timeout.
        """
        ...

    def caught_up(self, partitions: AbstractSet[Partition]) -> frozenset[Partition]:
        """Return the partitions with a next position equal to the log's current end (the last stable offset).

        Blocks for one request. All records below that position were delivered. False negatives are allowed,
        false positives are not, because windows are sealed on the result.
        """
        ...

    @property
    def problem(self) -> BrokerUnavailable | None:
        """Return why nothing can be read at present: no broker answers, or a topic is missing. None if neither is so.

        The result of the last calls; asks nobody.
        """
        ...

    @property
    def log_ends(self) -> Mapping[Partition, int]:
        """Return the end of the log of each partition, as the last `caught_up` found it; asks nobody.

        Empty for a source whose positions are not counted in records ahead, such as a file.
        """
        ...

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Publish the caller's positions for lag monitors. Best effort: never raises or waits for an answer."""
        ...

    def close(self) -> None:
        """Leave the group and free all resources. Idempotent, raises nothing. No call may follow it."""
        ...
