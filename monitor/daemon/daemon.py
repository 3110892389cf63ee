"""The daemon: it runs the streams, the periodic jobs and the notification sender."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress

from config.errors import ConfigError, OlderReplicasRunning, OutriderError, StorageUnavailable
from config.settings import LoggingSettings, MetricsSettings, Settings
from config.stream_rules import StreamRules
from monitor.daemon.connections import COMMIT_CONNECTIONS, CONTROL_CONNECTIONS
from monitor.daemon.garbage import COLLECT_INTERVAL_S, collect_young_garbage, tuned_garbage_collection
from monitor.daemon.health_watch import INTERVAL_S, HealthWatch
from monitor.daemon.metrics import RENDER_INTERVAL_S, DaemonMetrics, build_check
from monitor.daemon.reload import LiveNotifications, ReloadPlan, plan_reload
from monitor.daemon.rules import build_stream_rules
from monitor.daemon.service_manager import MAX_INTERVAL_S, ServiceManager
from monitor.daemon.shared_settings import SharedSettings, review_settings
from monitor.daemon.silence_watch import SilenceWatch
from monitor.daemon.stream_runner import StreamRunner, reads_stdin
from monitor.daemon.stream_supervisor import StreamSupervisor
from monitor.health.heartbeats import Heartbeats
from monitor.health.stream_health import StreamHealth
from monitor.metrics.counters import StreamCounters
from monitor.models.scoring import pick_device
from monitor.schedule import JobScheduler
from storage.control.outbox import Outbox
from storage.control.settings import SettingsStore
from storage.database.engine import Database
from storage.database.jobs import record_job_result
from storage.database.migrations.upgrade import upgrade
from storage.database.partitions import ensure_score_partitions
from storage.retention import delete_expired as apply_retention

log = logging.getLogger(__name__)

_DELIVERY_TIMEOUT_S = 5.0
_EXPIRE_INTERVAL_S = 600.0
_CHECKPOINT_INTERVAL_S = 60.0
_RETENTION_INTERVAL_S = 3600.0
_FIRST_RETENTION_S = 60.0
"""Retention also runs in a daemon that is restarted more often than once an hour."""
_HEARTBEAT_INTERVAL_S = 3.0
"""A fifth of the time after which a process without a heartbeat does not count as running."""
_PROGRESS_INTERVAL_S = 10.0
_SILENCE_INTERVAL_S = 2.0
_STUCK_AFTER_S = 60.0
_POLL_S = 0.2


class Daemon:
    """Runs streams until all of them have ended or a stop is requested, by `stop` or by the given event.

    Args:
        settings: All settings.
        streams: The streams to run. None: all.
        stop: Event that requests the stop.
        reload: Event that requests a reload of the settings.
        load: Loads the settings again; raises `ConfigError`. None: a reload is not possible.
        beside_older: Upgrade the database also while processes of an earlier version run on it.
        set_up_logging: Applies reloaded settings of the log.
        fail_fast: End when one stream fails. Otherwise a stream that fails starts again while another one can go on.
    """

    def __init__(
        self,
        settings: Settings,
        streams: Sequence[str] | None = None,
        *,
        stop: threading.Event | None = None,
        reload: threading.Event | None = None,
        load: Callable[[], Settings] | None = None,
        beside_older: bool = False,
        set_up_logging: Callable[[LoggingSettings], None] = lambda _settings: None,
        fail_fast: bool = False,
    ) -> None:
        self._settings = settings
        self._names = list(streams or settings.streams)
        self._stop = stop or threading.Event()
        self._reload = reload or threading.Event()
        self._load = load
        self._beside_older = beside_older
        self._set_up_logging = set_up_logging
        self._fail_fast = fail_fast
        self._shared: dict[str, SharedSettings] = {}
        self._streams: list[StreamSupervisor] = []
        self._counters = {name: StreamCounters() for name in self._names}
        self._metrics: DaemonMetrics | None = None
        self._failures: list[BaseException] = []
        self._service = ServiceManager.from_environment()

    def stop(self) -> None:
        """Request the stop; may be called from any thread or a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Run until all streams have ended or a requested stop is complete.

        Raises:
            OutriderError: No stream can go on, and one of them has failed; with `fail_fast`, a stream has failed.
        """
        with ExitStack() as stack:
            db = stack.enter_context(Database(self._settings.database.url, connections=CONTROL_CONNECTIONS))
            stack.enter_context(db.lock_for_daemon())
            self._upgrade_schema(db)
            if self._stop.is_set():
                return
            commits = stack.enter_context(db.with_own_connections(COMMIT_CONNECTIONS))
            device = pick_device(self._settings.device)
            owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
            notifications = LiveNotifications(self._settings, Outbox(db))
            self._shared = {
                name: SharedSettings(
                    self._settings, name, SettingsStore(db), owner=owner, channels_for=notifications.channels_for
                )
                for name in self._names
            }
            self._streams = [self._supervise(name, db, commits, owner, device, notifications) for name in self._names]
            health = HealthWatch(
                db, [(each, self._rules_of(each, notifications)) for each in self._streams], replica=owner
            )
            jobs = self._build_scheduler(db, notifications, health)
            if self._settings.metrics is not None:
                self._start_metrics(db, self._settings.metrics, jobs, notifications, health, owner, stack)
            stack.enter_context(tuned_garbage_collection())
            jobs.start()
            stack.callback(jobs.stop)
            notifications.start()
            try:
                self._run_streams(jobs, notifications)
                jobs.stop()
                health.close()
            finally:
                notifications.stop(_DELIVERY_TIMEOUT_S)
        self._raise_failure()

    def _supervise(
        self, name: str, db: Database, commits: Database, owner: str, device: str, notifications: LiveNotifications
    ) -> StreamSupervisor:
        """Return the supervisor of a stream. The stream is set up in its own thread, where an error stays in it."""
        return StreamSupervisor(
            name,
            lambda run_owner: StreamRunner(
                name,
                self._settings,
                db,
                commits=commits,
                owner=run_owner,
                device=device,
                channels_for=notifications.channels_for,
                shared=self._shared[name],
                counters=self._counters[name],
            ),
            owner=owner,
            restarts=not reads_stdin(self._settings.streams[name]),
        )

    def _start_metrics(
        self,
        db: Database,
        settings: MetricsSettings,
        jobs: JobScheduler,
        notifications: LiveNotifications,
        health: HealthWatch,
        owner: str,
        stack: ExitStack,
    ) -> None:
        """Start the endpoint of metrics and probes, and add the job that renders them."""
        metrics = DaemonMetrics(
            settings,
            db,
            self._streams,
            self._counters,
            judged=lambda: health.judged,
            owner=owner,
            config_hashes=lambda: {name: each.file_hash for name, each in self._shared.items()},
            deliveries=notifications.counts.read,
            job_runs=jobs.job_runs,
        )
        self._metrics = metrics
        metrics.endpoint.start()
        stack.callback(metrics.endpoint.stop)
        jobs.add_job(RENDER_INTERVAL_S, "metrics", metrics.render, first_s=0.0)

    def _rules_of(self, stream: StreamSupervisor, notifications: LiveNotifications) -> StreamRules:
        return build_stream_rules(self._settings, stream.name, channels_for=notifications.channels_for)

    def _upgrade_schema(self, db: Database) -> None:
        """Upgrade the schema; wait for a database that is not available yet, and for the end of earlier versions."""
        told = ""
        while not self._stop.is_set():
            try:
                upgrade(db, beside_older=self._beside_older)
                if db.dialect == "sqlite":  # the lock of the daemon shows that no other process runs
                    SettingsStore(db).delete_replicas()
            except (StorageUnavailable, OlderReplicasRunning) as error:
                if isinstance(error, StorageUnavailable) or told != str(error):
                    log.warning("%s; trying again.", error, extra={"action": "start"})
                told = str(error)
                self._stop.wait(1.0)
            else:
                return

    def _run_streams(self, jobs: JobScheduler, notifications: LiveNotifications) -> None:
        threads = [threading.Thread(target=each.run, name=each.name) for each in self._streams]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if not self._failures and not self._stop.is_set():
                self._failures = self._find_decisive_failures()
            if self._stop.is_set() or self._failures:
                self._service.tell_stopping()
                for each in self._streams:
                    each.stop()
            if self._reload.is_set():
                self._reload.clear()
                self._reload_settings(notifications)
            jobs.reschedule()
            self._stop.wait(_POLL_S) if not self._stop.is_set() else time.sleep(_POLL_S)
        self._service.tell_stopping()
        for thread in threads:
            thread.join()
        if not self._failures and not self._stop.is_set():
            self._failures = self._find_decisive_failures()

    def _find_decisive_failures(self) -> list[BaseException]:
        """Return the errors of the streams if no stream can go on, or under `fail_fast`; otherwise none."""
        if not self._fail_fast and any(each.can_go_on for each in self._streams):
            return []
        return [each.failure for each in self._streams if each.failure is not None]

    def _reload_settings(self, notifications: LiveNotifications) -> None:
        """Load the settings again and apply those that need no restart; keep the former ones after an error."""
        if self._load is None:
            return
        try:
            plan = plan_reload(self._settings, self._load())
        except ConfigError as error:
            self._note_reload(succeeded=False)
            problems = "; ".join(error.problems)
            log.error("The configuration was not reloaded: %s.", problems, extra={"action": "reload"})
            return
        self._note_reload(succeeded=True)
        if plan.changes("notify"):
            notifications.replace(plan.settings)
        if plan.changes("logging"):
            self._set_up_logging(plan.settings.logging)
        self._settings = plan.settings
        self._propose_settings(plan)
        # As a warning if a change waits: it is seen at every level but `error`.
        log.log(
            logging.WARNING if plan.scheduled or plan.pending else logging.INFO,
            "%s",
            plan.describe(),
            extra={"action": "reload"}
            | {"applied": plan.applied, "scheduled": plan.scheduled, "pending": plan.pending},
        )

    def _note_reload(self, *, succeeded: bool) -> None:
        if self._metrics is not None:
            self._metrics.last_reload_succeeded = succeeded

    def _propose_settings(self, plan: ReloadPlan) -> None:
        """Follow the reloaded settings that the processes of a stream share; a problem stays with its stream."""
        for name, shared in self._shared.items():
            if not plan.schedules(name):
                continue
            try:
                shared.change_file(plan.settings)
            except (ConfigError, StorageUnavailable) as error:  # the job of the heartbeats decides again
                log.warning("Stream %s: %s", name, error, extra={"action": "reload", "stream": name})

    def _build_scheduler(self, db: Database, notifications: LiveNotifications, health: HealthWatch) -> JobScheduler:
        jobs = JobScheduler(time.monotonic, lambda name, error: _record_job(db, name, error))
        jobs.add_job(_EXPIRE_INTERVAL_S, "give_up", notifications.give_up_unknown)
        jobs.add_job(_CHECKPOINT_INTERVAL_S, "checkpoint", db.checkpoint_wal)
        jobs.add_job(_RETENTION_INTERVAL_S, "score_days", lambda: ensure_score_partitions(db))
        # The clock of the database wrote the rows' times; the clock of this machine may be wrong.
        jobs.add_job(
            _RETENTION_INTERVAL_S,
            "retention",
            # A reload changes the settings.
            lambda: apply_retention(db, self._settings.retention, db.now_us(), self._stop.is_set),
            first_s=_FIRST_RETENTION_S,
        )
        jobs.add_job(
            _HEARTBEAT_INTERVAL_S, "settings", lambda: review_settings(SettingsStore(db), self._shared.values())
        )
        jobs.add_job(_PROGRESS_INTERVAL_S, "progress", self._warn_when_stuck)
        jobs.add_job(INTERVAL_S, "health", health.check)
        if self._service.is_present:
            jobs.add_job(MAX_INTERVAL_S, "service", self._tell_service_manager)
        heartbeats = Heartbeats(
            lambda: self._settings.notify.heartbeats,  # a reload changes the settings
            lambda: _read_judged(health),
            clock=time.monotonic,
        )
        jobs.add_job(INTERVAL_S, "heartbeats", heartbeats.check)
        jobs.add_job(COLLECT_INTERVAL_S, "garbage", collect_young_garbage)
        for each in self._streams:
            watch = SilenceWatch.from_settings(
                self._shared[each.name].effective,
                each.name,
                db,
                owner=each.current_owner,
                channels_for=notifications.channels_for,
            )
            jobs.add_job(_SILENCE_INTERVAL_S, f"silence {each.name}", watch.check)
        return jobs

    def _tell_service_manager(self) -> None:
        self._service.report([build_check(each.name, each.condition(), each.stuck_s()) for each in self._streams])

    def _warn_when_stuck(self) -> None:
        """Warn of streams that run without progress: the most frequent failure of consumers raises no error."""
        for each in self._streams:
            stuck_s = each.stuck_s()
            if stuck_s > _STUCK_AFTER_S:
                log.warning(
                    "Stream %s has waiting records and has committed nothing for %.0f s.",
                    each.name,
                    stuck_s,
                    extra={"action": "watch", "stream": each.name},
                )

    def _raise_failure(self) -> None:
        # A stream that was stopped by an error before a requested stop is no error of the stop.
        drained = [each.failure for each in self._streams if each.failed_while_stopping and each.failure is not None]
        failures = [*self._failures, *drained]
        explained = [failure for failure in failures if isinstance(failure, OutriderError)]
        for failure in (*explained, *failures):
            raise failure


def _read_judged(health: HealthWatch) -> tuple[Mapping[str, StreamHealth], float]:
    """Return the last judgement of the streams of this process, and its age in seconds."""
    judged = health.judged
    return ({}, float("inf")) if judged is None else (judged.streams, time.monotonic() - judged.at_s)


def _record_job(db: Database, name: str, error: str | None) -> None:
    """Store the result of a job for `status`; skip it while the database is unavailable (the error is logged)."""
    with suppress(StorageUnavailable):
        record_job_result(db, name, error)
