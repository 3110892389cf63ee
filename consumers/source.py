"""Consumers: the protocol that every source of events follows (Kafka, files, the synthetic stream)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal, Protocol

from consumers.batch import Partition, Position, RawBatch

Layout = Literal["lines", "table"]
StartPosition = Literal["earliest", "latest"] | int
"""Where a partition without a stored position begins; an integer is a time in microseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionInfo:
    """One partition as it is now: what log it is, and the offsets that can be read, [begin, end).

    Another `identity` than the stored one means another log under the same name (a topic that was
    deleted and created again, a file that was replaced): offsets of the old one mean nothing in it.
    """

    partition: Partition
    identity: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PollResult:
    """What one poll brought.

    Batches of one partition follow each other without a gap: each begins where the one before ended.
    `assigned` and `revoked` are changes since the last poll. `replaced` partitions deliver nothing more
    until they are discovered and sought again: their log is another one, or the position lies beyond its
    end. `ended` partitions have delivered everything that will ever come; it is said once per seek.
    """

    batches: list[RawBatch] = field(default_factory=list)
    assigned: frozenset[Partition] = frozenset()
    revoked: frozenset[Partition] = frozenset()
    replaced: frozenset[Partition] = frozenset()
    ended: frozenset[Partition] = frozenset()


class Source(Protocol):
    """Where events come from.

    One thread owns a source: it makes all calls, from the first to `close`. A source keeps no position of
    its own across a restart: the caller stores positions and gives them back by `seek`.

    The life of a partition: `discover` finds it, `poll` says that it is assigned, the caller claims its
    stored position and calls `seek`, from then on `poll` delivers its batches in order, until it is
    revoked or replaced, or has ended. `seek` again, at any time while it is assigned, moves it; batches of
    the old position are never delivered after that.

    Every method but `close` may raise `BrokerUnavailable`: wait and call again, nothing is lost by it.
    `ConfigError` means that a person has to act (no such topic, no such file, access denied). No other
    exception concerns the data: whatever the bytes are, they are delivered as they are.
    """

    @property
    def layout(self) -> Layout:
        """Return whether batches carry one value per record or a table of columns; never changes."""
        ...

    def discover(self) -> list[PartitionInfo]:
        """Return all partitions, also those assigned to others, sorted; asks afresh each time.

        May be called at any time and blocks for one or two requests (bounded by the client's time-outs).

        Raises:
            ConfigError: A topic or the file does not exist, or may not be read.
            BrokerUnavailable: Nobody answered.
        """
        ...

    def resolve(self, start: StartPosition, found: Sequence[PartitionInfo]) -> dict[Partition, Position]:
        """Return where each of these partitions begins; blocks like `discover`.

        A time means the first record at or after it, the end where there is none. A file and the
        synthetic stream know "earliest" and "latest"; a time resolves to the beginning of a file.
        """
        ...

    def seek(self, partition: Partition, position: Position) -> None:
        """Start (or move) the delivery of an assigned partition; does not block.

        Raises:
            KeyError: The partition is not assigned (any more); the caller drops it.
        """
        ...

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        """Pause exactly these partitions and resume all others; does not block.

        Partitions that are not assigned are ignored. What was fetched before is kept, not delivered.
        """
        ...

    def poll(self, timeout_s: float) -> PollResult:
        """Return what has arrived, waiting up to `timeout_s` for something; returns early with something.

        An assigned partition delivers nothing before `seek`. Zero means not to wait. The time of reading
        and decompressing one bounded fetch comes on top.
        """
        ...

    def caught_up(self, partitions: AbstractSet[Partition]) -> frozenset[Partition]:
        """Return those whose next position is the log's end (the last stable offset), asked afresh.

        Blocks for one request. Everything below that position was delivered. False negatives are allowed,
        false positives are not: windows are closed on it.
        """
        ...

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Tell lag tools where the caller stands; best effort: never raises, never blocks for an answer."""
        ...

    def close(self) -> None:
        """Leave the group and free everything; idempotent, raises nothing; no call may follow it."""
        ...
