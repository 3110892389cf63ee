"""A topic without new events opens one silence incident, across restarts, until the next event."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.settings import kafka_settings
from tests.daemon.stored import StoredRows
from tests.servers.kafka import KafkaServer
from tests.servers.receiver import WebhookReceiver

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

Run = Callable[..., DaemonProcess]


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


def produce_events(server: KafkaServer, topic: str, events: int, over_s: float) -> None:
    """Produce `events` events with evenly spaced times over the last `over_s` seconds."""
    from tests.servers.records import produce

    rng = np.random.default_rng(events)
    now_us = time.time_ns() // 1_000
    times_us = now_us - (np.arange(events)[::-1] * over_s * 1e6 / events).astype(np.int64)
    rows = rng.normal(size=(events, 3)).round(6).tolist()
    produce(
        server,
        topic,
        [
            json.dumps({"ts": int(at), "id": i, "x0": row[0], "x1": row[1], "x2": row[2]}).encode()
            for i, (at, row) in enumerate(zip(times_us, rows, strict=True))
        ],
    )


def make_settings(
    server: KafkaServer, topic: str, url: str, receiver: WebhookReceiver, silence_after: str
) -> dict[str, Any]:
    settings = kafka_settings(
        url,
        server.bootstrap,
        topic,
        window={"size": "5s", "grace": "1s", "ahead": "1m", "idle_timeout": "1s"},
        alerts={"silence_after": silence_after},
    )
    routes = [{"match": {"kind": "silence"}, "channels": ["ops"]}]
    return settings | {"notify": {"channels": {"ops": {"type": "webhook", "url": receiver.url}}, "routes": routes}}


def silence_incidents(stored: StoredRows) -> list[tuple[Any, ...]]:
    return stored.rows("SELECT status, severity, summary FROM incident_history WHERE kind = 'silence' ORDER BY id")


def received_transitions(receiver: WebhookReceiver) -> list[str]:
    return [json.loads(request.body)["transition"] for request in receiver.requests]


@pytest.mark.parametrize("silence_after", ["auto", pytest.param("6s", marks=pytest.mark.long)])
def test_silent_topic_is_one_incident_across_restarts_until_the_next_event(
    kafka_server: KafkaServer,
    kafka_topic: Callable[..., str],
    stored_in_sqlite: StoredRows,
    run_daemon: Run,
    receiver: WebhookReceiver,
    silence_after: str,
) -> None:
    stored, topic = stored_in_sqlite, kafka_topic(1)
    produce_events(kafka_server, topic, 2_000, over_s=300)
    daemon = run_daemon(make_settings(kafka_server, topic, stored.url, receiver, silence_after))
    daemon.wait_until(lambda: received_transitions(receiver) == ["opened"], "the opened incident is sent")
    ((status, severity, summary),) = silence_incidents(stored)
    assert (status, severity) == ("open", "warning")
    assert summary.startswith("no event for ")
    assert summary.endswith("the source was read to its end")
    daemon.kill()
    daemon.start()
    daemon.wait_until(lambda: stored.number("SELECT count(*) FROM leases") == 1, "the lease is held again")
    assert daemon.runs_for(4), "the daemon has time to open a second incident"
    assert [row[0] for row in silence_incidents(stored)] == ["open"]
    produce_events(kafka_server, topic, 20, over_s=1)
    # On a busy machine the producer is silent again, and the same incident open, before the resolution is delivered.
    daemon.wait_until(lambda: received_transitions(receiver)[:2] == ["opened", "resolved"], "the resolution is sent")
    assert daemon.terminate() == 0
    assert len(silence_incidents(stored)) == 1
    assert "events arrive again" in json.loads(receiver.requests[1].body)["summary"]


def test_unreachable_broker_is_not_reported_as_a_silent_producer(
    kafka_server: KafkaServer,
    kafka_topic: Callable[..., str],
    stored_in_sqlite: StoredRows,
    run_daemon: Run,
    receiver: WebhookReceiver,
) -> None:
    stored, topic = stored_in_sqlite, kafka_topic(1)
    produce_events(kafka_server, topic, 2_000, over_s=300)
    daemon = run_daemon(make_settings(kafka_server, topic, stored.url, receiver, "12s"))
    daemon.wait_until(lambda: stored.progress() == 2_000, "the topic is drained")
    kafka_server.pause()
    try:
        daemon.wait_until(
            lambda: received_transitions(receiver) == ["opened"], "the incident of the unreadable source is sent"
        )
    finally:
        kafka_server.resume()
    ((status, severity, summary),) = silence_incidents(stored)
    assert (status, severity) == ("open", "critical")
    assert summary.startswith("no record could be read for ")
    assert "check that the broker can be reached" in summary
