"""The daemon: streams, and jobs on the wall clock. The only place with a clock."""

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from config.errors import OutriderError, StorageUnavailable
from config.settings import Settings
from config.units import to_us
from monitor.daemon.silence_watch import SilenceWatch
from monitor.daemon.stream_runner import StreamRunner
from monitor.models.scoring import pick_device
from monitor.notify.sender import NotificationSender
from monitor.schedule import JobScheduler
from storage.control.outbox import Outbox
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
_PROGRESS_INTERVAL_S = 10.0
_SILENCE_INTERVAL_S = 2.0
_STUCK_AFTER_S = 60.0
_POLL_S = 0.2


class Daemon:
    """Runs streams until all of them end or it is told to stop, by `stop` or by the event that it was given."""

    def __init__(
        self, settings: Settings, streams: Sequence[str] | None = None, *, stop: threading.Event | None = None
    ) -> None:
        self._settings = settings
        self._names = list(streams or settings.streams)
        self._stop = stop or threading.Event()
        self._runners: list[StreamRunner] = []

    def stop(self) -> None:
        """Ask for the end, from any thread or a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Run; return when all streams have ended or the stop was obeyed.

        Raises:
            OutriderError: What ended a stream against its will.
        """
        with ExitStack() as ends:
            db = ends.enter_context(Database(self._settings.database.url))
            self._upgrade_schema(db)
            if self._stop.is_set():
                return
            ends.enter_context(db.lock_for_daemon())
            device = pick_device(self._settings.device)
            owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
            self._runners = [StreamRunner(name, self._settings, db, owner=owner, device=device) for name in self._names]
            timetable = self._build_scheduler(db, owner)
            timetable.start()
            ends.callback(timetable.stop)
            couriers = NotificationSender.from_settings(self._settings.notify, Outbox(db))
            couriers.start()
            try:
                self._run_streams(timetable)
            finally:
                couriers.stop(_DELIVERY_TIMEOUT_S)
        self._raise_failure()

    def _upgrade_schema(self, db: Database) -> None:
        """Bring the schema up, waiting for a database that is not there yet."""
        while not self._stop.is_set():
            try:
                upgrade(db)
            except StorageUnavailable as away:
                log.warning("%s; trying again.", away, extra={"action": "start"})
                self._stop.wait(1.0)
            else:
                return

    def _run_streams(self, timetable: JobScheduler) -> None:
        threads = [threading.Thread(target=runner.run, name=runner.name) for runner in self._runners]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if self._stop.is_set() or any(runner.failure for runner in self._runners):
                for runner in self._runners:
                    runner.stop()
            timetable.reschedule()
            self._stop.wait(_POLL_S) if not self._stop.is_set() else time.sleep(_POLL_S)
        for thread in threads:
            thread.join()

    def _build_scheduler(self, db: Database, owner: str) -> JobScheduler:
        retention, notify = self._settings.retention, self._settings.notify
        known, deadline_us = {"log", *notify.channels}, to_us(notify.deadline)
        timetable = JobScheduler(time.monotonic, lambda name, error: _record_job(db, name, error))
        timetable.add_job(
            _EXPIRE_INTERVAL_S, "give_up", lambda: Outbox(db).give_up_unknown_channels(known, deadline_us)
        )
        timetable.add_job(_CHECKPOINT_INTERVAL_S, "checkpoint", db.checkpoint_wal)
        timetable.add_job(_RETENTION_INTERVAL_S, "score_days", lambda: ensure_score_partitions(db))
        # By the clock that stamped the rows: this machine's may be wrong.
        timetable.add_job(
            _RETENTION_INTERVAL_S,
            "retention",
            lambda: apply_retention(db, retention, db.now_us(), self._stop.is_set),
        )
        timetable.add_job(_PROGRESS_INTERVAL_S, "progress", self._warn_when_stuck)
        for name in self._names:
            watch = SilenceWatch.from_settings(self._settings, name, db, owner=owner)
            timetable.add_job(_SILENCE_INTERVAL_S, f"silence {name}", watch.check)
        return timetable

    def _warn_when_stuck(self) -> None:
        """Say that a stream is alive and does not progress: the commonest failure of consumers raises nothing."""
        for runner in self._runners:
            stuck_s = runner.stuck_s()
            if stuck_s > _STUCK_AFTER_S:
                log.warning(
                    "Stream %s has had records waiting and committed nothing for %.0f s.",
                    runner.name,
                    stuck_s,
                    extra={"action": "watch", "stream": runner.name},
                )

    def _raise_failure(self) -> None:
        failures = [runner.failure for runner in self._runners if runner.failure is not None]
        known = [failure for failure in failures if isinstance(failure, OutriderError)]
        for failure in (*known, *failures):
            raise failure


def _record_job(db: Database, name: str, error: str | None) -> None:
    """Keep for `status` what became of a job; a store that is away keeps nothing, and the job has logged its error."""
    with suppress(StorageUnavailable):
        record_job_result(db, name, error)
