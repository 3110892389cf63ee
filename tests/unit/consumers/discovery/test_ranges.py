"""Reading of ranges of offsets that exist already."""

import pytest

from config.errors import BrokerUnavailable
from consumers.batch import Partition, RawBatch
from consumers.discovery.ranges import RangeReader, RetainedRange, newest_ranges
from tests.unit.consumers.memory_source import MemorySource

P0, P1 = (Partition(topic="t", partition=number) for number in range(2))


def make_source(*lengths: int, amount: int = 7) -> MemorySource:
    logs = {Partition(topic="t", partition=p): [b"%d" % i for i in range(n)] for p, n in enumerate(lengths)}
    return MemorySource(logs, amounts=lambda _: amount)


def read_offsets(reader: RangeReader, ranges: dict[Partition, RetainedRange]) -> dict[Partition, list[int]]:
    found: dict[Partition, list[int]] = {partition: [] for partition in ranges}

    def take(raw: RawBatch) -> None:
        found[raw.partition] += raw.offsets.tolist()

    assert reader.read(ranges, take)
    return found


def test_exactly_the_offsets_of_each_range_are_read() -> None:
    ranges = {P0: RetainedRange(begin=3, end=25), P1: RetainedRange(begin=0, end=4)}
    assert read_offsets(RangeReader(make_source(40, 40)), ranges) == {P0: list(range(3, 25)), P1: list(range(4))}


def test_a_reader_reads_earlier_ranges_afterwards() -> None:
    reader = RangeReader(make_source(40, 40))
    assert read_offsets(reader, {P0: RetainedRange(begin=30, end=40)}) == {P0: list(range(30, 40))}
    assert read_offsets(reader, {P0: RetainedRange(begin=10, end=30)}) == {P0: list(range(10, 30))}
    assert read_offsets(reader, {P1: RetainedRange(begin=0, end=40)}) == {P1: list(range(40))}


def test_an_empty_range_reads_nothing() -> None:
    assert read_offsets(RangeReader(make_source(0)), {P0: RetainedRange(begin=0, end=0)}) == {P0: []}


def test_a_range_that_is_not_delivered_is_an_error() -> None:
    reader = RangeReader(make_source(5, amount=0), stall_timeout_s=0.0)
    with pytest.raises(BrokerUnavailable, match=r"t\[0\] delivered no record"):
        reader.read({P0: RetainedRange(begin=0, end=5)}, lambda raw: None)


def test_reading_stops_at_the_deadline() -> None:
    assert not RangeReader(make_source(5)).read({P0: RetainedRange(begin=0, end=5)}, lambda raw: None, deadline_s=0.0)


def test_newest_ranges_begin_within_the_log() -> None:
    ranges = newest_ranges(make_source(40, 3).discover(), 10)
    assert ranges == {P0: RetainedRange(begin=30, end=40), P1: RetainedRange(begin=0, end=3)}
