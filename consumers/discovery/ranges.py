"""Reading of ranges of offsets that exist already, once and without storing a position."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from config.errors import BrokerUnavailable, ConfigError
from consumers.batch import Partition, Position, RawBatch
from consumers.source import PartitionInfo, Source

STALL_TIMEOUT_S = 30.0
"""How long a read waits for the next batch of a range that exists already."""

_POLL_TIMEOUT_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedRange:
    """The offsets [begin, end) of one partition."""

    begin: int
    end: int


class RangeReader:
    """Reads ranges of offsets of a source; owns the source while it reads.

    Args:
        source: A source used by this reader only, outside of any consumer group.
        stall_timeout_s: How long to wait for the next batch, in seconds.
    """

    def __init__(self, source: Source, *, stall_timeout_s: float = STALL_TIMEOUT_S) -> None:
        self._source = source
        self._stall_timeout_s = stall_timeout_s
        self._assigned: frozenset[Partition] = frozenset()

    def read(
        self,
        ranges: Mapping[Partition, RetainedRange],
        take: Callable[[RawBatch], None],
        *,
        deadline_s: float = float("inf"),
    ) -> bool:
        """Read ranges and pass their batches to `take`, those of one partition in order of offset.

        Args:
            ranges: The range of each partition. Other partitions are paused.
            take: Called with each batch. Its records are inside the range.
            deadline_s: A time of the monotonic clock, after which reading stops.

        Returns:
            Whether all ranges were read; False after the deadline.

        Raises:
            BrokerUnavailable: No batch was delivered within the stall timeout.
            ConfigError: A topic was re-created or a file was replaced meanwhile.
        """
        open_ranges = {partition: each for partition, each in ranges.items() if each.begin < each.end}
        to_seek = set(open_ranges)
        answered_s = time.monotonic()
        while open_ranges:
            now_s = time.monotonic()
            if now_s >= deadline_s:
                return False
            if now_s - answered_s >= self._stall_timeout_s:
                raise BrokerUnavailable(
                    f"{min(open_ranges)} delivered no record for {self._stall_timeout_s:.0f} s although it has some; "
                    "check that the brokers run, then try again"
                )
            self._seek(to_seek, open_ranges)
            try:
                polled = self._source.poll(_POLL_TIMEOUT_S)
            except BrokerUnavailable:
                continue
            self._assigned |= polled.assigned
            for batch in polled.batches:
                answered_s = time.monotonic()
                self._take_batch(batch, open_ranges, to_seek, take)
            replaced = polled.replaced & open_ranges.keys()
            if replaced:
                raise ConfigError(f"{min(replaced)} was replaced while it was read: try again")
            for partition in polled.ended - to_seek:
                open_ranges.pop(partition, None)
        return True

    def _seek(self, to_seek: set[Partition], ranges: Mapping[Partition, RetainedRange]) -> None:
        for partition in sorted(to_seek & self._assigned):
            self._source.seek(partition, Position(next_offset=ranges[partition].begin))
            to_seek.discard(partition)
        self._source.set_paused(self._assigned - ranges.keys())

    def _take_batch(
        self,
        batch: RawBatch,
        open_ranges: dict[Partition, RetainedRange],
        to_seek: set[Partition],
        take: Callable[[RawBatch], None],
    ) -> None:
        wanted = open_ranges.get(batch.partition)
        if wanted is None or batch.partition in to_seek:
            return
        inside = batch.head(int(np.searchsorted(batch.offsets, wanted.end)))
        if len(inside) or inside.skip_reason is not None:
            take(inside)
        if batch.end >= wanted.end:
            del open_ranges[batch.partition]


def newest_ranges(partitions: Sequence[PartitionInfo], n: int) -> dict[Partition, RetainedRange]:
    """Return the range of the last `n` offsets of each partition."""
    return {each.partition: RetainedRange(begin=max(each.begin, each.end - n), end=each.end) for each in partitions}
