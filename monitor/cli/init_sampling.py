"""Read the first records of a source, in bounded time and without moving any position."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from consumers.batch import Partition, RawBatch
from consumers.source import Source

_POLL_S = 0.25
_MIN_RECORDS = 100
"""With fewer records a topic is waited for, since some may be on their way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRecords:
    """The first records of each partition, how many there are in all, and how long reading took."""

    batches: list[RawBatch]
    available: int
    took_s: float

    def __len__(self) -> int:
        return sum(map(len, self.batches))


def read_first_records(
    source: Source, *, wanted: int, within_s: float, progress: Callable[[int], None]
) -> FirstRecords:
    """Read about as many records as are wanted, the same number from each partition.

    Reading ends with the log as it was when it was asked for; where that holds next to nothing, what comes is waited
    for until the time is up.
    """
    began_s = time.monotonic()
    found = source.discover()
    starts, ends = source.resolve("earliest", found), {each.partition: each.end for each in found}
    quota = -(-wanted // max(1, len(found)))
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
        progress(min(taken.total(), wanted))  # every partition gives the same number, rounded up
        full = {each for each in starts if taken[each] >= quota}
        source.set_paused(full)
        at_end = {each for each in starts if reached[each] >= ends[each]} | full | ended
        enough = taken.total() >= min(wanted, _MIN_RECORDS) or ended == starts.keys()
        if (enough and at_end == starts.keys()) or time.monotonic() - began_s >= within_s:
            available = max(sum(each.end - each.begin for each in found), taken.total())
            return FirstRecords(batches=batches, available=available, took_s=time.monotonic() - began_s)
