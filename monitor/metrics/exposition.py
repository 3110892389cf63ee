"""The metrics as text in the formats of Prometheus. A pure function of counts and stored facts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from monitor.health.stream_health import HealthState
from monitor.metrics.counters import STAGES, StreamCounters
from monitor.metrics.families import Family
from monitor.notify.delivery_counts import DeliveryNumbers
from storage.queries.metric_facts import ChannelFacts, MetricFacts, StreamMetricFacts

CALIBRATION_STATES = ("provisional", "learned", "suspect")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """The facts of this process.

    Attributes:
        version: The version of Outrider.
        config_hashes: Hash of the settings of each stream.
        owner: Name of this process; the lease of a stream names its holder in the same form.
        last_reload_succeeded: Whether the last reload of the configuration succeeded; True before the first one.
        with_partitions: Whether positions have a series per partition.
        deliveries: The numbers of deliveries.
        job_runs: Number of failures and duration of the last run in seconds of each job.
    """

    version: str
    config_hashes: Mapping[str, str]
    owner: str
    last_reload_succeeded: bool
    with_partitions: bool
    deliveries: DeliveryNumbers
    job_runs: Mapping[str, tuple[int, float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamProgress:
    """The progress of one stream in this process.

    Attributes:
        waiting_s: Seconds that the oldest waiting record has waited for a commit; 0 without any.
        lag_events: Offsets between the stored positions and the ends of the logs; None if it is unknown.
        health: The state of the stream from the rows of all processes; None if it is not proven any more.
    """

    waiting_s: float
    lag_events: int | None = None
    health: HealthState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposition:
    """The rendered metrics: the text format of Prometheus, and OpenMetrics."""

    text: bytes
    open_metrics: bytes


def render_metrics(
    counters: Mapping[str, StreamCounters],
    progress: Mapping[str, StreamProgress],
    facts: MetricFacts | None,
    process: ProcessFacts,
) -> Exposition:
    """Render all metrics.

    Args:
        counters: The counts of each stream.
        progress: The progress of each stream in this process.
        facts: The stored facts; None while the database does not answer. Their metrics are then left out, so that an
            old value is not taken for a present one.
        process: The facts of this process.
    """
    families = [*_count_families(counters), *_process_families(process), *_progress_families(progress)]
    if facts is not None:
        families += _stored_families(facts, process)
    written = [family.write() for family in families]
    return Exposition(
        text=b"".join(part for heading, _, lines in written for part in (heading, lines)),
        open_metrics=b"".join(part for _, heading, lines in written for part in (heading, lines)) + b"# EOF\n",
    )


def _counter(name: str, text: str, labels: Sequence[str], rows: Mapping[tuple[str, ...], float]) -> Family:
    family = Family("counter", f"outrider_{name}", text, labels)
    for values, number in rows.items():
        family.add(values, number)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], rows: Mapping[tuple[str, ...], float | None]) -> Family:
    family = Family("gauge", f"outrider_{name}", text, labels)
    for values, number in rows.items():
        if number is not None:
            family.add(values, number)
    return family


def _count_families(counters: Mapping[str, StreamCounters]) -> Iterator[Family]:
    stream = ("stream",)
    own = {(name,): each for name, each in counters.items()}
    yield _counter("events", "Events that were scored and stored.", stream, {k: c.events for k, c in own.items()})
    yield _counter("late_events", "Stored events that were late.", stream, {k: c.late for k, c in own.items()})
    yield _counter("outliers", "Stored events above the threshold.", stream, {k: c.outliers for k, c in own.items()})
    yield _counter(
        "filtered_events", "Records that the filter left out.", stream, {k: c.filtered for k, c in own.items()}
    )
    yield _counter("gap_offsets", "Offsets that could not be read.", stream, {k: c.gap_offsets for k, c in own.items()})
    yield _counter(
        "dead_letters",
        "Records that could not be decoded.",
        ("stream", "reason"),
        {(name, reason): n for name, each in counters.items() for reason, n in dict(each.dead_letters).items()},
    )
    yield _counter(
        "stored_rows",
        "Rows that this process has stored.",
        ("stream", "table"),
        {(name, table): n for name, each in counters.items() for table, n in dict(each.stored_rows).items()},
    )
    delivery = Family(
        "histogram", "outrider_event_delivery_seconds", "Time from the broker's timestamp to the commit.", stream
    )
    stages = Family(
        "histogram",
        "outrider_batch_duration_seconds",
        "Duration of a stage of the path of a batch.",
        ("stream", "stage"),
    )
    for name, each in counters.items():
        delivery.add_histogram((name,), each.delivery.cumulative(), each.delivery.sum)
        for stage in STAGES:
            stages.add_histogram((name, stage), each.stages[stage].cumulative(), each.stages[stage].sum)
    yield delivery
    yield stages


def _progress_families(progress: Mapping[str, StreamProgress]) -> Iterator[Family]:
    stream = ("stream",)
    own = {(name,): each for name, each in progress.items()}
    yield _gauge(
        "commit_lag_seconds",
        "Time that the oldest waiting record has waited for a commit; 0 without any.",
        stream,
        {key: each.waiting_s for key, each in own.items()},
    )
    yield _gauge(
        "commit_lag_events",
        "Offsets between the stored positions and the ends of the logs.",
        stream,
        {key: each.lag_events for key, each in own.items()},
    )
    state = Family("stateset", "outrider_health_state", "The state of a stream, as on the page.", stream)
    states = [known.value for known in HealthState]
    for key, each in own.items():
        found = each.health or HealthState.UNKNOWN
        state.add_states(key, states, found.value)
    yield state


def _process_families(process: ProcessFacts) -> Iterator[Family]:
    build = Family("info", "outrider_build", "The version of Outrider.")
    build.add_info((), {"version": process.version})
    yield build
    config = Family("info", "outrider_config", "The hash of the settings of a stream.", ("stream",))
    for name, digest in process.config_hashes.items():
        config.add_info((name,), {"hash": digest})
    yield config
    yield _gauge(
        "config_last_reload_successful",
        "1 if the last reload of the configuration succeeded.",
        (),
        {(): float(process.last_reload_succeeded)},
    )
    numbers, channel = process.deliveries, ("channel",)
    yield _counter("notifications", "Delivered messages.", channel, _by_label(numbers.delivered))
    yield _counter("notifications_dead", "Messages that were given up.", channel, _by_label(numbers.dead))
    yield _counter(
        "notification_template_failures",
        "Texts of messages whose template failed, so that the built-in text was sent.",
        channel,
        _by_label(numbers.template_failures),
    )
    yield _counter(
        "notifications_failed",
        "Failed attempts to deliver a message.",
        ("channel", "reason"),
        {key: float(n) for key, n in numbers.failed.items()},
    )
    runs, job = process.job_runs, ("job",)
    yield _counter("job_failures", "Failed runs of a job.", job, {(name,): n for name, (n, _) in runs.items()})
    yield _gauge(
        "job_duration_seconds", "Duration of the last run of a job.", job, {(k,): s for k, (_, s) in runs.items()}
    )


def _by_label(numbers: Mapping[str, int]) -> dict[tuple[str, ...], float]:
    return {(label,): float(n) for label, n in numbers.items()}


def _stored_families(facts: MetricFacts, process: ProcessFacts) -> Iterator[Family]:
    yield from _threshold_families(facts)
    yield from _calibration_families(facts.streams)
    yield from _position_families(facts, process)
    yield from _channel_families(facts.channels)
    yield _counter("notifications_muted", "Messages that mutes have held back.", (), {(): facts.muted})
    yield from _job_families(facts)
    yield _gauge("store_bytes", "Size of the database.", (), {(): facts.store_bytes})


def _threshold_families(facts: MetricFacts) -> Iterator[Family]:
    found = {(name,): each.threshold for name, each in facts.streams.items() if each.threshold is not None}
    stream = ("stream",)
    yield _gauge("threshold", "The threshold in force, in nats.", stream, {k: t.value for k, t in found.items()})
    yield _gauge(
        "threshold_lower", "Lower end of the threshold's interval.", stream, {k: t.lower for k, t in found.items()}
    )
    yield _gauge(
        "threshold_upper", "Upper end of the threshold's interval.", stream, {k: t.upper for k, t in found.items()}
    )
    yield _gauge(
        "threshold_samples", "Energies behind the threshold.", stream, {k: t.samples for k, t in found.items()}
    )
    yield _gauge(
        "threshold_age_seconds",
        "Event time from the computation of the threshold to the latest event.",
        stream,
        {
            (name,): max(0.0, (latest_us - each.threshold.computed_at_us) / 1e6)
            for name, each in facts.streams.items()
            if each.threshold is not None and (latest_us := _latest_event_us(each)) is not None
        },
    )
    yield _gauge(
        "window_outliers_expected",
        "Outliers that a clean window of the size of the last one has on average.",
        stream,
        {(name,): each.expected_outliers for name, each in facts.streams.items()},
    )


def _latest_event_us(facts: StreamMetricFacts) -> int | None:
    return max((each.last_event_us for each in facts.partitions if each.last_event_us is not None), default=None)


def _calibration_families(streams: Mapping[str, StreamMetricFacts]) -> Iterator[Family]:
    found = {name: each.calibration for name, each in streams.items() if each.calibration is not None}
    state = Family("stateset", "outrider_calibration_state", "The state of the count model of outliers.", ("stream",))
    for name, each in found.items():
        state.add_states((name,), CALIBRATION_STATES, each.state)
    yield state
    yield _gauge(
        "false_alarms_promised_per_week",
        "The false-alarm budget.",
        ("stream",),
        {(name,): each.promised_per_week for name, each in found.items()},
    )
    yield _gauge(
        "false_alarms_realised_per_week",
        "Incidents under the budget in the look-back, per week.",
        ("stream",),
        {(name,): each.realised_per_week for name, each in found.items()},
    )
    yield _counter(
        "verdicts",
        "Verdicts of persons on incidents.",
        ("stream", "verdict"),
        {(name, verb): n for name, each in streams.items() for verb, n in each.verdicts.items()},
    )
    for suffix, text in (
        ("", "Share of true alarms among those with a verdict."),
        ("_lower", "Lower end of its interval."),
        ("_upper", "Upper end of its interval."),
    ):
        rows: dict[tuple[str, ...], float | None] = {
            (name,): getattr(each, f"precision{suffix}") for name, each in found.items()
        }
        yield _gauge(f"verdict_precision{suffix}", text, ("stream",), rows)


def _position_families(facts: MetricFacts, process: ProcessFacts) -> Iterator[Family]:
    streams = facts.streams
    labels = ("stream", "topic", "partition") if process.with_partitions else ("stream",)
    committed: dict[tuple[str, ...], float] = {}
    event: dict[tuple[str, ...], float] = {}
    for name, each in streams.items():
        for source in each.partitions:
            key = (name, source.topic, str(source.partition)) if process.with_partitions else (name,)
            for rows, at_us in ((committed, source.committed_at_us), (event, source.last_event_us)):
                if at_us is not None:
                    rows[key] = max(rows.get(key, 0.0), at_us / 1e6)
    yield _gauge("last_commit_timestamp_seconds", "Time of the last commit.", labels, dict(committed))
    yield _gauge("last_event_timestamp_seconds", "Latest event time.", labels, dict(event))
    yield _gauge(
        "incidents_open",
        "Open incidents.",
        ("stream", "kind", "severity"),
        {(name, *key): n for name, each in streams.items() for key, n in each.open_incidents.items()},
    )
    yield _gauge(
        "drift_z_ratio",
        "|z| of the newest drift verdict divided by its limit; above 1 is a drift.",
        ("stream", "horizon", "statistic"),
        {(name, *key): ratio for name, each in streams.items() for key, ratio in each.drift_ratios.items()},
    )
    yield _gauge(
        "leader",
        "1 if this process runs the control plane of the stream.",
        ("stream",),
        {(name,): float((each.lease_holder or "").startswith(process.owner)) for name, each in streams.items()},
    )
    model = Family("info", "outrider_model", "The models that score events.", ("stream",))
    for name, each in streams.items():
        for version, kind, role in each.models:
            model.add_info((name,), {"version": str(version), "kind": kind, "role": role})
    yield model


def _channel_families(channels: Mapping[str, ChannelFacts]) -> Iterator[Family]:
    yield _gauge(
        "notifications_pending",
        "Messages that wait for delivery.",
        ("channel",),
        {(channel,): float(each.pending) for channel, each in channels.items()},
    )
    yield _gauge(
        "notifications_oldest_pending_seconds",
        "Age of the oldest message that waits for delivery.",
        ("channel",),
        {(channel,): each.oldest_pending_s for channel, each in channels.items()},
    )


def _job_families(facts: MetricFacts) -> Iterator[Family]:
    yield _gauge(
        "job_last_success_timestamp_seconds",
        "Time of the last success of a job.",
        ("job",),
        {(job.name,): None if job.succeeded_at_us is None else job.succeeded_at_us / 1e6 for job in facts.jobs},
    )
