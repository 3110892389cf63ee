"""The exposition: its names, and that both formats can be parsed."""

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
    deliveries=DeliveryNumbers(delivered={"ops": 3}, failed={("ops", "server_error"): 2}, dead={"ops": 1}),
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
