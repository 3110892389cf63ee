"""The probes: a restart is requested only if it may help, and each stream that is not ready is named."""

import json
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from config.errors import ConfigError
from config.metrics import MetricsSettings
from monitor.health.stream_health import StreamHealth, judge_stream
from monitor.metrics.endpoint import MetricsEndpoint
from monitor.metrics.exposition import Exposition
from monitor.metrics.probes import STUCK_AFTER_S, ProbeResult, StreamCheck, probe_liveness, probe_readiness
from storage.database.tables import HEALTH_REPORT_TTL_S
from storage.queries.health import OpenIncidentFacts, ReportFacts, StreamHealthFacts

NOW_US = 1_000_000_000
WELL = StreamCheck(stream="payments", state="running", reason=None, stuck_s=0.0, has_outage=False)
STUCK = replace(WELL, stuck_s=STUCK_AFTER_S + 1)


@pytest.mark.parametrize(
    ("check", "is_store_available", "is_live"),
    [
        (WELL, True, True),
        (STUCK, True, False),
        (replace(STUCK, has_outage=True), True, True),
        (STUCK, False, True),
        (replace(WELL, state="stopped", reason="no topic"), True, True),
    ],
)
def test_only_waiting_records_without_an_outage_end_liveness(
    check: StreamCheck, is_store_available: bool, is_live: bool
) -> None:
    result = probe_liveness([WELL, check], is_store_available=is_store_available)
    assert result.is_ok == is_live
    assert "payments" not in json.dumps(list(result.lines))


def judged(*, reported: bool = True, kind: str | None = None) -> StreamHealth:
    """Return the health of a running stream, with an open incident if `kind` is given."""
    report = ReportFacts(
        replica="a",
        component="stream",
        state="running",
        since_us=0,
        reason=None,
        reported_at_us=NOW_US if reported else 0,
        lag_events=0,
        waiting_s=0.0,
    )
    incident = None
    if kind is not None:
        incident = OpenIncidentFacts(
            id=7, kind=kind, severity="critical", opened_at_us=0, summary="why", acknowledged_by=None
        )
    facts = StreamHealthFacts(
        stream="payments",
        reports=[report],
        lease_holder="a:1",
        lease_expires_us=NOW_US + 5_000_000,
        has_model=True,
        incidents=[] if incident is None else [incident],
    )
    return judge_stream(facts, NOW_US)


def test_readiness_names_each_problem() -> None:
    checks = [
        WELL,
        replace(WELL, stream="logins", state="waiting_for_kafka", reason="Kafka at b:1 does not answer"),
        replace(WELL, stream="meters", held_partitions=["meters[3] lead: ahead"]),
        replace(WELL, stream="clicks"),
        replace(WELL, stream="orders"),
    ]
    health = {name: judged() for name in ("payments", "logins", "meters")} | {"clicks": judged(reported=False)}
    result = probe_readiness(checks, health, judged_age_s=4.2, store_problem="the database is read-only")
    assert not result.is_ok
    assert result.lines == [
        "[failed] database: the database is read-only",
        "[ok] reports: the last was stored 4 s ago",
        "[ok] stream payments: running",
        "[failed] stream logins: waiting for kafka: Kafka at b:1 does not answer",
        "[failed] stream meters: running: meters[3] lead: ahead",
        "[failed] stream clicks: running: a has reported nothing for 17 min",
        "[failed] stream orders: running",
    ]


@pytest.mark.parametrize(
    ("health", "age_s", "is_ready"),
    [
        (judged(), 0.0, True),
        (judged(), float(HEALTH_REPORT_TTL_S), False),
        (judged(), float("inf"), False),
        (judged(kind="spike"), 0.0, True),
        (judged(kind="silence"), 0.0, True),
        (judged(kind="stalled"), 0.0, False),
    ],
)
def test_readiness_needs_a_stored_proof_and_ignores_findings_about_events(
    health: StreamHealth, age_s: float, is_ready: bool
) -> None:
    assert probe_readiness([WELL], {"payments": health}, judged_age_s=age_s, store_problem=None).is_ok == is_ready


def get(port: int | None, path: str, accept: str = "*/*") -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_the_endpoint_serves_metrics_and_probes() -> None:
    endpoint = MetricsEndpoint(
        MetricsSettings(listen="127.0.0.1:0"),
        live=lambda: ProbeResult(is_ok=True, lines=["ok"]),
        ready=lambda: ProbeResult(is_ok=False, lines=["[failed] stream a: stopped"]),
    )
    endpoint.start()
    try:
        endpoint.publish(Exposition(text=b"a 1\n", open_metrics=b"a 1\n# EOF\n"))
        assert get(endpoint.port, "/metrics")[::2] == (200, "a 1\n")
        status, kind, text = get(endpoint.port, "/metrics", "application/openmetrics-text; version=1.0.0")
        assert (status, text) == (200, "a 1\n# EOF\n")
        assert kind.startswith("application/openmetrics-text")
        assert get(endpoint.port, "/livez")[0] == 200
        assert get(endpoint.port, "/readyz?verbose")[::2] == (503, "[failed] stream a: stopped\n")
        assert get(endpoint.port, "/else")[0] == 404
        second = MetricsEndpoint(
            MetricsSettings(listen=f"127.0.0.1:{endpoint.port}"),
            live=lambda: ProbeResult(is_ok=True, lines=[]),
            ready=lambda: ProbeResult(is_ok=True, lines=[]),
        )
        with pytest.raises(ConfigError, match=r"metrics.listen: cannot listen on"):
            second.start()
    finally:
        endpoint.stop()


@pytest.mark.parametrize("address", ["localhost", ":9464", "a:b", "127.0.0.1:70000", "http://a:1", "::1:9464"])
def test_an_address_needs_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ValueError, match="is not an address with a port"):
        MetricsSettings(listen=address)
