"""The source contract, tested with Kafka, files, the synthetic stream and the source in memory."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumers.batch import Partition, Position
from consumers.files.source import FileSource
from consumers.kafka.answers import Way
from consumers.source import Source
from consumers.synthetic.plan import SyntheticPlan
from consumers.synthetic.source import SyntheticSource
from tests.source_reader import SourceReader, are_contiguous
from tests.unit.consumers.memory_source import MemorySource

N = 700


@dataclass(frozen=True, kw_only=True)
class SourceLog:
    """A constant log with a factory of sources over it."""

    open: Callable[[], Source]

    def found(self) -> dict[Partition, tuple[int, int]]:
        """Return the begin and end offsets of every partition."""
        return {each.partition: (each.begin, each.end) for each in self.open().discover()}


@pytest.fixture(
    params=["kafka", "kafka_group", "kafka_clients_parser", "jsonl", "csv", "parquet", "synthetic", "memory"]
)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SourceLog]:
    with ExitStack() as cleanups:
        opener = _OPENERS[request.param](request, tmp_path)

        def open_one() -> Source:
            source = opener()
            cleanups.callback(source.close)
            return source

        yield SourceLog(open=open_one)


def _kafka(
    request: pytest.FixtureRequest, _: Path, *, group: bool = False, way: Way = "columns"
) -> Callable[[], Source]:
    from consumers.kafka.client import ReadLimits
    from consumers.kafka.source import KafkaSource
    from tests.servers.records import produce

    server = request.getfixturevalue("kafka_server")
    topic = request.getfixturevalue("kafka_topic")(2)
    for partition in (0, 1):
        produce(server, topic, [b'{"x": %d}' % i for i in range(N)], partition=partition)

    def open_one() -> Source:
        group_id = f"{topic}-{time.time_ns()}" if group else None
        return KafkaSource([topic], [server.bootstrap], group_id=group_id, limits=ReadLimits(way=way))

    return open_one


def _kafka_group(request: pytest.FixtureRequest, path: Path) -> Callable[[], Source]:
    return _kafka(request, path, group=True)


def _kafka_clients_parser(request: pytest.FixtureRequest, path: Path) -> Callable[[], Source]:
    return _kafka(request, path, way="records")


def _jsonl(_: pytest.FixtureRequest, path: Path) -> Callable[[], Source]:
    file = path / "events.jsonl"
    file.write_text("".join(json.dumps({"x": i}) + "\n" for i in range(N)))
    return lambda: FileSource(file, rows_per_poll=100)


def _csv(_: pytest.FixtureRequest, path: Path) -> Callable[[], Source]:
    file = path / "events.csv"
    file.write_text("x,y\n" + "".join(f"{i},{i * i}\n" for i in range(N)))
    return lambda: FileSource(file, rows_per_poll=100)


def _parquet(_: pytest.FixtureRequest, path: Path) -> Callable[[], Source]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = path / "events.parquet"
    pq.write_table(pa.table({"x": list(range(N))}), file, row_group_size=150)
    return lambda: FileSource(file, rows_per_poll=100)


def _synthetic(_: pytest.FixtureRequest, __: Path) -> Callable[[], Source]:
    plan = SyntheticPlan(seed=3, partitions=2)
    return lambda: SyntheticSource(plan, events=2 * N, speed=0, start_us=1_700_000_000_000_000)


def _memory(_: pytest.FixtureRequest, __: Path) -> Callable[[], Source]:
    values = [b'{"x": %d}' % i for i in range(N)]
    logs = {Partition(topic="memory", partition=p): values for p in range(2)}
    return lambda: MemorySource(logs, amounts=lambda _: 100)


_OPENERS: dict[str, Callable[[pytest.FixtureRequest, Path], Callable[[], Source]]] = {
    "kafka": _kafka,
    "kafka_group": _kafka_group,
    "kafka_clients_parser": _kafka_clients_parser,
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "synthetic": _synthetic,
    "memory": _memory,
}


def test_discover_returns_all_partitions_in_order_with_stable_identities(log: SourceLog) -> None:
    first, second = log.open().discover(), log.open().discover()
    assert [each.partition for each in first] == sorted(each.partition for each in first)
    assert [(each.partition, each.identity) for each in first] == [(each.partition, each.identity) for each in second]
    assert sum(each.end - each.begin for each in first) == N * len(first)


def test_assigned_partition_delivers_nothing_before_seek(log: SourceLog) -> None:
    reader = SourceReader(log.open()).wait_until_assigned(log.found()).poll_for(1)
    assert reader.batches == []


def test_all_records_arrive_once_in_order_without_gaps(log: SourceLog) -> None:
    found = log.found()
    reader = SourceReader(log.open()).seek_all({each: begin for each, (begin, _) in found.items()})
    reader.read_to({each: end for each, (_, end) in found.items()})
    for partition, (begin, end) in found.items():
        assert reader.offsets(partition) == list(range(begin, end))
        assert are_contiguous(reader.batches_of(partition))
        assert reader.batches_of(partition)[0].begin == begin


def test_delivery_starts_at_the_seek_position(log: SourceLog) -> None:
    found = log.found()
    partition, (begin, end) = next(iter(found.items()))
    whole = SourceReader(log.open()).seek_all({partition: begin}).read_to({partition: end})
    middle = begin + 250
    reader = SourceReader(log.open()).wait_until_assigned([partition])
    reader.source.seek(partition, Position(next_offset=middle, cursor=_cursor_at(whole, middle)))
    assert reader.read_to({partition: end}).offsets(partition) == list(range(middle, end))
    assert reader.batches_of(partition)[0].begin == middle


def _cursor_at(reader: SourceReader, offset: int) -> int | None:
    for batch in reader.batches:
        if batch.begin <= offset < batch.end and batch.cursors is not None:
            return int(batch.cursors[offset - batch.begin])
    return None


def test_second_seek_moves_the_delivery_back(log: SourceLog) -> None:
    partition, (begin, end) = next(iter(log.found().items()))
    reader = SourceReader(log.open()).seek_all({partition: begin}).read_to({partition: end})
    reader.clear().source.seek(partition, Position(next_offset=begin))
    assert reader.read_to({partition: end}).offsets(partition) == list(range(begin, end))


def test_paused_partitions_deliver_nothing_and_lose_no_records(log: SourceLog) -> None:
    found = log.found()
    source = log.open()
    reader = SourceReader(source)
    source.set_paused(set(found))
    reader.seek_all({each: begin for each, (begin, _) in found.items()}).poll_for(1)
    assert reader.batches == []
    source.set_paused(frozenset())
    reader.read_to({each: end for each, (_, end) in found.items()})
    for partition, (begin, end) in found.items():
        assert reader.offsets(partition) == list(range(begin, end))


def test_pausing_and_resuming_between_polls_neither_repeats_nor_loses_records(log: SourceLog) -> None:
    found = log.found()
    source = log.open()
    reader = SourceReader(source).seek_all({each: begin for each, (begin, _) in found.items()})
    ends = {each: end for each, (_, end) in found.items()}
    deadline = time.monotonic() + 30
    while any(reader.end_of(each) != end for each, end in ends.items()):
        assert time.monotonic() < deadline
        for paused in (set(found), set()):
            source.set_paused(paused)
            reader.polls.append(source.poll(0.1))
    for partition, (begin, end) in found.items():
        assert reader.offsets(partition) == list(range(begin, end))
        assert are_contiguous(reader.batches_of(partition))


def test_seek_of_an_unassigned_partition_is_a_key_error(log: SourceLog) -> None:
    reader = SourceReader(log.open()).wait_until_assigned(log.found())
    with pytest.raises(KeyError):
        reader.source.seek(Partition(topic="nobody-has-this", partition=7), Position(next_offset=0))


def test_only_partitions_delivered_to_their_end_are_caught_up(log: SourceLog) -> None:
    found = log.found()
    everything = frozenset(found)
    reader = SourceReader(log.open()).wait_until_assigned(found)
    assert reader.source.caught_up(everything) == frozenset()
    reader.seek_all({each: begin for each, (begin, _) in found.items()})
    reader.source.set_paused(everything)
    reader.poll_for(0.3)
    assert reader.source.caught_up(everything) == frozenset()
    reader.source.set_paused(frozenset())
    reader.read_to({each: end for each, (_, end) in found.items()})
    assert reader.source.caught_up(everything) == everything
    ends = reader.source.log_ends
    assert ends in ({}, {each: end for each, (_, end) in found.items()})


def test_earliest_is_the_begin_and_latest_is_the_end(log: SourceLog) -> None:
    source = log.open()
    found = source.discover()
    assert {each: at.next_offset for each, at in source.resolve("earliest", found).items()} == {
        each.partition: each.begin for each in found
    }
    assert {each: at.next_offset for each, at in source.resolve("latest", found).items()} == {
        each.partition: each.end for each in found
    }


def test_poll_without_records_returns_after_its_timeout(log: SourceLog) -> None:
    reader = SourceReader(log.open()).wait_until_assigned(log.found())
    began = time.monotonic()
    reader.source.poll(0.5)
    assert time.monotonic() - began < 1.5


def test_publish_never_fails_and_close_is_idempotent(log: SourceLog) -> None:
    found = log.found()
    reader = SourceReader(log.open()).wait_until_assigned(found)
    reader.source.publish({each: begin for each, (begin, _) in found.items()})
    reader.source.close()
    reader.source.close()
