"""The daemon is killed before, during and after the delivery of notifications, or the receiver hangs."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon.events import BurstStream, produce_records
from tests.daemon.process import DaemonProcess
from tests.daemon.stored import StoredRows
from tests.faults.conftest import PARTITIONS, FilledTopic
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port
from tests.servers.receiver import HangReaction, ReceivedRequest, RespondReaction, WebhookReceiver

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

Run = Callable[..., DaemonProcess]


@pytest.fixture(scope="module")
def bursts(kafka_server: KafkaServer) -> FilledTopic:
    """Return a topic with three bursts, which is drained quickly."""
    name = f"delivery-{os.urandom(4).hex()}"
    kafka_server.create_topic(name, PARTITIONS)
    records = BurstStream(events=6_000, seconds=1_300).records()
    produce_records(kafka_server, name, records, PARTITIONS)
    return FilledTopic(name=name, records=len(records), bootstrap=kafka_server.bootstrap)


def settings(topic: FilledTopic, url: str, address: str, **channel: Any) -> dict[str, Any]:
    """Return the daemon's settings for a topic, with a webhook that also gets notifications of old events."""
    ops = {"type": "webhook", "url": address, "timeout": "1s"} | channel
    made = topic.settings(url)
    made["streams"]["payments"]["alerts"] = {"silence_after": "never"}
    return made | {"notify": {"channels": {"ops": ops}, "max_age": "10y"}}


def count_notifications(stored: StoredRows, state: str, channel: str = "ops") -> int:
    return stored.number(
        "SELECT count(*) FROM notifications WHERE channel = :channel AND state = :state", channel=channel, state=state
    )


def all_delivered(stored: StoredRows, topic: FilledTopic) -> bool:
    return stored.is_settled(topic.records) and count_notifications(stored, "pending") == 0


def test_kill_between_delivery_and_its_record_repeats_the_message_under_its_key(
    bursts: FilledTopic, stored_in_postgres: StoredRows, run_daemon: Run
) -> None:
    stored = stored_in_postgres
    with WebhookReceiver() as receiver:
        daemons: list[DaemonProcess] = []

        def react(request: ReceivedRequest) -> RespondReaction:
            if len(receiver.requests) == 1:
                while not daemons:
                    pass
                daemons[0].kill()
            return RespondReaction()

        receiver.react = react
        daemons.append(run_daemon(settings(bursts, stored.url, receiver.url)))
        assert daemons[0].wait() < 0, "the receiver kills the daemon"
        assert count_notifications(stored, "delivered") == 0
        daemons[0].start()
        daemons[0].wait_until(lambda: all_delivered(stored, bursts), "all messages are delivered")
        assert daemons[0].terminate() == 0
    ids = {row[0] for row in stored.rows("SELECT id FROM notifications WHERE channel = 'ops'")}
    first = receiver.idempotency_keys[0]
    assert set(receiver.idempotency_keys) == ids
    assert receiver.idempotency_keys.count(first) == 2
    assert len(receiver.idempotency_keys) == len(ids) + 1, "all other messages arrived once"
    bodies = {request.body for request in receiver.requests if request.headers["idempotency-key"] == first}
    assert len(bodies) == 1


def test_kill_between_commit_and_delivery_delays_all_messages_to_the_next_run(
    bursts: FilledTopic, stored_in_sqlite: StoredRows, run_daemon: Run
) -> None:
    stored, port = stored_in_sqlite, free_port()
    daemon = run_daemon(settings(bursts, stored.url, f"http://127.0.0.1:{port}/hook"))
    daemon.wait_until(lambda: stored.is_settled(bursts.records), "the topic is drained while no receiver listens")
    daemon.kill()
    waiting = count_notifications(stored, "pending")
    assert waiting >= 3
    assert "Connection refused" in stored.rows("SELECT last_error FROM notifications WHERE channel = 'ops'")[0][0]
    with WebhookReceiver(port=port) as receiver:
        daemon.start()
        daemon.wait_until(lambda: all_delivered(stored, bursts), "all messages are delivered")
        assert daemon.terminate() == 0
        assert len(receiver.idempotency_keys) == len(set(receiver.idempotency_keys)) == waiting
    position = {key: index for index, key in enumerate(receiver.idempotency_keys)}
    notifications = stored.rows(
        "SELECT incident_id, id FROM notifications WHERE channel = 'ops' ORDER BY transition_id"
    )
    for incident in {row[0] for row in notifications}:
        positions = [position[row[1]] for row in notifications if row[0] == incident]
        assert positions == sorted(positions), "the transitions of an incident arrive in order"


def test_hanging_endpoint_delays_neither_scoring_nor_log_nor_shutdown(
    bursts: FilledTopic, stored_in_sqlite: StoredRows, run_daemon: Run
) -> None:
    stored = stored_in_sqlite
    with WebhookReceiver() as receiver:
        receiver.react = lambda _: HangReaction()
        daemon = run_daemon(settings(bursts, stored.url, receiver.url, timeout="5m", concurrency=1))
        daemon.wait_until(lambda: stored.is_settled(bursts.records), "the topic is drained")
        daemon.wait_until(lambda: count_notifications(stored, "pending", "log") == 0, "the log is written")
        assert count_notifications(stored, "delivered", "log") >= 3
        assert count_notifications(stored, "delivered") == 0
        assert len(receiver.requests) == 1
        assert daemon.terminate(within_s=40) == 0
