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
from monitor.notify.couriers import Couriers
from monitor.schedule import Timetable
from monitor.scoring import pick_device
from monitor.silence_watch import SilenceWatch
from monitor.stream import StreamRunner
from storage.engine import Database
from storage.jobs import report_job
from storage.ledger import Ledger
from storage.outbox import Outbox
from storage.partitions import ensure_score_days
from storage.retention import apply as apply_retention

log = logging.getLogger(__name__)

_TELL_WITHIN_S = 5.0
_GIVE_UP_EVERY_S = 600.0
_CHECKPOINT_EVERY_S = 60.0
_RETENTION_EVERY_S = 3600.0
_WATCH_EVERY_S = 10.0
_SILENCE_EVERY_S = 2.0
_STUCK_AFTER_S = 60.0
_WAIT_S = 0.2


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
            self._prepare(db)
            if self._stop.is_set():
                return
            ends.enter_context(db.exclusive())
            device = pick_device(self._settings.device)
            owner = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
            self._runners = [StreamRunner(name, self._settings, db, owner=owner, device=device) for name in self._names]
            timetable = self._timetable(db, owner)
            timetable.start()
            ends.callback(timetable.stop)
            couriers = Couriers.of(self._settings.notify, Outbox(db))
            couriers.start()
            try:
                self._run_streams(timetable)
            finally:
                couriers.finish(_TELL_WITHIN_S)
        self._raise_failure()

    def _prepare(self, db: Database) -> None:
        """Bring the schema up, waiting for a database that is not there yet."""
        while not self._stop.is_set():
            try:
                db.upgrade()
            except StorageUnavailable as away:
                log.warning("%s; trying again.", away, extra={"action": "start"})
                self._stop.wait(1.0)
            else:
                return

    def _run_streams(self, timetable: Timetable) -> None:
        threads = [threading.Thread(target=runner.run, name=runner.name) for runner in self._runners]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if self._stop.is_set() or any(runner.failure for runner in self._runners):
                for runner in self._runners:
                    runner.stop()
            timetable.tend()
            self._stop.wait(_WAIT_S) if not self._stop.is_set() else time.sleep(_WAIT_S)
        for thread in threads:
            thread.join()

    def _timetable(self, db: Database, owner: str) -> Timetable:
        retention, notify = self._settings.retention, self._settings.notify
        known, deadline_us = {"log", *notify.channels}, to_us(notify.deadline)
        timetable = Timetable(time.monotonic, lambda name, error: _report(db, name, error))
        timetable.every(_GIVE_UP_EVERY_S, "give_up", lambda: Outbox(db).give_up_unknown(known, deadline_us))
        timetable.every(_CHECKPOINT_EVERY_S, "checkpoint", db.checkpoint)
        timetable.every(_RETENTION_EVERY_S, "score_days", lambda: ensure_score_days(db))
        # By the clock that stamped the rows: this machine's may be wrong.
        ledger = Ledger(db)
        timetable.every(
            _RETENTION_EVERY_S,
            "retention",
            lambda: apply_retention(db, retention, ledger.now_us(), self._stop.is_set),
        )
        timetable.every(_WATCH_EVERY_S, "progress", self._watch)
        for name in self._names:
            watch = SilenceWatch.of(self._settings, name, db, owner=owner)
            timetable.every(_SILENCE_EVERY_S, f"silence {name}", watch.look)
        return timetable

    def _watch(self) -> None:
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


def _report(db: Database, name: str, error: str | None) -> None:
    """Keep for `status` what became of a job; a store that is away keeps nothing, and the job has logged its error."""
    with suppress(StorageUnavailable):
        report_job(db, name, error)
