"""Search for the ends of unreadable ranges of a Kafka log."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

from config.errors import BrokerUnavailable
from consumers.batch import Partition
from consumers.kafka.client import KafkaConnection, ReadLimits
from consumers.kafka.client_options import REQUEST_TIMEOUT_S


def find_first_readable(is_readable: Callable[[int], bool], begin: int, end: int) -> int:
    """Return the first offset after `begin` from which reading succeeds, or `end` if there is none.

    Reading from an offset inside a record batch reads that batch from its start, so that all offsets of a
    damaged batch fail. The search doubles its steps until a read succeeds, then bisects (galloping search).
    A batch of n records takes 2 log2(n) attempts. After several damaged batches in a row, the search may
    skip a few readable ones.

    Args:
        is_readable: Return True if reading from an offset succeeds. Expensive.
        begin: An offset from which reading fails.
        end: The end of the log. Reading from there succeeds without records.
    """
    unreadable, step = begin, 1
    while (probe := unreadable + step) < end and not is_readable(probe):
        unreadable, step = probe, step * 2
    readable = min(probe, end)
    while readable - unreadable > 1:
        middle = (unreadable + readable) // 2
        if is_readable(middle):
            readable = middle
        else:
            unreadable = middle
    return readable


class ReadProbe:
    """A reader of single offsets with its own consumers. A consumer is closed after a failed read.

    A batch that only cannot be decompressed or parsed is readable: its header gives its end.
    """

    def __init__(self, options: Mapping[str, Any], limits: ReadLimits) -> None:
        self._limits = limits
        one_batch = {"max_poll_records": 1, "max_partition_fetch_bytes": 1, "fetch_max_wait_ms": 50}
        self._options = {**options, **one_batch, "group_id": None, "group_instance_id": None}
        self._connection: KafkaConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def end_offset(self, partition: Partition) -> int:
        """Return the last stable offset."""
        return self._connect().end_offsets([partition])[partition]

    def is_readable(self, partition: Partition, offset: int) -> bool:
        """Return True if the batch that contains an offset below the end can be read from that offset.

        Raises:
            BrokerUnavailable: No broker answered in time.
        """
        connection = self._connect()
        connection.assign([partition])
        connection.seek(partition, offset)
        connection.resume_only({partition})
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while time.monotonic() < deadline:
            fetched = connection.fetch(0.2)
            if fetched.unreadable is not None:
                self.__exit__()
                return False
            if fetched.chunks or fetched.out_of_range or connection.position(partition) != offset:
                return True
        raise BrokerUnavailable(f"no answer about offset {offset} of {partition}")

    def _connect(self) -> KafkaConnection:
        if self._connection is None:
            self._connection = KafkaConnection(self._options, self._limits)
        return self._connection


def find_unreadable_ranges(
    options: Mapping[str, Any], limits: ReadLimits, positions: Mapping[Partition, int]
) -> Iterator[tuple[Partition, int, int]]:
    """Yield partition, begin and end of the unreadable range at each position that has one.

    Args:
        options: The options of the client.
        limits: How records are read.
        positions: The next offset of each partition.

    Raises:
        BrokerUnavailable: No broker answered in time.
    """
    with ReadProbe(options, limits) as probe:
        for partition, begin in sorted(positions.items()):
            end = probe.end_offset(partition)
            if begin < end and not probe.is_readable(partition, begin):
                yield partition, begin, find_first_readable(partial(probe.is_readable, partition), begin, end)
