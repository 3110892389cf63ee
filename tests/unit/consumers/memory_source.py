"""A source over lists in memory: several partitions of any length, polled in any order and any amounts."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from consumers.batch import Partition, Position, RawBatch
from consumers.source import Layout, PartitionInfo, PollResult, StartPosition


class MemorySource:
    """Keeps the contract of `consumers.source.Source` over values that do not change.

    Args:
        logs: The values of each partition.
        amounts: Says how many records a poll gives of a partition; all by default.
        ends: Whether a partition that was read to its end has ended, as a file does, or may grow, as a topic.
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
        self._held: AbstractSet[Partition] = frozenset()
        self._told_ended: set[Partition] = set()
        self._told_assigned = False

    @property
    def layout(self) -> Layout:
        return "lines"

    def discover(self) -> list[PartitionInfo]:
        return [
            PartitionInfo(partition=each, identity="memory", begin=0, end=len(self._logs[each]))
            for each in sorted(self._logs)
        ]

    def resolve(self, start: StartPosition, found: Sequence[PartitionInfo]) -> dict[Partition, Position]:
        at_end = start == "latest"
        return {each.partition: Position(next_offset=each.end if at_end else each.begin) for each in found}

    def seek(self, partition: Partition, position: Position) -> None:
        if partition not in self._logs:
            raise KeyError(partition)
        self._next[partition] = position.next_offset
        self._told_ended.discard(partition)

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        self._held = frozenset(partitions)

    def poll(self, timeout_s: float) -> PollResult:
        del timeout_s  # what is there is there at once
        assigned = frozenset() if self._told_assigned else frozenset(self._logs)
        self._told_assigned = True
        batches = [batch for each in sorted(self._next) if (batch := self._batch(each)) is not None]
        ended = {each for each in self._next if self._ends and self._at_end(each)} - self._told_ended - self._held
        self._told_ended |= ended
        return PollResult(batches=batches, assigned=assigned, ended=frozenset(ended))

    def _batch(self, partition: Partition) -> RawBatch | None:
        begin = self._next[partition]
        n = min(self._amounts(partition), len(self._logs[partition]) - begin)
        if partition in self._held or n <= 0:
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

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Nobody looks."""

    def close(self) -> None:
        """There is nothing to close."""
