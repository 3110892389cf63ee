"""The view `health` names the streams that are not well, with their reasons, while the others go on."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon.events import BurstStream, produce_records
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import STREAM, kafka_settings
from tests.daemon.stored import StoredRows
from tests.integration.daemon.conftest import PLAIN
from tests.servers.kafka import KafkaServer

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

EVENTS = BurstStream(events=2_000, seconds=400)


def two_streams(url: str, server: KafkaServer, good: str, other: str) -> dict[str, Any]:
    settings = kafka_settings(url, server.bootstrap, good, client={"metadata_max_age_ms": 500})
    own = settings["streams"][STREAM]
    settings["streams"]["other"] = own | {"source": {"type": "kafka", "topics": [other], "group_id": other}}
    return settings


def health(stored: StoredRows, stream: str) -> dict[str, tuple[str, str]]:
    """Return state and reason of each component of a stream."""
    select = "SELECT component, state, reason FROM health WHERE stream = :s"
    return {component: (state, reason or "") for component, state, reason in stored.rows(select, s=stream)}


def state_of(stored: StoredRows, stream: str) -> str:
    return health(stored, stream).get("stream", ("", ""))[0]


def test_a_missing_topic_stops_its_stream_alone_until_it_is_created_and_again_when_it_is_deleted(
    kafka_server: KafkaServer, plain_topic: str, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    from tests.servers.records import open_admin

    stored, other = stored_in_sqlite, f"other-{os.urandom(4).hex()}"
    daemon = run_daemon(two_streams(stored.url, kafka_server, plain_topic, other))
    daemon.wait_until(
        lambda: stored.number("SELECT count(*) FROM incidents WHERE kind = 'stopped'") == 1, "the incident"
    )
    daemon.wait_until(lambda: state_of(stored, "other") == "stopped", "the stream is stopped")
    assert f"there is no topic '{other}'" in health(stored, "other")["stream"][1]
    in_good = "SELECT count(*) FROM score_history WHERE stream = 'payments'"
    daemon.wait_until(lambda: stored.number(in_good) == PLAIN.events, "the other stream is drained")
    assert state_of(stored, STREAM) == "running"

    kafka_server.create_topic(other)
    produce_records(kafka_server, other, EVENTS.records(), 1)
    in_other = "SELECT count(*) FROM score_history WHERE stream = 'other'"
    daemon.wait_until(lambda: stored.number(in_other) == EVENTS.events, "the stream has started again")
    daemon.wait_until(lambda: state_of(stored, "other") == "running", "the stream runs")

    with open_admin(kafka_server) as client:
        client.delete_topics([other])
    daemon.wait_until(lambda: health(stored, "other").get("topic", ("", ""))[0] == "missing", "the topic is missing")
    daemon.wait_until(lambda: state_of(stored, "other") == "stopped", "the stream is stopped again")
    assert f"there is no topic '{other}'" in health(stored, "other")["stream"][1]
    assert state_of(stored, STREAM) == "running"
    assert daemon.terminate() == 0
    assert stored.count("health_reports") == 0


def test_a_frozen_broker_is_named_until_it_answers(
    kafka_server: KafkaServer, plain_topic: str, stored_in_sqlite: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    stored = stored_in_sqlite
    daemon = run_daemon(kafka_settings(stored.url, kafka_server.bootstrap, plain_topic))
    daemon.wait_until(lambda: stored.progress() == PLAIN.events, "the topic is drained")
    kafka_server.pause()
    try:
        daemon.wait_until(lambda: state_of(stored, STREAM) == "waiting_for_kafka", "the stream waits")
        state, reason = health(stored, STREAM)["kafka"]
        assert state == "unavailable"
        assert kafka_server.bootstrap in reason
    finally:
        kafka_server.resume()
    daemon.wait_until(lambda: state_of(stored, STREAM) == "running", "the broker answers")
    assert daemon.terminate() == 0
