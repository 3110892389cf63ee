"""The Kafka source on a real broker: transactions, holes, deletions, damage, rebalances and outages."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crc32c
import pytest

from config.errors import BrokerUnavailable, ConfigError
from consumers.batch import Partition, Position
from consumers.kafka.answers import Way
from consumers.kafka.client import ReadLimits
from consumers.kafka.source import KafkaSource
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port, wait_until
from tests.servers.records import delete_records, open_admin, open_producer, produce
from tests.source_reader import SourceReader, are_contiguous

Opener = Callable[..., SourceReader]
QUICK_GROUP = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 200}
FROZEN_POLL_S, FROZEN_CLOSE_S = 6, 9
"""Bounds of a poll of .5 s and of a close, which ends after 6 s; both are below the request timeout of 10 s."""


@pytest.fixture
def open_reader(kafka_server: KafkaServer) -> Iterator[Opener]:
    """Return a factory of readers over topics of the server. They are closed at the end of the test."""
    opened: list[KafkaSource] = []

    def open_one(topic: str, client: dict[str, object] | None = None, **options: Any) -> SourceReader:
        source = KafkaSource([topic], [kafka_server.bootstrap], client, **options)
        opened.append(source)
        return SourceReader(source)

    yield open_one
    for source in opened:
        source.close()


def first(topic: str) -> Partition:
    return Partition(topic=topic, partition=0)


def numbered(n: int, start: int = 0) -> list[bytes]:
    return [b"value-%d" % i for i in range(start, start + n)]


def end_of(reader: SourceReader) -> int:
    return reader.source.discover()[0].end


def test_aborted_transactions_and_control_batches_are_skipped(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    with open_producer(kafka_server, transactional_id=topic) as writer:
        writer.init_transactions()
        for value, commit in ((b"kept", True), (b"dropped", False), (b"kept too", True), (b"dropped", False)):
            writer.begin_transaction()
            for _ in range(3):
                writer.send(topic, value, partition=0)
            writer.flush()
            writer.commit_transaction() if commit else writer.abort_transaction()
    reader = open_reader(topic)
    end = end_of(reader)
    reader.seek_all({first(topic): 0}).read_to({first(topic): end})
    assert reader.values(first(topic)) == [b"kept"] * 3 + [b"kept too"] * 3
    assert end == 16  # four transactions of three records and a marker each
    assert reader.source.caught_up({first(topic)}) == {first(topic)}


def test_aborted_records_alone_advance_the_position_by_an_empty_batch(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    with open_producer(kafka_server, transactional_id=topic) as writer:
        writer.init_transactions()
        writer.begin_transaction()
        writer.send(topic, b"dropped", partition=0)
        writer.flush()
        writer.abort_transaction()
    reader = open_reader(topic).seek_all({first(topic): 0}).read_to({first(topic): 2})
    assert [(batch.begin, batch.end, len(batch), batch.skip_reason) for batch in reader.batches] == [(0, 2, 0, None)]


def test_records_of_an_open_transaction_wait_for_its_end(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    produce(kafka_server, topic, numbered(5))
    with open_producer(kafka_server, transactional_id=topic) as writer:
        writer.init_transactions()
        writer.begin_transaction()
        writer.send(topic, b"open", partition=0).get(10)
        reader = open_reader(topic).seek_all({first(topic): 0}).read_to({first(topic): 5})
        assert reader.source.discover()[0].end == 5
        assert reader.source.caught_up({first(topic)}) == {first(topic)}
        writer.commit_transaction()
    assert reader.read_to({first(topic): 7}).values(first(topic))[-1] == b"open"


def test_compaction_holes_are_skipped(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic(1, **{"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"})
    keys = [b"same"] * 50 + [b"other"] * 50
    produce(kafka_server, topic, numbered(100), keys=keys)

    def compacted() -> bool:
        produce(kafka_server, topic, [b"roll"], keys=[b"roll"])
        reader = open_reader(topic)
        reader.seek_all({first(topic): 0}).read_to({first(topic): end_of(reader)})
        return len(reader.offsets(first(topic))) < 90

    wait_until(compacted, within_s=60, what="the cleaner")
    reader = open_reader(topic)
    end = end_of(reader)
    reader.seek_all({first(topic): 0}).read_to({first(topic): end})
    assert are_contiguous(reader.batches)
    assert b"value-49" in reader.values(first(topic))
    assert b"value-0" not in reader.values(first(topic))
    assert reader.batches_of(first(topic))[0].begin == 0


def test_deleted_records_are_one_retention_gap_and_reading_continues(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    produce(kafka_server, topic, numbered(100))
    delete_records(kafka_server, topic, 60)
    reader = open_reader(topic).seek_all({first(topic): 10}).read_to({first(topic): 100})
    assert reader.skipped_ranges(first(topic)) == [(10, 60, "retention")]
    assert reader.offsets(first(topic)) == list(range(60, 100))
    assert are_contiguous(reader.batches_of(first(topic)))


def test_position_beyond_the_logs_end_reports_a_replaced_log(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    produce(kafka_server, topic, numbered(10))
    reader = open_reader(topic).seek_all({first(topic): 500})
    reader.poll_until(lambda r: r.replaced() == {first(topic)})
    assert reader.batches == []
    reader.source.seek(first(topic), Position(next_offset=4))
    assert reader.read_to({first(topic): 10}).offsets(first(topic)) == list(range(4, 10))


def test_topic_recreated_under_a_running_consumer_has_another_identity(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    produce(kafka_server, topic, numbered(10))
    reader = open_reader(topic).seek_all({first(topic): 0}).read_to({first(topic): 10})
    before = reader.source.discover()[0].identity
    with open_admin(kafka_server) as client:
        client.delete_topics([topic])
        wait_until(lambda: topic not in client.list_topics(), within_s=20, what="the deletion")
    kafka_server.create_topic(topic)
    produce(kafka_server, topic, numbered(30, start=1000))
    reader.clear().poll_until(lambda r: r.replaced() == {first(topic)})
    assert reader.batches == []
    assert reader.source.discover()[0].identity != before
    reader.source.seek(first(topic), Position(next_offset=0))
    assert reader.read_to({first(topic): 30}).values(first(topic)) == numbered(30, start=1000)


def test_deleted_topic_is_not_created_by_reading_from_it(kafka_topic: Callable[..., str], open_reader: Opener) -> None:
    with KafkaServer({"auto.create.topics.enable": "true"}) as server:
        server.create_topic("brief")
        reader = SourceReader(KafkaSource(["brief"], [server.bootstrap], {"metadata_max_age_ms": 200}))
        reader.seek_all({first("brief"): 0}).poll_for(0.5)
        with open_admin(server) as client:
            client.delete_topics(["brief"])
            wait_until(lambda: "brief" not in client.list_topics(), within_s=20, what="the deletion")
            reader.poll_for(2)
            assert "brief" not in client.list_topics()
        reader.source.close()


def test_partitions_added_later_are_assigned(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    reader = open_reader(topic, {"metadata_max_age_ms": 300}).seek_all({first(topic): 0})
    with open_admin(kafka_server) as client:
        client.create_partitions({topic: 2})
    second = Partition(topic=topic, partition=1)
    reader.seek_all({second: 0})
    produce(kafka_server, topic, numbered(3), partition=1)
    assert reader.read_to({second: 3}).offsets(second) == [0, 1, 2]


def test_tombstones_have_a_key_and_no_value(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    produce(kafka_server, topic, [b"x", None, b""], keys=[b"a", b"b", None])
    reader = open_reader(topic).seek_all({first(topic): 0}).read_to({first(topic): 3})
    assert reader.values(first(topic)) == [b"x", None, b""]
    assert [key for batch in reader.batches for key in batch.keys or ()] == [b"a", b"b", None]


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_compressed_batches_are_read_from_an_offset_inside(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener, codec: str
) -> None:
    topic = kafka_topic()
    produce(kafka_server, topic, numbered(200), compression_type=codec)
    reader = open_reader(topic).seek_all({first(topic): 77}).read_to({first(topic): 200})
    assert reader.values(first(topic)) == numbered(123, start=77)


def test_broker_timestamps_are_in_microseconds(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    with open_producer(kafka_server) as writer:
        for second in (10, 20, 30):
            writer.send(topic, b"x", partition=0, timestamp_ms=1_700_000_000_000 + second * 1000).get(10)
    reader = open_reader(topic)
    found = reader.source.discover()
    reader.seek_all({first(topic): 0}).read_to({first(topic): 3})
    times = [int(t) - 1_700_000_000_000_000 for batch in reader.batches for t in batch.timestamps_us]  # type: ignore[union-attr]
    assert times == [10_000_000, 20_000_000, 30_000_000]
    now_us = time.time_ns() // 1_000
    assert all(now_us < int(batch.max_event_time_us or 0) < now_us + 2 * 86_400_000_000 for batch in reader.batches)
    at = {
        us: reader.source.resolve(1_700_000_000_000_000 + us, found)[first(topic)].next_offset
        for us in (0, 20_000_000, 20_000_001, 40_000_000)
    }
    assert at == {0: 0, 20_000_000: 1, 20_000_001: 2, 40_000_000: 3}


def test_each_record_names_its_record_batch_and_whose_clock_set_its_time(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    created, appended = kafka_topic(), kafka_topic(1, **{"message.timestamp.type": "LogAppendTime"})
    for topic in (created, appended):
        for start, n in ((0, 3), (3, 1), (4, 4)):
            produce(kafka_server, topic, numbered(n, start=start))
        reader = open_reader(topic).seek_all({first(topic): 1}).read_to({first(topic): 8})
        batches = reader.batches_of(first(topic))
        offsets = [int(offset) for batch in batches for offset in batch.batch_offsets]  # type: ignore[union-attr]
        assert offsets == [0, 0, 3, 4, 4, 4, 4]
        assert {bool(each) for batch in batches for each in batch.has_append_time} == {topic == appended}  # type: ignore[union-attr]


def test_message_larger_than_the_fetch_size_arrives_complete(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic(1, **{"max.message.bytes": "8000000"})
    large = bytes(range(256)) * 16_000
    produce(kafka_server, topic, [b"small", large, b"small"], max_request_size=8_000_000)
    reader = open_reader(topic, {"max_partition_fetch_bytes": 65_536, "fetch_max_bytes": 131_072})
    reader.seek_all({first(topic): 0}).read_to({first(topic): 3})
    assert reader.values(first(topic)) == [b"small", large, b"small"]


def test_memory_bound_grows_with_partitions_and_fetch_sizes(
    kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    reader = open_reader(kafka_topic(4), {"max_partition_fetch_bytes": 2**20, "fetch_max_bytes": 2**24})
    before = reader.source.memory_bound_bytes  # type: ignore[attr-defined]
    reader.source.discover()
    assert reader.source.memory_bound_bytes - before == 2 * 3 * 2**20  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", ["columns", "records"])
def test_batches_above_the_limit_are_ranges_and_the_events_after_them_are_read(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener, way: Way
) -> None:
    topic = kafka_topic()
    for codec in ("gzip", "lz4", "snappy", "zstd"):
        produce(kafka_server, topic, [b"0" * 2**21], compression_type=codec, max_request_size=2**22)
        produce(kafka_server, topic, numbered(3), compression_type=codec)
    limits = ReadLimits(max_decompressed_bytes=2**20, way=way)
    reader = open_reader(topic, limits=limits).seek_all({first(topic): 0}).read_to({first(topic): 16})
    assert reader.skipped_ranges(first(topic)) == [(at, at + 1, "unreadable_batch") for at in (0, 4, 8, 12)]
    assert all("1 MiB" in str(batch.skip_detail) for batch in reader.batches if batch.skip_reason)
    assert reader.values(first(topic)) == numbered(3) * 4
    assert are_contiguous(reader.batches_of(first(topic)))


def test_records_are_the_same_as_columns_and_by_the_clients_parser(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    for codec in (None, "gzip", "lz4", "snappy", "zstd"):
        keys = [None, b"", b"key" * 100] * 40
        produce(kafka_server, topic, [*numbered(119), None], keys=keys, compression_type=codec)
    with open_producer(kafka_server, transactional_id=topic) as writer:
        writer.init_transactions()
        for commit in (False, True, False):
            writer.begin_transaction()
            writer.send(topic, b"in a transaction", headers=[("trace", b"\x00\xff"), ("größe", b"")], partition=0)
            writer.flush()
            writer.commit_transaction() if commit else writer.abort_transaction()
    read = {}
    for way in ("columns", "records"):
        reader = open_reader(topic, limits=ReadLimits(way=way)).seek_all({first(topic): 5})
        batches = reader.read_to({first(topic): end_of(reader)}).batches
        read[way] = [
            row
            for batch in batches
            for row in zip(
                batch.offsets.tolist(),
                batch.values,
                batch.keys or [None] * len(batch),
                batch.timestamps_us.tolist(),  # type: ignore[union-attr]
                batch.batch_offsets.tolist(),  # type: ignore[union-attr]
                strict=True,
            )
        ]
        assert are_contiguous(batches)
    assert read["columns"] == read["records"]
    assert len(read["columns"]) == 5 * 120 - 5 + 1


def test_batch_damaged_on_disk_is_skipped_and_later_records_arrive(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    for start in range(0, 500, 100):
        produce(kafka_server, topic, numbered(100, start=start))
    damage(kafka_server, topic, b"value-250")
    for options in ({}, {"group_id": f"{topic}-group"}):
        reader = open_reader(topic, QUICK_GROUP, **options)
        read_with_reassignment(reader, first(topic), 500)
        assert ("unreadable_batch", 200, 300) in {
            (reason, begin, end) for begin, end, reason in reader.skipped_ranges(first(topic))
        }
        assert sorted(set(reader.offsets(first(topic)))) == [*range(200), *range(300, 500)]


def test_damaged_batches_of_two_partitions_are_both_skipped(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic(2)
    both = [Partition(topic=topic, partition=number) for number in (0, 1)]
    for partition in both:
        for start in (0, 20, 40, 60):
            values = numbered(20, start=start)
            produce(kafka_server, topic, values, partition=partition.partition)
    damage(kafka_server, topic, b"value-25", b"value-65", partition=0)
    damage(kafka_server, topic, b"value-45", partition=1)
    reader = open_reader(topic).seek_all(dict.fromkeys(both, 0)).read_to(dict.fromkeys(both, 80))
    unreadable = "unreadable_batch"
    assert reader.skipped_ranges(both[0]) == [(20, 40, unreadable), (60, 80, unreadable)]
    assert reader.skipped_ranges(both[1]) == [(40, 60, unreadable)]
    for partition in both:
        assert are_contiguous(reader.batches_of(partition))


def test_invalid_header_name_loses_only_its_batch(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    produce(kafka_server, topic, numbered(3))
    with open_producer(kafka_server) as writer:
        writer.send(topic, b"odd", headers=[("name", b"")], partition=0)
    produce(kafka_server, topic, numbered(3, start=4))

    def spoil(stored: bytearray) -> None:
        at = stored.index(b"name")
        stored[at] = 0xFF
        batch = stored.rindex(b"\x02", 0, stored.index(b"odd") - 40) - 16  # the magic byte at index 16
        length = int.from_bytes(stored[batch + 8 : batch + 12], "big")
        checked = bytes(stored[batch + 21 : batch + 12 + length])
        stored[batch + 17 : batch + 21] = crc32c.crc32c(checked).to_bytes(4, "big")

    rewrite(kafka_server, topic, spoil)
    reader = open_reader(topic).seek_all({first(topic): 0}).read_to({first(topic): 7})
    assert reader.skipped_ranges(first(topic)) == [(3, 4, "unreadable_batch")]
    assert reader.values(first(topic)) == numbered(3) + numbered(3, start=4)


def damage(server: KafkaServer, topic: str, *values: bytes, partition: int = 0) -> None:
    """Flip a byte of records on disk."""

    def flip(stored: bytearray) -> None:
        for value in values:
            stored[stored.index(value)] ^= 0xFF

    rewrite(server, topic, flip, partition=partition)


def rewrite(server: KafkaServer, topic: str, change: Callable[[bytearray], None], *, partition: int = 0) -> None:
    """Change the log file of a partition while the broker is down."""
    server.stop()
    segment: Path = server.segments(topic, partition)[0]
    stored = bytearray(segment.read_bytes())
    change(stored)
    segment.write_bytes(stored)
    server.start()


def read_with_reassignment(reader: SourceReader, partition: Partition, end: int) -> None:
    """Read to an end like the daemon: seek to the last end after each new assignment."""
    answered = 0

    def there(r: SourceReader) -> bool:
        nonlocal answered
        for poll in r.polls[answered:]:
            if partition in poll.assigned:
                r.source.seek(partition, Position(next_offset=r.end_of(partition) or 0))
        answered = len(r.polls)
        return r.end_of(partition) == end

    reader.poll_until(there, within_s=60)


def test_rebalance_reports_changes_and_delivers_nothing_before_seek(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic(2)
    both = {Partition(topic=topic, partition=number) for number in (0, 1)}
    for partition in (0, 1):
        produce(kafka_server, topic, numbered(50), partition=partition)
    old = open_reader(topic, QUICK_GROUP, group_id=topic).seek_all(dict.fromkeys(both, 0))
    old.read_to(dict.fromkeys(both, 50)).clear()
    new = open_reader(topic, QUICK_GROUP, group_id=topic)
    deadline = time.monotonic() + 30
    while not (owned(new) and len(owned(old) | owned(new)) == 2 and revoked(old)):
        assert time.monotonic() < deadline
        old.poll_for(0.1)
        new.poll_for(0.1)
    assert owned(old) | owned(new) == both
    assert not owned(old) & owned(new)
    assert revoked(old) == both
    assert old.batches == []
    assert new.batches == []
    (moved,) = owned(new)
    with pytest.raises(KeyError):
        old.source.seek(moved, Position(next_offset=0))
    new.source.seek(moved, Position(next_offset=20))
    assert new.read_to({moved: 50}).offsets(moved) == list(range(20, 50))


def owned(reader: SourceReader) -> set[Partition]:
    partitions: set[Partition] = set()
    for poll in reader.polls:
        partitions = (partitions - poll.revoked) | poll.assigned
    return partitions


def revoked(reader: SourceReader) -> set[Partition]:
    return {each for poll in reader.polls for each in poll.revoked}


def test_polls_that_end_during_a_join_do_not_lose_the_assignment(
    kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    for number in range(3):
        source = open_reader(topic, group_id=f"{topic}-{number}").source
        deadline = time.monotonic() + 20
        while not source.poll(0.011).assigned:
            assert time.monotonic() < deadline


def test_leaving_member_releases_its_partitions_immediately(
    kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    leaving = open_reader(topic, group_id=topic).wait_until_assigned([first(topic)])
    leaving.source.close()
    began = time.monotonic()
    open_reader(topic, group_id=topic).wait_until_assigned([first(topic)])
    assert time.monotonic() - began < 15  # a session lasts 45 s


@pytest.mark.parametrize("join", [True, False])
def test_published_positions_are_visible_to_lag_monitors(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], *, join: bool
) -> None:
    topic = kafka_topic()
    produce(kafka_server, topic, numbered(10))
    source = KafkaSource([topic], [kafka_server.bootstrap], group_id=topic, join=join)
    reader = SourceReader(source).seek_all({first(topic): 0}).read_to({first(topic): 10})
    with open_admin(kafka_server) as client:

        def shown() -> bool:
            source.publish({first(topic): 7})
            reader.poll_for(0.1)
            listed = client.list_group_offsets([topic])[topic]
            return [at.offset for tp, at in listed.items() if tp.topic == topic] == [7]

        wait_until(shown, within_s=20, what="the committed position")
    source.close()


def test_reading_continues_at_the_position_after_a_broker_restart(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    produce(kafka_server, topic, numbered(10))
    readers = [open_reader(topic), open_reader(topic, QUICK_GROUP, group_id=topic)]
    for reader in readers:
        reader.seek_all({first(topic): 0}).read_to({first(topic): 10})
    kafka_server.stop()
    for reader in readers:
        began = time.monotonic()
        reader.source.poll(0.5)
        assert time.monotonic() - began < 2
        assert reader.source.caught_up({first(topic)}) == frozenset()
    kafka_server.start()
    produce(kafka_server, topic, numbered(10, start=10))
    for reader in readers:
        read_with_reassignment(reader, first(topic), 20)
        assert reader.values(first(topic)) == numbered(20)


def test_polls_are_empty_and_close_is_short_with_a_frozen_broker(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str], open_reader: Opener
) -> None:
    topic = kafka_topic()
    readers = [open_reader(topic), open_reader(topic, group_id=topic)]
    for reader in readers:
        reader.seek_all({first(topic): 0}).poll_for(0.3)
    kafka_server.pause()
    try:
        for reader in readers:
            began = time.monotonic()
            assert reader.source.poll(0.5).batches == []
            assert time.monotonic() - began < FROZEN_POLL_S
            assert reader.source.caught_up({first(topic)}) == frozenset()
            began = time.monotonic()
            reader.source.close()
            assert time.monotonic() - began < FROZEN_CLOSE_S
    finally:
        kafka_server.resume()


def test_unavailable_broker_is_named_and_leaves_no_thread() -> None:
    address = f"127.0.0.1:{free_port()}"
    before = threading.active_count()
    source = KafkaSource(["any"], [address], {"bootstrap_timeout_ms": 500})
    with pytest.raises(BrokerUnavailable, match=address):
        source.discover()
    source.close()
    assert threading.active_count() == before


def test_missing_topic_is_an_error_that_suggests_the_nearest(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic()
    source = KafkaSource([topic[:-1]], [kafka_server.bootstrap])
    with pytest.raises(ConfigError, match=f"did you mean {topic}"):
        source.discover()
    with open_admin(kafka_server) as client:
        assert topic[:-1] not in client.list_topics()


def test_source_cannot_be_used_in_a_forked_child(
    kafka_topic: Callable[..., str], open_reader: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_reader(kafka_topic())
    reader.source.poll(0)
    monkeypatch.setattr("os.getpid", lambda: 1)
    with pytest.raises(RuntimeError, match="fork"):
        reader.source.poll(0)
