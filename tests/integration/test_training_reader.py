"""Training events from a real broker, where a log may grow after its current end."""

import json
import time
from collections.abc import Callable

import pytest

from config.streams import StreamSettings
from consumers.batch import Position
from consumers.kafka.source import KafkaSource
from monitor.models.training_codec import SAMPLE_RECORDS
from monitor.models.training_events import TrainingReader
from monitor.models.training_set import TrainingSet
from tests.daemon.events import BurstStream, produce_records
from tests.servers.kafka import KafkaServer

RECORDS = BurstStream(events=400, seconds=100).records()
TIMEOUT_S = 60.0


def read(server: KafkaServer, topic: str, wanted: int, *, features: object = "auto") -> TrainingSet | None:
    """Read training events; None after the timeout."""
    settings = StreamSettings.model_validate(
        {
            "source": {"type": "kafka", "topics": [topic]},
            "event": {"time": {"field": "ts"}, "id": "id", "features": features},
        }
    )
    source = KafkaSource([topic], [server.bootstrap])
    try:
        starts = {found.partition: Position(next_offset=found.begin) for found in source.discover()}
        reader = TrainingReader(source, settings, starts, wanted=wanted)
        end_s = time.monotonic() + TIMEOUT_S
        return reader.read(stop=lambda: time.monotonic() > end_s, deadline_s=None, progress=lambda n: None)
    finally:
        source.close()


@pytest.mark.parametrize("features", ["auto", ["x0", "x1", "x2"]])
def test_log_with_enough_events_but_fewer_than_a_sample_is_sufficient(
    features: object, kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(2)
    produce_records(kafka_server, topic, RECORDS, 2)
    assert len(RECORDS) < SAMPLE_RECORDS
    training = read(kafka_server, topic, 300, features=features)
    assert training is not None
    assert len(training) == 300
    assert training.names == ("x0", "x1", "x2")


def test_first_events_of_each_partition_are_read_in_order_of_event_time(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(2)
    produce_records(kafka_server, topic, RECORDS, 2)
    training = read(kafka_server, topic, 200)
    first = sorted((json.loads(record) for record in RECORDS[:200]), key=lambda event: event["ts"])
    assert training is not None
    assert training.features[:, 0].tolist() == pytest.approx([event["x0"] for event in first])
