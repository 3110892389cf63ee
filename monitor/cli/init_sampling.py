"""Sampling of the first records of a source, in bounded time and without committing positions."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from consumers.batch import Partition, RawBatch
from consumers.source import Source

_POLL_S = 0.25
_MIN_RECORDS = 100
"""With fewer records at the end of the log, reading goes on until the time limit: records may be in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRecords:
    """First records of each partition, number of records in the log, and duration of the read in seconds."""

    batches: list[RawBatch]
    available: int
    took_s: float

    def __len__(self) -> int:
        return sum(map(len, self.batches))


def read_first_records(
    source: Source, *, wanted: int, within_s: float, progress: Callable[[int], None]
) -> FirstRecords:
    """Read about `wanted` records, the same number from each partition.

    Reading stops at the ends of the log at the time of the call. If the log has fewer than 100 records, it waits for
    new ones until `within_s` seconds have passed.
    """
    started_s = time.monotonic()
    partitions = source.discover()
    starts, ends = source.resolve("earliest", partitions), {each.partition: each.end for each in partitions}
    quota = -(-wanted // max(1, len(partitions)))
    taken: Counter[Partition] = Counter()
    reached = {partition: position.next_offset for partition, position in starts.items()}
    ended: set[Partition] = set()
    batches: list[RawBatch] = []
    while True:
        polled = source.poll(_POLL_S)
        for partition in polled.assigned & starts.keys():
            source.seek(partition, starts[partition])
        for raw in polled.batches:
            batch = raw.head(quota - taken[raw.partition])
            if len(batch):
                batches.append(batch)
            taken[raw.partition] += len(batch)
            reached[raw.partition] = raw.end
        ended |= polled.ended
        progress(min(taken.total(), wanted))  # the quota per partition is rounded up
        full = {each for each in starts if taken[each] >= quota}
        source.set_paused(full)
        at_end = {each for each in starts if reached[each] >= ends[each]} | full | ended
        enough = taken.total() >= min(wanted, _MIN_RECORDS) or ended == starts.keys()
        if (enough and at_end == starts.keys()) or time.monotonic() - started_s >= within_s:
            available = max(sum(each.end - each.begin for each in partitions), taken.total())
            return FirstRecords(batches=batches, available=available, took_s=time.monotonic() - started_s)
