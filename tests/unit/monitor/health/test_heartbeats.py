"""Heartbeats arrive at a real receiver only while every stream provably makes progress."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from config.heartbeats import HeartbeatSettings
from monitor.health.heartbeats import Heartbeats, find_obstacle
from monitor.health.stream_health import StreamHealth, judge_stream
from storage.database.tables import HEALTH_REPORT_TTL_S
from tests.servers.process import wait_until
from tests.servers.receiver import HangReaction, RespondReaction, WebhookReceiver
from tests.unit.monitor.health.test_stream_health import NOW, WELL, incident, report

HEALTHY = judge_stream(WELL, NOW)
LEARNING = judge_stream(replace(WELL, has_model=False, reports=[report("warming_up")]), NOW)
SPIKE = judge_stream(replace(WELL, incidents=[incident("spike", "critical")]), NOW)
SILENT = judge_stream(replace(WELL, incidents=[incident("silence")]), NOW)
ENDED = judge_stream(replace(WELL, is_ended=True), NOW)
NO_LEASE = judge_stream(replace(WELL, lease_holder=None), NOW)


@pytest.mark.parametrize(
    ("judged", "age_s", "obstacle"),
    [
        ({"a": HEALTHY, "b": LEARNING, "c": SPIKE}, 14.9, None),
        ({}, float("inf"), "no report of a stream is stored yet"),
        ({"a": HEALTHY}, float(HEALTH_REPORT_TTL_S), "no report of the streams could be stored"),
        ({"a": HEALTHY, "b": SILENT}, 0.0, "stream b is silence: 163 of 203 outliers"),
        ({"a": HEALTHY, "b": ENDED}, 0.0, "stream b has ended"),
    ],
)
def test_only_proven_progress_of_every_stream_allows_a_heartbeat(
    judged: Mapping[str, StreamHealth], age_s: float, obstacle: str | None
) -> None:
    assert find_obstacle(judged, age_s) == obstacle


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    yield receiver
    receiver.close()


class Bench:
    """Heartbeats with a clock and a health that the test sets."""

    def __init__(self, *urls: str) -> None:
        self.now_s, self.judged = 0.0, HEALTHY
        settings = [HeartbeatSettings(url=each, every=timedelta(seconds=60)) for each in urls]
        self.heartbeats = Heartbeats(lambda: settings, lambda: ({"a": self.judged}, 0.0), clock=lambda: self.now_s)

    def check_after(self, seconds: float) -> None:
        self.now_s += seconds
        self.heartbeats.check()


def test_heartbeats_arrive_at_their_interval_and_are_withheld_with_a_reason_once(
    receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(receiver.url)
    bench.check_after(1.0)
    wait_until(lambda: len(receiver.requests) == 1, within_s=20, what="the first heartbeat")
    assert receiver.requests[0].line.startswith("POST /hook")
    assert receiver.requests[0].body == b'{"status": "ok", "streams": 1}'
    bench.check_after(59.0)
    bench.judged = NO_LEASE
    bench.check_after(30.0)
    bench.check_after(30.0)
    bench.judged = HEALTHY
    wait_until(lambda: not bench.heartbeats._in_flight, within_s=20, what="the answer")
    bench.check_after(1.0)
    wait_until(lambda: len(receiver.requests) == 2, within_s=20, what="the next heartbeat")
    texts = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
    assert texts == [
        f"Heartbeats are withheld: stream a is unknown: {NO_LEASE.reason}.",
        "Heartbeats are sent again: every stream makes progress.",
    ]


def test_a_receiver_that_hangs_delays_no_other_and_one_that_refuses_is_named_without_its_path(
    receiver: WebhookReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = WebhookReceiver()
    hanging.react = lambda _: HangReaction()
    receiver.react = lambda _: RespondReaction(status=404)
    try:
        bench = Bench(hanging.url, receiver.url)
        bench.check_after(1.0)
        wait_until(lambda: len(receiver.requests) == 1, within_s=20, what="the other heartbeat")
        wait_until(lambda: "was not accepted: it answered 404" in caplog.text, within_s=20, what="the log")
        assert "/hook" not in caplog.text
        bench.check_after(60.0)
        wait_until(lambda: len(receiver.requests) == 2, within_s=20, what="the next heartbeat")
        assert len(hanging.requests) <= 1, "one request at a time"
    finally:
        hanging.close()
