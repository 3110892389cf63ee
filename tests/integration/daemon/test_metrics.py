"""The endpoint of a running daemon: its metrics agree with the stored rows, and its probes with the streams."""

import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon.process import DaemonProcess
from tests.daemon.settings import STREAM, kafka_settings
from tests.daemon.stored import StoredRows
from tests.integration.daemon.conftest import PLAIN
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and body; status 0 while nothing listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def metrics(port: int) -> dict[str, float]:
    """Return the sum over all series of each metric."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(get(port, "/metrics")[1]):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_metrics_agree_with_the_stored_rows_and_probes_name_a_broker_that_is_away(
    kafka_server: KafkaServer, plain_topic: str, stored: StoredRows, run_daemon: Callable[..., DaemonProcess]
) -> None:
    port = free_port()
    settings = kafka_settings(stored.url, kafka_server.bootstrap, plain_topic)
    daemon = run_daemon(settings | {"metrics": {"listen": f"127.0.0.1:{port}"}})
    daemon.wait_until(lambda: metrics(port).get("outrider_events_total") == PLAIN.events, "all events are counted")
    daemon.wait_until(lambda: metrics(port).get("outrider_threshold", 0) > 0, "the stored facts are read")
    found = metrics(port)
    assert found["outrider_stored_rows_total"] >= stored.number("SELECT count(*) FROM score_history")
    assert found["outrider_outliers_total"] == stored.number("SELECT count(*) FROM outlier_history")
    assert found["outrider_event_delivery_seconds_count"] == PLAIN.events
    assert found["outrider_leader"] == 1
    daemon.wait_until(lambda: get(port, "/readyz")[0] == 200, "the stream is ready")
    kafka_server.pause()
    try:
        daemon.wait_until(lambda: get(port, "/readyz")[0] == 503, "the stream is not ready")
        assert f"stream {STREAM}: waiting for kafka" in get(port, "/readyz")[1]
        assert get(port, "/livez")[0] == 200
    finally:
        kafka_server.resume()
    daemon.wait_until(lambda: get(port, "/readyz")[0] == 200, "the stream is ready again")
    assert daemon.terminate() == 0
