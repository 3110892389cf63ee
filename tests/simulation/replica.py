"""One replica of the daemon: the real intake, worker and control plane of a stream, each an actor of the simulation."""

import contextlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from config.errors import StorageUnavailable
from config.settings import Settings
from consumers.batch import RawBatch
from consumers.codec import Codec, make_codec
from consumers.decoded_batch import NO_TIME_US, DecodedBatch, FilteredRecords
from monitor.control_plane.control_plane import ControlPlane, ControlPlaneStores
from monitor.control_plane.model_cache import ModelCache
from monitor.control_plane.rule_reader import RuleReader
from monitor.daemon.shared_settings import SharedSettings, review_settings
from monitor.models.scoring import Scorer, load_model
from monitor.pipeline.control_reader import WorkerSettings
from monitor.pipeline.inbox import ControlChanged, Inbox
from monitor.pipeline.intake import Intake
from monitor.pipeline.outages import Outages
from monitor.pipeline.retry import StorageRetry
from monitor.pipeline.worker import Worker
from storage.control.drift import DriftStore
from storage.control.evidence import EvidenceStore
from storage.control.models import ModelStore
from storage.control.rollups import RollupStore
from storage.control.settings import SettingsStore
from storage.control.shadows import ShadowStore
from storage.control.thresholds import ThresholdStore
from storage.control.windows import WindowStore
from storage.ledger.ledger import Ledger
from tests.simulation.actor import Actor, ActorLock
from tests.simulation.clock import SimulatedEvent
from tests.simulation.database import SimulatedDatabase
from tests.simulation.log import ConsumerGroup, GroupSource
from tests.simulation.scenes import FEATURES, FILTERED_X, MAX_FUTURE_US

Role = Literal["intake", "worker", "control"]
_BEAT_INTERVAL_S = 3.0
ROLES: tuple[Role, ...] = ("intake", "worker", "control")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedStream:
    """The stream that the replicas run."""

    stream_id: int
    name: str
    group: ConsumerGroup


class Replica:
    """A process of the daemon. `kill` loses its memory; a new `Replica` of the same member is its restart."""

    def __init__(
        self, db: SimulatedDatabase, stream: SimulatedStream, member: int, owner: str, settings: Settings
    ) -> None:
        self.db = db
        self.member = member
        self.source = GroupSource(stream.group, member)
        self.moved = True
        self.shared = SharedSettings(settings, stream.name, SettingsStore(db), owner=owner)
        self.shared._lock = ActorLock()  # type: ignore[assignment]
        self.shared.join(stream.stream_id)
        self._next_beat_s = db.clock.monotonic_s() + _BEAT_INTERVAL_S
        schedule = self.shared.read_rules()
        stop = SimulatedEvent(db.clock)
        inbox, ledger, models, retry = Inbox(), Ledger(db), ModelStore(db), StorageRetry(stop, 0.0)
        self.intake = Intake(
            stream_id=stream.stream_id,
            owner=owner,
            open_source=lambda: self.source,
            ledger=ledger,
            now_us=db.now_us,
            inbox=inbox,
            stop=stop,
            drained=stop,
            drain_timeout_s=0.0,
            outages=Outages(db.clock.monotonic_s),
            clock=db.clock.monotonic_s,
        )
        event = settings.streams[stream.name].event
        codec = FilteringCodec(make_codec(event, FEATURES, layout="lines", max_future_us=MAX_FUTURE_US))
        self.worker = Worker(
            schedule.newest,
            stream.stream_id,
            codec=codec,
            read_settings=lambda: WorkerSettings(rules=self.shared.read_rules().newest, codec=codec),
            features=FEATURES,
            scorer=Scorer(
                lambda model_id: load_model(*retry.retry_until_answered(lambda: models.load(model_id)), "cpu")
            ),
            ledger=ledger,
            shadows=ShadowStore(db),
            inbox=inbox,
            intake=self.intake,
            ask_control=lambda _: None,
            retry=retry,
            read_derives=lambda: models.derives(stream.stream_id),
            clock=db.clock.monotonic_s,
        )
        self.plane = ControlPlane(
            schedule.newest,
            stream.stream_id,
            stores=ControlPlaneStores(
                windows=WindowStore(db),
                thresholds=ThresholdStore(db),
                drift=DriftStore(db),
                evidence=EvidenceStore(db),
                keys=EvidenceStore(db),
                rollups=RollupStore(db),
            ),
            models=ModelCache(stream.name, models),
            now_us=db.clock.read_us,
            renew=lambda: True,  # every replica runs the control plane: the lease only avoids double work
            notify_sealed=lambda: inbox.put(ControlChanged()),
            rule_reader=RuleReader(schedule, self.shared.read_rules),
        )
        turns = {"intake": self._poll, "worker": self._work, "control": self._run_control}
        self._actors = {role: Actor(f"{owner}-{role}", turns[role]) for role in ROLES}

    def resume(self, role: Role) -> None:
        """Run one thread of the replica up to its next transaction or the end of its turn."""
        self._actors[role].resume()

    def run_turn(self, role: Role) -> None:
        """Run one thread of the replica to the end of its turn."""
        self._actors[role].run_turn()

    def kill(self) -> None:
        """End the process; what it holds in memory is lost."""
        for actor in self._actors.values():
            actor.kill()

    def _poll(self) -> None:
        self.intake.run_once(self.source)

    def _work(self) -> None:
        self.worker.run_once(0.0)

    def _run_control(self) -> None:
        with contextlib.suppress(StorageUnavailable):  # the loop of the stream runner tries again
            self.moved = True
            if self.db.clock.monotonic_s() >= self._next_beat_s:
                review_settings(SettingsStore(self.db), [self.shared])
                self._next_beat_s = self.db.clock.monotonic_s() + _BEAT_INTERVAL_S
            self.moved = self.plane.run_due()


@dataclass(frozen=True, slots=True)
class FilteringCodec:
    """A codec with a filter: events with the feature `FILTERED_X` are left out, one in three without a valid time."""

    inner: Codec

    def decode(self, batch: RawBatch, now_us: int) -> DecodedBatch:
        """Decode a batch and apply the filter."""
        decoded = self.inner.decode(batch, now_us)
        events = decoded.events
        left_out = events.features[:, 0] == FILTERED_X
        if not left_out.any():
            return decoded
        filtered = events.filter(left_out)
        return replace(
            decoded,
            events=events.filter(~left_out),
            filtered=FilteredRecords(
                offsets=filtered.offsets,
                times_us=np.where(filtered.features[:, 1] == 0, NO_TIME_US, filtered.times_us),
                batch_offsets=filtered.batch_offsets,
                has_append_time=filtered.has_append_time,
            ),
        )
