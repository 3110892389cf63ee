"""The trace of a Kafka record is stored with its outlier, and the page of the incident links to it."""

from collections.abc import Callable

import pytest

from tests.daemon.events import BurstStream
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import kafka_settings
from tests.daemon.stored import StoredRows
from tests.servers.kafka import KafkaServer
from tests.servers.records import open_producer
from tests.unit.monitor.server.apps import build_settings, open_client

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

EVENTS = BurstStream(events=4_000, seconds=800)
TRACE_URL = "https://traces.example/t/{trace_id}?from=outrider&x=<1>"


def trace_id(offset: int) -> str | None:
    """Return the trace of the record at an offset of the only partition: two records of three have one."""
    return f"{offset + 1:032x}" if offset % 3 else None


def test_traces_of_outliers_are_stored_and_linked(
    kafka_server: KafkaServer,
    kafka_topic: Callable[..., str],
    stored: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    topic = kafka_topic()
    with open_producer(kafka_server, linger_ms=20, batch_size=65_536) as writer:
        for offset, value in enumerate(EVENTS.records()):
            found = trace_id(offset)
            traceparent = "not a trace" if found is None else f"00-{found}-00f067aa0ba902b7-01"
            writer.send(topic, value, partition=0, headers=[("traceparent", traceparent.encode()), ("other", b"\xff")])
    daemon = run_daemon(kafka_settings(stored.url, kafka_server.bootstrap, topic))
    daemon.wait_until(lambda: stored.count("scores") == EVENTS.events, "all events are scored")
    is_spike = "SELECT count(*) FROM incidents WHERE kind = 'spike'"
    daemon.wait_until(lambda: stored.number(is_spike) > 0, "a burst has opened an incident")
    assert daemon.terminate() == 0
    rows = stored.rows("SELECT source_offset, trace_id FROM outlier_history")
    assert len(rows) > 30
    assert {bool(trace) for _, trace in rows} == {True, False}
    assert [trace for _, trace in rows] == [trace_id(offset) for offset, _ in rows]

    client = open_client(build_settings(stored.url, {"trace_url": TRACE_URL}))
    try:
        incident = stored.number("SELECT min(id) FROM incidents WHERE kind = 'spike'")
        page = client.get(f"/incidents/{incident}").text
        shown = [trace for _, trace in rows if trace is not None and f'title="{trace}"' in page]
        assert shown
        for trace in shown:
            assert f'<a href="https://traces.example/t/{trace}?from=outrider&amp;x=&lt;1&gt;" rel="noreferrer">' in page
        assert shown[0] in client.get(f"/incidents/{incident}/events.csv").text
    finally:
        client.app.state.context.close()  # type: ignore[attr-defined]
