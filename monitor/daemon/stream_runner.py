"""One stream of the daemon: its partitions, its first model and its three threads.

The intake polls; the worker decodes, scores and commits; the control loop seals, judges and ticks. The threads share an
inbox, two events and the database.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Literal, TypeVar

from config.errors import BrokerUnavailable, StorageUnavailable
from config.settings import EventSettings, Settings, StreamSettings
from config.stream_rules import RuleSchedule
from config.units import to_us
from consumers.batch import Partition, Position
from consumers.codec import Codec, make_codec
from consumers.open import open_source
from consumers.source import Layout, Source
from monitor.control_plane.control_plane import ControlPlane, ControlPlaneStores
from monitor.control_plane.lease import Lease
from monitor.control_plane.model_cache import ModelCache
from monitor.control_plane.rule_reader import RuleReader
from monitor.control_plane.wakeup import ControlWakeup
from monitor.daemon.rules import build_stream_rules
from monitor.daemon.shared_settings import SharedSettings
from monitor.daemon.thread_progress import ControlRounds, StuckThread, find_stuck_threads
from monitor.metrics.counters import StreamCounters
from monitor.models.promotion import Promoter
from monitor.models.refit_fit import ChildFitter
from monitor.models.scoring import Scorer, load_model
from monitor.models.warm_up import WarmUp
from monitor.pipeline.control_need import ControlNeed
from monitor.pipeline.control_reader import WorkerSettings
from monitor.pipeline.inbox import ControlChanged, Inbox
from monitor.pipeline.intake import Intake
from monitor.pipeline.outages import Outage, Outages
from monitor.pipeline.retry import StorageRetry
from monitor.pipeline.sources import SourceRetirement, register_sources, stored_positions
from monitor.pipeline.waiting import WaitingPartition
from monitor.pipeline.worker import Worker
from storage.control.drift import DriftStore
from storage.control.evidence import EvidenceStore
from storage.control.models import ModelRecord, ModelStore
from storage.control.refits import RefitStore
from storage.control.rollups import RollupStore
from storage.control.settings import SettingsStore
from storage.control.shadows import ShadowStore
from storage.control.thresholds import ThresholdStore
from storage.control.windows import WindowStore
from storage.database.engine import Database
from storage.database.leases import Leases
from storage.ledger.ledger import Ledger
from storage.ledger.sources import StreamState

log = logging.getLogger(__name__)

T = TypeVar("T")
Decoding = tuple[EventSettings, timedelta]
"""The settings of a stream that its codec depends on, apart from the features, which are those of the model."""
Phase = Literal["starting", "warming_up", "running"]

DRAIN_TIMEOUT_S = 20.0
_MODEL_CHECK_INTERVAL_S = 1.0
_BACKOFF_S = 1.0


class StreamRunner:
    """Runs one stream until it ends, fails or a stop is requested. A runner runs once.

    Attributes:
        failure: The error that ended the stream, if any.
        phase: The present work of the stream, as in the view `health`.
        outages: The outages of the source.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        db: Database,
        *,
        commits: Database,
        owner: str,
        device: str,
        channels_for: Callable[..., Sequence[str]] | None = None,
        shared: SharedSettings | None = None,
        counters: StreamCounters | None = None,
    ) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self.phase: Phase = "starting"
        self.outages = Outages()
        self._settings = settings
        self._stream_settings = settings.streams[name]
        self._rules = build_stream_rules(settings, name, channels_for=channels_for)
        self._schedule = RuleSchedule.constant(self._rules)
        self._shared = shared or SharedSettings(
            settings, name, SettingsStore(db), owner=owner, channels_for=channels_for
        )
        self._counters = counters or StreamCounters()
        self._decoding: tuple[Decoding, Codec] | None = None
        self._db = db
        self._commits = commits
        self._owner = owner
        self._device = device
        self._ledger = Ledger(commits)
        self._models = ModelStore(db)
        self._stop = threading.Event()
        self._wakeup = ControlWakeup()
        self._inbox = Inbox()
        self._threads: list[threading.Thread] = []
        self._stdin_source: Source | None = None
        self._layout: Layout = "lines"
        self._topics: frozenset[str] = frozenset()
        self._model_cache = ModelCache(name, self._models)
        self.worker: Worker | None = None
        self._intake: Intake | None = None
        self._control_rounds: ControlRounds | None = None

    def stop(self) -> None:
        """Request the stop; decoded records are committed first."""
        self._stop.set()
        self._wakeup.ask(urgent=True)

    @property
    def stopping(self) -> bool:
        """Return whether a stop was requested."""
        return self._stop.is_set()

    @property
    def current_outages(self) -> tuple[Outage, ...]:
        """Return the present outages of the source."""
        return self.outages.current()

    @property
    def waiting_partitions(self) -> tuple[WaitingPartition, ...]:
        """Return the partitions that have records and have not moved for some time."""
        return () if self.worker is None else self.worker.find_waiting()

    @property
    def stuck_threads(self) -> tuple[StuckThread, ...]:
        """Return the threads that have completed no round for some time, while the stream runs."""
        worker, intake, control = self.worker, self._intake, self._control_rounds
        if self.phase != "running" or self._stop.is_set() or worker is None or intake is None or control is None:
            return ()
        rounds_s = {"polling": intake.last_round_s, "worker": worker.last_round_s, "control": control.progressed_s}
        return find_stuck_threads(rounds_s, time.monotonic())

    def lag_events(self) -> int | None:
        """Return the offsets that are not stored yet, over the partitions of this process; None if it is unknown."""
        return None if self._intake is None else self._intake.lag_events()

    def stuck_s(self) -> float:
        """Return the seconds that records have waited without a commit; 0 without waiting records."""
        return 0.0 if self.worker is None else self.worker.stuck_s()

    def run(self) -> None:
        """Run the stream in this thread until it ends."""
        try:
            state = self._retry_until_answered(self._open_stream)
            model = None if state is None else self._wait_for_model(state)
            if state is not None and model is not None:
                self._run_threads(state, model)
        except Exception as failure:  # noqa: BLE001 - the worker loop: an error ends this run of the stream, with its reason
            self._fail(failure)
        finally:
            self._release_all()

    def _release_all(self) -> None:
        """Join the threads and release the lease, also after an error at any point of the run.

        The lease is released last: another process, or the next run of the stream, then takes over at once.
        """
        for thread in self._threads:
            if thread.is_alive():
                self.stop()
                thread.join()
        if self._stdin_source is not None:
            self._stdin_source.close()
        try:
            self._shared.leave()
            Leases(self._db).release(f"control:{self.name}", self._owner)
        except StorageUnavailable as error:
            log.warning("Stream %s: %s; the lease will expire.", self.name, error, extra={"action": "stop"})

    def _fail(self, failure: BaseException) -> None:
        self.failure = self.failure or failure
        self.stop()

    def _retry_until_answered(self, call: Callable[[], T]) -> T | None:
        """Call until broker and database answer and return the result; None when a stop is requested."""
        while not self._stop.is_set():
            try:
                answer = call()
                self.outages.update(None)
                return answer
            except (BrokerUnavailable, StorageUnavailable) as error:
                if isinstance(error, BrokerUnavailable):
                    self.outages.update(error)
                log.warning(
                    "Stream %s: %s; trying again.",
                    self.name,
                    error,
                    extra={"action": "start", "stream": self.name},
                )
                self._stop.wait(_BACKOFF_S)
        return None

    def _open_stream(self) -> StreamState:
        """Store the stream, its settings and the positions of all its partitions before the first commit."""
        state = self._ledger.open_stream(self.name, window_size_us=self._rules.size_us, lead_us=self._rules.lead_us)
        self._shared.join(state.id)
        self._follow_stored_settings()
        with self._open_reader(state.id) as source:
            partitions = register_sources(self._ledger, self.name, state.id, source, self._stream_settings)
            self._topics = frozenset(each.partition.topic for each in partitions)
            self._layout = source.layout
        return state

    def _follow_stored_settings(self) -> None:
        self._schedule = self._shared.read_rules()
        self._rules = self._schedule.newest
        self._stream_settings = self._shared.effective().streams[self.name]

    @contextlib.contextmanager
    def _open_reader(self, stream_id: int) -> Iterator[Source]:
        """Open a source outside of any consumer group; standard input opens only once and stays open for the intake."""
        source = self._stdin_source or self._open_source(stream_id, group=False)
        if reads_stdin(self._stream_settings):
            self._stdin_source = source
        try:
            yield source
        finally:
            if self._stdin_source is None:
                source.close()

    def _open_source(self, stream_id: int, *, group: bool) -> Source:
        sources = self._ledger.active_sources(stream_id)
        identity = sources[0].identity if sources else None
        return open_source(self.name, self._settings, group=group, identity=identity)

    def _wait_for_model(self, state: StreamState) -> ModelRecord | None:
        """Return the active model; without one warm up, or wait for the process that does."""
        lease = Lease(Leases(self._db), f"control:{self.name}", self._owner)
        while not self._stop.is_set():
            model = self._retry_until_answered(lambda: self._models.active(state.id))
            if model is not None or self._stop.is_set():
                return model
            self.phase = "warming_up"
            if self._retry_until_answered(lease.renew):
                self._retry_until_answered(lambda: self._warm_up(state, lease))
            else:
                self._stop.wait(_MODEL_CHECK_INTERVAL_S)
        return None

    def _warm_up(self, state: StreamState, lease: Lease) -> None:
        warm_up = WarmUp(
            self.name,
            state.id,
            self._stream_settings,
            self._models,
            stop=self._stop,
            renew=lease.renew,
            note_problem=self.outages.update,
            longest_look_back=self._settings.retention.windows,
        )
        with self._open_reader(state.id) as source:
            positions = stored_positions(self._ledger, state.id)
            warm_up.run(source, positions, assigned=frozenset(positions) if self._stdin_source else frozenset())

    def _run_threads(self, state: StreamState, model: ModelRecord) -> None:
        self._retry_until_answered(self._follow_stored_settings)  # the first model has found those that are auto
        self._warn_of_other_features(model)
        assigned: Mapping[Partition, Position] | None = {}
        if self._stdin_source is not None:
            assigned = self._retry_until_answered(lambda: stored_positions(self._ledger, state.id))
        if assigned is None:
            return
        drained = threading.Event()
        retry = StorageRetry(self._stop, DRAIN_TIMEOUT_S)
        self._intake = intake = Intake(
            stream_id=state.id,
            owner=self._owner,
            open_source=lambda: self._stdin_source or self._open_source(state.id, group=self._db.dialect != "sqlite"),
            assigned=frozenset(assigned),
            ledger=self._ledger,
            now_us=self._commits.now_us,
            inbox=self._inbox,
            stop=self._stop,
            drained=drained,
            drain_timeout_s=DRAIN_TIMEOUT_S,
            outages=self.outages,
            counters=self._counters,
        )
        self.worker = worker = Worker(
            self._rules,
            state.id,
            codec=self._get_codec(model),
            read_settings=lambda: self._read_worker_settings(model),
            ledger=self._ledger,
            shadows=ShadowStore(self._commits),
            inbox=self._inbox,
            scorer=Scorer(
                lambda model_id: load_model(
                    *retry.retry_until_answered(lambda: self._models.load(model_id)), self._device
                )
            ),
            features=model.feature_names,
            intake=intake,
            ask_control=lambda need: self._wakeup.ask(urgent=need is ControlNeed.NOW),
            retry=retry,
            read_derives=lambda: self._models.derives(state.id),
            n_streams=len(self._settings.streams),
            counters=self._counters,
        )
        self._threads = [
            self._make_thread("intake", intake.run),
            self._make_thread("worker", lambda: self._run_worker(worker, drained)),
            self._make_thread("control", lambda: self._run_control(state, worker)),
        ]
        for thread in self._threads:
            thread.start()
        self.phase = "running"
        for thread in self._threads:
            thread.join()

    def _read_worker_settings(self, model: ModelRecord) -> WorkerSettings:
        rules = self._shared.read_rules().newest
        self._stream_settings = self._shared.effective().streams[self.name]
        return WorkerSettings(rules=rules, codec=self._get_codec(model))

    def _get_codec(self, model: ModelRecord) -> Codec:
        """Return the codec of the present settings, the same object until a setting of the decoding changes."""
        settings = self._stream_settings
        decoding = (settings.event.model_copy(update={"features": "auto"}), settings.window.max_future)
        if self._decoding is None or self._decoding[0] != decoding:
            codec = make_codec(
                settings.event,
                model.feature_names,
                layout=self._layout,
                max_future_us=to_us(settings.window.max_future),
            )
            self._decoding = (decoding, codec)
        return self._decoding[1]

    def _warn_of_other_features(self, model: ModelRecord) -> None:
        """Warn if the configured features differ from the model's, which were fixed when it was fitted."""
        configured = self._stream_settings.event.features
        if configured != "auto" and set(configured) != set(model.feature_names):
            log.warning(
                "Stream %s: event.features differs from the %d features of model %d, which keeps its own; "
                "`outrider fit %s` fits a model with the configured features.",
                self.name,
                len(model.feature_names),
                model.version,
                self.name,
                extra={"action": "start", "stream": self.name},
            )

    def _make_thread(self, role: str, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception as failure:  # noqa: BLE001 - the worker loop, see `run`
                self._fail(failure)
                self._inbox.put(ControlChanged())

        return threading.Thread(target=run, name=f"{self.name}-{role}", daemon=True)

    def _run_worker(self, worker: Worker, drained: threading.Event) -> None:
        try:
            worker.run()
        finally:
            drained.set()

    def _run_control(self, state: StreamState, worker: Worker) -> None:
        """Seal, judge and tick while this process holds the lease; stop the stream when no work remains."""
        lease = Lease(Leases(self._db), f"control:{self.name}", self._owner)
        self._control_rounds = rounds = ControlRounds(lease.renew)
        windows, thresholds = WindowStore(self._db), ThresholdStore(self._db)
        reader = RuleReader(self._schedule, self._shared.read_rules)
        plane = ControlPlane(
            self._rules,
            state.id,
            stores=ControlPlaneStores(
                windows=windows,
                thresholds=thresholds,
                drift=DriftStore(self._db),
                evidence=EvidenceStore(self._db),
                refits=RefitStore(self._db),
                keys=EvidenceStore(self._db),
                rollups=RollupStore(self._db),
            ),
            models=self._model_cache,
            now_us=lambda: time.time_ns() // 1_000,
            renew=rounds.renew,
            notify_sealed=lambda: self._inbox.put(ControlChanged()),
            rule_reader=reader,
            fitter=ChildFitter(),
            model_settings=lambda: self._stream_settings.model,
        )
        promoter = Promoter(
            self._rules,
            state.id,
            shadows=ShadowStore(self._db),
            models=self._models,
            thresholds=thresholds,
            reference=self._model_cache.reference,
            rules_at=reader.at,
        )
        retirement = SourceRetirement(self._ledger, self.name, state.id, self._topics)
        steps = (retirement.run_due, lambda: self._run_timed(plane), promoter.run_due)
        try:
            self._wakeup.wait()
            while not self._stop.is_set():
                if self._run_steps(
                    steps, rounds, lease, lambda: worker.ended and windows.all_ended(state.id), lambda: plane.is_fitting
                ):
                    self.stop()
                self._wakeup.wait()
            self._finish_control(plane)
        finally:
            plane.close()

    def _run_steps(
        self,
        steps: Sequence[Callable[[], bool]],
        rounds: ControlRounds,
        lease: Lease,
        all_ended: Callable[[], bool],
        is_busy: Callable[[], bool],
    ) -> bool:
        """Run the due steps; return True when every source has ended, no work remains and the lease is held."""
        rounds.start()
        try:
            ended = all_ended()
            moved = [step() for step in steps] if (held := lease.renew()) else []
            rounds.complete()
            if not held:
                return False
            if any(moved):
                if ended:
                    self._wakeup.ask(urgent=False)
                return False
            return lease.renew() and ended and not is_busy()
        except StorageUnavailable as error:
            log.warning(
                "Stream %s: %s; trying again.",
                self.name,
                error,
                extra={"action": "control", "stream": self.name},
            )
            self._stop.wait(_BACKOFF_S)
            return False

    def _run_timed(self, plane: ControlPlane) -> bool:
        started_s = time.monotonic()
        moved = plane.run_due()
        if moved:
            self._counters.stages["judge"].add(time.monotonic() - started_s)
        return moved

    def _finish_control(self, plane: ControlPlane) -> None:
        for thread in self._threads[:2]:
            thread.join(DRAIN_TIMEOUT_S)
        try:
            plane.run_due()
        except StorageUnavailable as error:
            log.warning("Stream %s: %s; the next run continues.", self.name, error, extra={"action": "stop"})


def reads_stdin(settings: StreamSettings) -> bool:
    """Return whether a stream reads standard input, which can be opened only once."""
    return settings.source.type == "file" and settings.source.is_stdin
