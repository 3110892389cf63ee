"""Delivery times of events: from the broker's timestamp to the commit. Used by the worker thread alone."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from consumers.batch import Int64, Partition
from monitor.metrics.counters import BucketCounts


@dataclass(slots=True)
class DeliveryTimes:
    """Keeps the broker's timestamps of the records of each partition until their position is stored.

    Attributes:
        histogram: The delivery times in seconds.
    """

    histogram: BucketCounts
    _waiting: dict[Partition, deque[tuple[Int64, Int64]]] = field(default_factory=dict)

    def note_records(self, partition: Partition, offsets: Int64, timestamps_us: Int64 | None) -> None:
        """Keep the timestamps of records that were read, (n,); None for a source without them."""
        if timestamps_us is not None and len(offsets):
            self._waiting.setdefault(partition, deque()).append((offsets, timestamps_us))

    def forget_partition(self, partition: Partition) -> None:
        """Discard the timestamps of a partition: its records are read again."""
        self._waiting.pop(partition, None)

    def observe_commit(self, partition: Partition, next_offset: int, now_us: int) -> None:
        """Count the delivery times of the records before the stored position `next_offset`."""
        waiting = self._waiting.get(partition)
        while waiting:
            offsets, timestamps_us = waiting[0]
            n = int(np.searchsorted(offsets, next_offset))
            self.histogram.add_all(np.maximum(now_us - timestamps_us[:n], 0) / 1e6)
            if n < len(offsets):
                waiting[0] = (offsets[n:], timestamps_us[n:])
                return
            waiting.popleft()
