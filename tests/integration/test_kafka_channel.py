"""The Kafka channel against a real broker: a compacted topic with the last transition of each incident."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from kafka import KafkaConsumer
from kafka.admin import ConfigResource, ConfigResourceType

from config.channels.kafka import KafkaChannelSettings
from config.kafka import KafkaSettings
from monitor.notify.kafka_topic import KafkaTopic
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port
from tests.servers.records import open_admin
from tests.unit.monitor.notify.messages import make_message

pytestmark = pytest.mark.timeout(180)
DATABASE_ID = "5f0c"


def make_channel(bootstrap: str, topic: str, **settings: Any) -> KafkaTopic:
    given = {"type": "kafka", "topic": topic, "timeout": "10s"} | settings
    cluster = KafkaSettings(bootstrap_servers=(bootstrap,))
    return KafkaTopic(KafkaChannelSettings.model_validate(given), cluster, lambda: DATABASE_ID)


def read_records(server: KafkaServer, topic: str, number: int) -> list[Any]:
    """Return the first records of a topic."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=server.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    with closing(consumer):
        return [record for _, record in zip(range(number), consumer, strict=False)]


@pytest.fixture
def topic() -> Iterator[str]:
    yield f"incidents-{os.urandom(4).hex()}"


def test_transitions_are_cloud_events_in_a_compacted_topic_keyed_by_incident(
    kafka_server: KafkaServer, topic: str
) -> None:
    life = [
        make_message(id="a", transition="opened", sequence=1, details={"p_value": float("nan")}),
        make_message(id="b", transition="opened", sequence=2, incident_id=8),
        make_message(id="c", transition="resolved", sequence=3),
        make_message(id="c", transition="resolved", sequence=3, attempt=2),
    ]
    with closing(make_channel(kafka_server.bootstrap, topic)) as channel:
        results = [channel.send(message) for message in life]
    assert [each.outcome for each in results] == ["delivered"] * 4, results
    assert results[0].detail.startswith(f"written to {topic}[")
    records = read_records(kafka_server, topic, 4)
    assert {record.key for record in records} == {b"5f0c/incident/7", b"5f0c/incident/8"}
    events = {record.key: [] for record in records}
    for record in records:
        assert record.headers == [("content-type", b"application/cloudevents+json; charset=UTF-8")]
        events[record.key].append(json.loads(record.value))
    seventh = events[b"5f0c/incident/7"]
    assert [each["id"] for each in seventh] == ["a", "c", "c"], "a repeated message has the same id"
    first = seventh[0]
    assert (first["specversion"], first["type"], first["source"], first["subject"]) == (
        "1.0",
        "outrider.incident.opened",
        "outrider/5f0c/payments",
        "incident/7",
    )
    assert first["data"]["details"]["p_value"] is None
    assert [each["sequence"] for each in seventh] == sorted(each["sequence"] for each in seventh)
    with open_admin(kafka_server) as admin:
        described = str(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic, ["cleanup.policy"])]))
    assert "compact" in described


def test_topic_that_is_not_compacted_is_used_with_a_warning(
    kafka_server: KafkaServer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    kafka_server.create_topic(topic, 1, {"cleanup.policy": "delete"})
    with closing(make_channel(kafka_server.bootstrap, topic)) as channel:
        assert channel.send(make_message()).outcome == "delivered"
        assert channel.send(make_message()).outcome == "delivered"
    assert caplog.text.count("has cleanup.policy=delete") == 1


def test_record_that_is_too_large_is_refused(kafka_server: KafkaServer, topic: str) -> None:
    kafka_server.create_topic(topic, 1, {"cleanup.policy": "compact", "max.message.bytes": "1000"})
    with closing(make_channel(kafka_server.bootstrap, topic)) as channel:
        result = channel.send(make_message(summary="x" * 5_000))
        assert (result.outcome, result.reason) == ("refused", "client_error"), result
        assert channel.send(make_message(summary="x")).outcome == "delivered"


def test_broker_that_is_away_is_retried() -> None:
    with closing(make_channel(f"127.0.0.1:{free_port()}", "incidents", timeout="2s")) as channel:
        result = channel.send(make_message())
    assert (result.outcome, result.reason) == ("retry", "connection"), result


def test_frozen_broker_is_retried_in_time_and_the_message_arrives_in_order_later(
    kafka_server: KafkaServer, topic: str
) -> None:
    with closing(make_channel(kafka_server.bootstrap, topic, timeout="3s")) as channel:
        assert channel.send(make_message(id="a")).outcome == "delivered"
        kafka_server.pause()
        try:
            result = channel.send(make_message(id="b"))
        finally:
            kafka_server.resume()
        assert (result.outcome, result.reason) == ("retry", "timeout"), result
        deadline = 10
        while channel.send(make_message(id="b")).outcome != "delivered":
            deadline -= 1
            assert deadline, "the broker answers again"
        assert channel.send(make_message(id="c", transition="resolved")).outcome == "delivered"
    ids = [json.loads(record.value)["id"] for record in read_records(kafka_server, topic, 3)]
    assert ids in (["a", "b", "c"], ["a", "b", "b"])
