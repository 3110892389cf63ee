"""The log of a topic in memory, its consumer group, and a source that reads the assigned partitions."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np

from consumers.batch import Partition, Position, RawBatch
from consumers.source import Layout, PartitionInfo, PollResult, StartPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """A record of the log; `batch_offset` is the base offset of its record batch.

    `stamp_us` is its LogAppendTime if `has_append_time`, else its CreateTime.
    """

    offset: int
    batch_offset: int
    stamp_us: int
    has_append_time: bool
    value: bytes


@dataclass
class PartitionLog:
    """The records of one partition in order of their offsets, and the offset after the last one.

    Offsets without a record are aborted transactions, their markers, or compacted. `n_visible` is the number of records
    that are produced so far.
    """

    records: Sequence[LogRecord]
    end: int
    n_visible: int = 0

    @property
    def visible_end(self) -> int:
        """Return the last stable offset."""
        return self.end if self.n_visible == len(self.records) else self.records[self.n_visible].offset

    def read(self, partition: Partition, begin: int, n: int, *, with_hole: bool) -> RawBatch | None:
        """Return up to n records from an offset on; None at the end of the log.

        Args:
            partition: The partition of this log.
            begin: The offset of the read.
            n: The largest number of records.
            with_hole: Advance past the offsets without a record that follow the last record.
        """
        if begin >= self.visible_end:
            return None
        first = next((i for i, each in enumerate(self.records) if each.offset >= begin), len(self.records))
        taken = self.records[first : min(first + n, self.n_visible)]
        end = taken[-1].offset + 1 if taken else self.visible_end
        if with_hole:
            following = first + len(taken)
            end = self.records[following].offset if following < len(self.records) else self.end
        return RawBatch(
            partition=partition,
            begin=begin,
            end=end,
            offsets=np.array([each.offset for each in taken], np.int64),
            values=[each.value for each in taken],
            timestamps_us=np.array([each.stamp_us for each in taken], np.int64),
            batch_offsets=np.array([each.batch_offset for each in taken], np.int64),
            has_append_time=np.array([each.has_append_time for each in taken], np.bool_),
        )


@dataclass
class ConsumerGroup:
    """The logs of a topic, and the member that each partition is assigned to.

    `ends` is True if a partition ends after its last record like a file, False if it may grow like a topic.
    """

    logs: Mapping[Partition, PartitionLog]
    ends: bool
    assignment: dict[Partition, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Return whether all records are produced."""
        return all(log.n_visible == len(log.records) for log in self.logs.values())

    def produce(self, partition: Partition, n: int) -> None:
        """Make n further record batches of a partition visible."""
        log = self.logs[partition]
        for _ in range(n):
            if log.n_visible == len(log.records):
                return
            batch_offset = log.records[log.n_visible].batch_offset
            while log.n_visible < len(log.records) and log.records[log.n_visible].batch_offset == batch_offset:
                log.n_visible += 1


class GroupSource:
    """An implementation of `consumers.source.Source`: one member of a consumer group.

    `poll_records` is the number of records of a partition that the next polls return.
    """

    def __init__(self, group: ConsumerGroup, member: int) -> None:
        self._group = group
        self._member = member
        self._assigned: frozenset[Partition] = frozenset()
        self._next: dict[Partition, int] = {}
        self._paused: AbstractSet[Partition] = frozenset()
        self._reported_ended: set[Partition] = set()
        self.poll_records = 10

    @property
    def layout(self) -> Layout:
        return "lines"

    @property
    def problem(self) -> None:
        return None

    @property
    def log_ends(self) -> Mapping[Partition, int]:
        return {each: log.visible_end for each, log in self._group.logs.items()}

    def discover(self) -> list[PartitionInfo]:
        return [
            PartitionInfo(partition=each, identity="log", begin=0, end=log.visible_end)
            for each, log in sorted(self._group.logs.items())
        ]

    def resolve(self, start: StartPosition, partitions: Sequence[PartitionInfo]) -> dict[Partition, Position]:
        del start
        return {each.partition: Position(next_offset=each.begin) for each in partitions}

    def seek(self, partition: Partition, position: Position) -> None:
        if partition not in self._assigned:
            raise KeyError(partition)
        self._next[partition] = position.next_offset
        self._reported_ended.discard(partition)

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        self._paused = frozenset(partitions)

    def poll(self, timeout_s: float) -> PollResult:
        del timeout_s
        wanted = frozenset(each for each, member in self._group.assignment.items() if member == self._member)
        assigned, revoked = wanted - self._assigned, self._assigned - wanted
        self._assigned = wanted
        for each in revoked:
            self._next.pop(each, None)
        batches = [batch for each in sorted(self._next) if (batch := self._read(each)) is not None]
        ended = {each for each in self._next if self._has_ended(each)} - self._reported_ended - self._paused
        self._reported_ended |= ended
        return PollResult(batches=batches, assigned=assigned, revoked=revoked, ended=frozenset(ended))

    def _read(self, partition: Partition) -> RawBatch | None:
        if partition in self._paused:
            return None
        begin = self._next[partition]
        batch = self._group.logs[partition].read(
            partition, begin, self.poll_records, with_hole=self.poll_records % 2 == 0
        )
        if batch is not None:
            self._next[partition] = batch.end
        return batch

    def _has_ended(self, partition: Partition) -> bool:
        log = self._group.logs[partition]
        return self._group.ends and log.n_visible == len(log.records) and self._next[partition] >= log.end

    def caught_up(self, partitions: AbstractSet[Partition]) -> frozenset[Partition]:
        return frozenset(each for each in partitions if self._next.get(each, -1) >= self._group.logs[each].visible_end)

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
