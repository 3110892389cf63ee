"""Integration: training events out of a real broker, where the end of a log is only the end for now."""

import json
import time
from collections.abc import Callable

import pytest

from config.streams import StreamSettings
from consumers.batch import Position
from consumers.kafka.source import KafkaSource
from monitor.models.training_events import SAMPLE_RECORDS, TrainingReader, TrainingSet
from tests.daemon.events import BurstStream, produce_records
from tests.servers.kafka import KafkaServer

RECORDS = BurstStream(events=400, seconds=100).records()
TIMEOUT_S = 60.0


def read(server: KafkaServer, topic: str, wanted: int, *, features: object = "auto") -> TrainingSet | None:
    """Read training events; None when there are not enough, and nothing is waited for."""
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
        give_up_s = time.monotonic() + TIMEOUT_S
        return reader.read(stop=lambda: time.monotonic() > give_up_s, deadline_s=None, progress=lambda n: None)
    finally:
        source.close()


@pytest.mark.parametrize("features", ["auto", ["x0", "x1", "x2"]])
def test_a_log_that_holds_enough_events_but_less_than_a_sample_is_enough(
    features: object, kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(2)
    produce_records(kafka_server, topic, RECORDS, 2)
    assert len(RECORDS) < SAMPLE_RECORDS
    training = read(kafka_server, topic, 300, features=features)
    assert training is not None
    assert len(training) == 300
    assert training.names == ("x0", "x1", "x2")


def test_the_events_taken_are_the_first_of_each_partition_in_the_order_of_their_times(
    kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(2)
    produce_records(kafka_server, topic, RECORDS, 2)
    training = read(kafka_server, topic, 200)
    first = sorted((json.loads(record) for record in RECORDS[:200]), key=lambda event: event["ts"])
    assert training is not None
    assert training.features[:, 0].tolist() == pytest.approx([event["x0"] for event in first])
