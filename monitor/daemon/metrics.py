"""The metrics of the daemon: collects counts, conditions and stored facts, and renders them at an interval."""

import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

from config.errors import StorageUnavailable
from config.metrics import MetricsSettings
from monitor.daemon.health_watch import JudgedHealth
from monitor.daemon.stream_supervisor import StreamCondition, StreamSupervisor
from monitor.health.stream_health import StreamHealth
from monitor.metrics.counters import StreamCounters
from monitor.metrics.endpoint import MetricsEndpoint
from monitor.metrics.exposition import ProcessFacts, StreamProgress, render_metrics
from monitor.metrics.probes import ProbeResult, StreamCheck, probe_liveness, probe_readiness
from monitor.notify.delivery_counts import DeliveryNumbers
from storage.database.engine import Database
from storage.database.tables import HEALTH_REPORT_TTL_S
from storage.queries.metric_facts import MetricFacts, read_metric_facts

RENDER_INTERVAL_S = 5.0


class DaemonMetrics:
    """Renders the metrics of the streams of a daemon, and answers the probes.

    Args:
        settings: The address of the endpoint.
        db: The database.
        streams: The streams.
        counters: The counts of each stream, by name.
        judged: Returns the last judgement of the health of the streams; None before the first one.
        owner: Name of this process.
        config_hashes: Returns the hash of the settings of each stream.
        deliveries: Returns the numbers of deliveries.
        job_runs: Returns the number of failures of each job, and the duration of its last run in seconds.
    """

    def __init__(
        self,
        settings: MetricsSettings,
        db: Database,
        streams: Sequence[StreamSupervisor],
        counters: Mapping[str, StreamCounters],
        *,
        judged: Callable[[], JudgedHealth | None],
        owner: str,
        config_hashes: Callable[[], Mapping[str, str]],
        deliveries: Callable[[], DeliveryNumbers],
        job_runs: Callable[[], Mapping[str, tuple[int, float | None]]],
    ) -> None:
        self._settings = settings
        self._db = db
        self._streams = streams
        self._counters = counters
        self._judged = judged
        self._owner = owner
        self._store_problem: str | None = None
        self._config_hashes = config_hashes
        self._deliveries = deliveries
        self._job_runs = job_runs
        self.last_reload_succeeded = True
        self.endpoint = MetricsEndpoint(settings, live=self._probe_liveness, ready=self._probe_readiness)

    def render(self) -> None:
        """Render the metrics once.

        Raises:
            StorageUnavailable: The database does not answer; the metrics of this process are rendered all the same.
        """
        facts: MetricFacts | None = None
        try:
            facts = read_metric_facts(self._db, [each.name for each in self._streams])
            self._store_problem = None
        except StorageUnavailable as error:
            self._store_problem = str(error)
            raise
        finally:
            self._publish(facts)

    def _publish(self, facts: MetricFacts | None) -> None:
        process = ProcessFacts(
            version=version("outrider"),
            config_hashes=self._config_hashes(),
            owner=self._owner,
            last_reload_succeeded=self.last_reload_succeeded,
            with_partitions=self._settings.partitions,
            deliveries=self._deliveries(),
            job_runs=self._job_runs(),
        )
        judged = self._judged()
        is_fresh = judged is not None and time.monotonic() - judged.at_s < HEALTH_REPORT_TTL_S
        health = judged.streams if judged is not None and is_fresh else {}
        progress = {each.name: _read_progress(each, health.get(each.name)) for each in self._streams}
        self.endpoint.publish(render_metrics(self._counters, progress, facts, process))

    def _probe_liveness(self) -> ProbeResult:
        return probe_liveness(self._checks(), is_store_available=self._store_problem is None)

    def _probe_readiness(self) -> ProbeResult:
        judged = self._judged()
        return probe_readiness(
            self._checks(),
            {} if judged is None else judged.streams,
            judged_age_s=float("inf") if judged is None else time.monotonic() - judged.at_s,
            store_problem=self._store_problem,
        )

    def _checks(self) -> list[StreamCheck]:
        return [build_check(each.name, each.condition(), each.stuck_s()) for each in self._streams]


def _read_progress(stream: StreamSupervisor, health: StreamHealth | None) -> StreamProgress:
    condition = stream.condition()
    return StreamProgress(
        waiting_s=condition.waiting_s,
        lag_events=condition.lag_events,
        health=None if health is None else health.state,
    )


def build_check(stream: str, condition: StreamCondition, stuck_s: float) -> StreamCheck:
    """Return the condition of a stream for the probes."""
    return StreamCheck(
        stream=stream,
        state=condition.state,
        reason=condition.reason,
        stuck_s=stuck_s,
        has_outage=bool(condition.outages),
        held_partitions=[f"{each.partition} {each.reason}" for each in condition.waiting],
    )
