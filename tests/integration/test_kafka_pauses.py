"""Paused and resumed partitions deliver all their records."""

import time
from collections.abc import Callable

import pytest

from consumers.batch import Partition, Position
from consumers.kafka.source import KafkaSource
from tests.daemon.events import produce_records
from tests.servers.kafka import KafkaServer

TIMEOUT_S = 30.0
RECORDS = 100


class PositionTracker:
    """A reader that tracks the end of each partition's last batch."""

    def __init__(self, source: KafkaSource) -> None:
        self.source = source
        self.ends: dict[Partition, int] = {}

    def poll_until(self, condition: Callable[[dict[Partition, int]], bool]) -> None:
        """Poll until the ends of the partitions satisfy a condition."""
        begun_s = time.monotonic()
        while not condition(self.ends):
            assert time.monotonic() - begun_s < TIMEOUT_S, self.ends
            polled = self.source.poll(0.25)
            for partition in polled.assigned:
                self.source.seek(partition, Position(next_offset=0))
                self.ends[partition] = 0
            for batch in polled.batches:
                assert batch.begin == self.ends[batch.partition]
                self.ends[batch.partition] = batch.end


@pytest.mark.parametrize("join", [False, True])
def test_partition_paused_during_a_fetch_resumes_when_the_others_are_drained(
    join: bool, kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(3)
    produce_records(kafka_server, topic, [b"%d" % i for i in range(3 * RECORDS)], 3)
    source = KafkaSource([topic], [kafka_server.bootstrap], {"max_poll_records": 10}, group_id=topic, join=join)
    tracker = PositionTracker(source)
    try:
        tracker.poll_until(lambda ends: any(0 < end < RECORDS for end in ends.values()))
        paused = next(partition for partition, end in tracker.ends.items() if 0 < end < RECORDS)
        source.set_paused({paused})
        tracker.poll_until(lambda ends: all(end == RECORDS for partition, end in ends.items() if partition != paused))
        source.set_paused(set())
        tracker.poll_until(lambda ends: ends[paused] == RECORDS)
    finally:
        source.close()
