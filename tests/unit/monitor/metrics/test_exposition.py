"""The exposition: its names, and that both formats can be parsed."""

import dataclasses
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from monitor.health.stream_health import HealthState
from monitor.metrics.counters import StreamCounters
from monitor.metrics.exposition import ProcessFacts, StreamProgress, render_metrics
from monitor.notify.delivery_counts import DeliveryNumbers
from storage.database.jobs import JobState
from storage.queries.metric_facts import (
    CalibrationFacts,
    ChannelFacts,
    MetricFacts,
    PartitionFacts,
    StreamMetricFacts,
    ThresholdFacts,
)
from tests.unit.monitor.metrics.commits import make_commit

PROCESS = ProcessFacts(
    version="1.0",
    config_hashes={"payments": "abc"},
    owner="host:1:2",
    last_reload_succeeded=True,
    with_partitions=False,
    deliveries=DeliveryNumbers(
        delivered={"ops": 3}, failed={("ops", "server_error"): 2}, dead={"ops": 1}, template_failures={"ops": 4}
    ),
    job_runs={"health": (1, 0.25), "retention": (0, None)},
)
FACTS = MetricFacts(
    now_us=100_000_000,
    streams={
        "payments": StreamMetricFacts(
            threshold=ThresholdFacts(value=12.5, lower=12.0, upper=13.0, samples=400, computed_at_us=40_000_000),
            calibration=CalibrationFacts(
                state="learned",
                promised_per_week=1.0,
                realised_per_week=0.5,
                precision=0.75,
                precision_lower=0.19,
                precision_upper=0.99,
            ),
            expected_outliers=0.6,
            partitions=[
                PartitionFacts(topic="p", partition=0, committed_at_us=99_000_000, last_event_us=90_000_000),
                PartitionFacts(topic="p", partition=1, committed_at_us=98_000_000, last_event_us=95_000_000),
            ],
            open_incidents={("spike", "critical"): 1},
            models=[(2, "gaussian_mixture", "active")],
            drift_ratios={("1d", "energy"): 0.4},
            lease_holder="host:1:2:1",
            verdicts={"false_alarm": 1, "confirm": 3},
        )
    },
    channels={"ops": ChannelFacts(pending=4, oldest_pending_s=7.0)},
    muted=2,
    jobs=[JobState(name="health", succeeded_at_us=99_000_000, failed_at_us=None, last_error=None)],
    store_bytes=4096,
)


PROGRESS = {"payments": StreamProgress(waiting_s=1.5, lag_events=42, health=HealthState.WARNING)}


def counted() -> dict[str, StreamCounters]:
    counters = StreamCounters()
    counters.count_commits([make_commit(events=5, outliers=2, late=1, dead=("not_json",))])
    return {"payments": counters}


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counts_and_stored_facts_have_their_values() -> None:
    found = samples(render_metrics(counted(), PROGRESS, FACTS, PROCESS).text)
    stream = ("stream", "payments")
    assert found["outrider_events_total", (stream,)] == 5
    assert found["outrider_dead_letters_total", (("reason", "not_json"), stream)] == 1
    assert found["outrider_commit_lag_seconds", (stream,)] == 1.5
    assert found["outrider_commit_lag_events", (stream,)] == 42
    assert found["outrider_health_state", (("outrider_health_state", "warning"), stream)] == 1
    assert found["outrider_health_state", (("outrider_health_state", "well"), stream)] == 0
    assert found["outrider_verdicts_total", (stream, ("verdict", "confirm"))] == 3
    assert found["outrider_verdict_precision_lower", (stream,)] == 0.19
    assert found["outrider_threshold", (stream,)] == 12.5
    assert found["outrider_threshold_age_seconds", (stream,)] == 55
    assert found["outrider_last_commit_timestamp_seconds", (stream,)] == 99
    assert found["outrider_calibration_state", (("outrider_calibration_state", "learned"), stream)] == 1
    assert found["outrider_calibration_state", (("outrider_calibration_state", "suspect"), stream)] == 0
    assert found["outrider_incidents_open", (("kind", "spike"), ("severity", "critical"), stream)] == 1
    assert found["outrider_leader", (stream,)] == 1
    assert found["outrider_notifications_failed_total", (("channel", "ops"), ("reason", "server_error"))] == 2
    assert found["outrider_notification_template_failures_total", (("channel", "ops"),)] == 4
    assert found["outrider_notifications_muted_total", ()] == 2
    assert found["outrider_job_failures_total", (("job", "health"),)] == 1
    assert found["outrider_store_bytes", ()] == 4096


def test_both_formats_parse_and_have_the_same_values() -> None:
    rendered = render_metrics(counted(), PROGRESS, FACTS, PROCESS)
    families = list(parse_openmetrics(rendered.open_metrics.decode()))  # type: ignore[no-untyped-call]
    own = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    assert own == samples(rendered.text)


class Parsed:
    """A collector of parsed families, for the writers of the client."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        return self._families


@pytest.mark.parametrize("name", ["payments", 'a "quoted"\\ name,\nof {two} lines = \u00fc'])
@pytest.mark.parametrize("number", [0, 0.1, 999_999, 1_234_567, 2.5e20, 1e-9, -3.5, float("inf"), float("nan")])
def test_the_writers_of_the_client_write_the_same_bytes(name: str, number: float) -> None:
    counters = counted()["payments"]
    counters.stages["score"].add(0.02)
    counters.delivery.sum = 1_234_567.5
    facts = dataclasses.replace(FACTS, streams={name: FACTS.streams["payments"]}, store_bytes=number)  # type: ignore[arg-type]
    process = dataclasses.replace(PROCESS, config_hashes={name: "abc"})
    rendered = render_metrics({name: counters}, {name: PROGRESS["payments"]}, facts, process)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Parsed(parse_openmetrics(rendered.open_metrics.decode())))  # type: ignore[no-untyped-call]
    assert generate_latest(registry) == rendered.text
    assert generate_openmetrics(registry) == rendered.open_metrics  # type: ignore[no-untyped-call]
    streams = {labels["stream"] for _, labels, _ in _list_samples(rendered.text) if "stream" in labels}
    assert streams == {name}


def _list_samples(text: bytes) -> list[tuple[str, dict[str, str], float]]:
    families = text_string_to_metric_families(text.decode())
    return [(each.name, each.labels, each.value) for family in families for each in family.samples]


def test_without_the_database_only_the_facts_of_the_process_are_shown() -> None:
    found = samples(render_metrics(counted(), {"payments": StreamProgress(waiting_s=3.0)}, None, PROCESS).text)
    names = {name for name, _ in found}
    assert "outrider_events_total" in names
    assert "outrider_commit_lag_seconds" in names
    assert "outrider_commit_lag_events" not in names, "it is not known"
    state = (("outrider_health_state", "unknown"), ("stream", "payments"))
    assert found["outrider_health_state", state] == 1, "without a proof"
    assert not names & {"outrider_threshold", "outrider_incidents_open", "outrider_leader", "outrider_store_bytes"}


def test_positions_by_partition_are_an_option() -> None:
    process = ProcessFacts(
        **{name: getattr(PROCESS, name) for name in ProcessFacts.__slots__} | {"with_partitions": True}
    )
    found = samples(render_metrics(counted(), {}, FACTS, process).text)
    labels = (("partition", "1"), ("stream", "payments"), ("topic", "p"))
    assert found["outrider_last_event_timestamp_seconds", labels] == 95
