"""Malformed records in batches of all codecs, through a real topic: each becomes an event or a dead letter."""

import random
import time
from collections.abc import Callable

import numpy as np
import pytest

from config.streams import EventSettings
from consumers.batch import Partition
from consumers.codec import make_codec
from consumers.decoded_batch import DeadLetters, DecodedBatch, Events
from consumers.kafka.answers import Way
from consumers.kafka.client import ReadLimits
from consumers.kafka.decompression import GZIP, LZ4, SNAPPY, ZSTD
from consumers.kafka.source import KafkaSource
from tests.property.malformed_records import malformed_records
from tests.servers.kafka import KafkaServer
from tests.servers.records import produce_batches
from tests.source_reader import SourceReader
from tests.unit.consumers.kafka.record_batches import Batch

N = 4_000


def random_batches(rng: random.Random) -> list[Batch]:
    """Return batches of malformed records with keys and headers, and some that hold more than one MiB."""
    batches, left, now_ms = [], N, time.time_ns() // 1_000_000
    while left:
        n = min(left, rng.choice([1, 20, 300]))
        values = tuple(malformed_records(rng, "json", n))
        codec = rng.choice([0, GZIP, SNAPPY, LZ4, ZSTD])
        if codec and rng.random() < 0.2:
            values = (bytes(1 << 20), *values[1:])
        batches.append(
            Batch(
                base_offset=0,
                values=values,
                keys=tuple(rng.choice([None, b"", rng.randbytes(30)]) for _ in values),
                headers=((b"trace", rng.randbytes(5)),) * rng.choice([0, 2]),
                time_deltas=tuple(rng.randrange(1_000) for _ in values),
                timestamp_ms=now_ms,
                codec=codec,
            )
        )
        left -= n
    return batches


@pytest.mark.timeout(120)
def test_each_malformed_record_is_an_event_or_a_dead_letter_both_ways(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(1, **{"max.message.bytes": str(4 << 20)})
    batches = random_batches(random.Random(5))
    produce_batches(kafka_server, topic, [batch.encode() for batch in batches])
    codec = make_codec(
        EventSettings(features=["a", "b"], key="cust", id="id"), ["a", "b"], layout="lines", max_future_us=10**12
    )
    found: dict[Way, tuple[Events, DeadLetters]] = {}
    for way in ("columns", "records"):
        limits = ReadLimits(max_decompressed_bytes=1 << 20, way=way)
        source = KafkaSource([topic], [kafka_server.bootstrap], limits=limits)
        partition = Partition(topic=topic, partition=0)
        raw = SourceReader(source).seek_all({partition: 0}).read_to({partition: N}).batches
        source.close()
        decoded: list[DecodedBatch] = [codec.decode(batch, 0) for batch in raw]
        found[way] = (
            Events.concat([each.events for each in decoded]),
            DeadLetters.concat([each.dead_letters for each in decoded]),
        )
        events, dead = found[way]
        assert len(events) + int((dead.end_offsets - dead.offsets).sum()) == N
        assert "unreadable_batch" in dead.reasons
    (events, dead), (other_events, other_dead) = found.values()
    for name in ("offsets", "times_us", "features", "batch_offsets", "has_append_time"):
        np.testing.assert_array_equal(getattr(events, name), getattr(other_events, name))
    assert (events.keys, events.ids) == (other_events.keys, other_events.ids)
    assert (dead.offsets.tolist(), dead.end_offsets.tolist()) == (
        other_dead.offsets.tolist(),
        other_dead.end_offsets.tolist(),
    )
    assert (dead.reasons, dead.details, dead.payloads) == (other_dead.reasons, other_dead.details, other_dead.payloads)
