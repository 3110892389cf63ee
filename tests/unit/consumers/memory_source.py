"""A source over lists in memory, with any number of partitions and any number of records per poll."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from config.errors import BrokerUnavailable
from consumers.batch import Partition, Position, RawBatch
from consumers.source import Layout, PartitionInfo, PollResult, StartPosition


class MemorySource:
    """An implementation of `consumers.source.Source` over constant values.

    Args:
        logs: The values of each partition.
        amounts: Return the number of records per poll of a partition. The default is all.
        ends: True if a partition ends after its last record like a file, False if it may grow like a topic.
    """

    def __init__(
        self,
        logs: Mapping[Partition, Sequence[bytes]],
        *,
        amounts: Callable[[Partition], int] = lambda _: 10**9,
        ends: bool = False,
    ) -> None:
        self._logs = dict(logs)
        self._amounts = amounts
        self._ends = ends
        self._next: dict[Partition, int] = {}
        self._paused: AbstractSet[Partition] = frozenset()
        self._reported_ended: set[Partition] = set()
        self._reported_assigned = False

    @property
    def layout(self) -> Layout:
        return "lines"

    def discover(self) -> list[PartitionInfo]:
        return [
            PartitionInfo(partition=each, identity="memory", begin=0, end=len(self._logs[each]))
            for each in sorted(self._logs)
        ]

    def resolve(self, start: StartPosition, partitions: Sequence[PartitionInfo]) -> dict[Partition, Position]:
        at_end = start == "latest"
        return {each.partition: Position(next_offset=each.end if at_end else each.begin) for each in partitions}

    def seek(self, partition: Partition, position: Position) -> None:
        if partition not in self._logs:
            raise KeyError(partition)
        self._next[partition] = position.next_offset
        self._reported_ended.discard(partition)

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        self._paused = frozenset(partitions)

    def poll(self, timeout_s: float) -> PollResult:
        del timeout_s  # all records are available immediately
        assigned = frozenset() if self._reported_assigned else frozenset(self._logs)
        self._reported_assigned = True
        batches = [batch for each in sorted(self._next) if (batch := self._batch(each)) is not None]
        ended = {each for each in self._next if self._ends and self._at_end(each)} - self._reported_ended - self._paused
        self._reported_ended |= ended
        return PollResult(batches=batches, assigned=assigned, ended=frozenset(ended))

    def _batch(self, partition: Partition) -> RawBatch | None:
        begin = self._next[partition]
        n = min(self._amounts(partition), len(self._logs[partition]) - begin)
        if partition in self._paused or n <= 0:
            return None
        self._next[partition] = begin + n
        return RawBatch(
            partition=partition,
            begin=begin,
            end=begin + n,
            offsets=np.arange(begin, begin + n, dtype=np.int64),
            values=list(self._logs[partition][begin : begin + n]),
        )

    def _at_end(self, partition: Partition) -> bool:
        return self._next[partition] >= len(self._logs[partition])

    def caught_up(self, partitions: AbstractSet[Partition]) -> frozenset[Partition]:
        return frozenset(each for each in partitions if each in self._next and self._at_end(each))

    @property
    def problem(self) -> BrokerUnavailable | None:
        """None: there is no broker."""
        return None

    @property
    def log_ends(self) -> Mapping[Partition, int]:
        """The ends of all logs."""
        return {each: len(log) for each, log in self._logs.items()}

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
