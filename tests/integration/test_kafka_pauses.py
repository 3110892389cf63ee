"""Integration: partitions that are held back and let go again deliver everything."""

import time
from collections.abc import Callable

import pytest

from consumers.batch import Partition, Position
from consumers.kafka_source import KafkaSource
from tests.daemon.events import fill
from tests.servers.kafka import KafkaServer

PATIENCE_S = 30.0
RECORDS = 100


@pytest.mark.parametrize("join", [False, True])
def test_a_partition_that_was_held_in_the_midst_of_a_fetch_goes_on_when_the_others_have_nothing_more(
    join: bool, kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(3)
    fill(kafka_server, topic, [b"%d" % i for i in range(3 * RECORDS)], 3)
    source = KafkaSource([topic], [kafka_server.bootstrap], {"max_poll_records": 10}, group_id=topic, join=join)
    begun_s, ends = time.monotonic(), dict.fromkeys((Partition(topic=topic, partition=i) for i in range(3)), 0)
    try:
        while min(ends.values()) < RECORDS:
            assert time.monotonic() - begun_s < PATIENCE_S, ends
            polled = source.poll(0.25)
            for partition in polled.assigned:
                source.seek(partition, Position(next_offset=0))
            for batch in polled.batches:
                assert batch.begin == ends[batch.partition]
                ends[batch.partition] = batch.end
            # Hold what has just come, as the daemon does under pressure, until all others have ended.
            held = {batch.partition for batch in polled.batches[:1]}
            others_ended = all(end == RECORDS for partition, end in ends.items() if partition not in held)
            source.hold(set() if others_ended else held)
    finally:
        source.close()
    assert set(ends.values()) == {RECORDS}
