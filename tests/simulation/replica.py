"""One replica of the daemon: the real intake, worker and control plane of a stream, each an actor of the simulation."""

import contextlib
from dataclasses import dataclass
from typing import Literal

from config.errors import StorageUnavailable
from config.stream_rules import StreamRules
from config.streams import EventSettings
from consumers.codec import make_codec
from monitor.control_plane.control_plane import ControlPlane, ControlPlaneStores
from monitor.control_plane.model_cache import ModelCache
from monitor.models.scoring import Scorer, load_model
from monitor.pipeline.inbox import ControlChanged, Inbox
from monitor.pipeline.intake import Intake
from monitor.pipeline.outages import Outages
from monitor.pipeline.retry import StorageRetry
from monitor.pipeline.worker import Worker
from storage.control.drift import DriftStore
from storage.control.evidence import EvidenceStore
from storage.control.models import ModelStore
from storage.control.shadows import ShadowStore
from storage.control.thresholds import ThresholdStore
from storage.control.windows import WindowStore
from storage.ledger.ledger import Ledger
from tests.simulation.actor import Actor
from tests.simulation.clock import SimulatedEvent
from tests.simulation.database import SimulatedDatabase
from tests.simulation.log import ConsumerGroup, GroupSource

FEATURES = ("x", "y")
EVENT = EventSettings.model_validate({"time": {"field": "ts", "unit": "us"}})

Role = Literal["intake", "worker", "control"]
ROLES: tuple[Role, ...] = ("intake", "worker", "control")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedStream:
    """The stream that the replicas run."""

    stream_id: int
    rules: StreamRules
    group: ConsumerGroup


class Replica:
    """A process of the daemon. `kill` loses its memory; a new `Replica` of the same member is its restart."""

    def __init__(self, db: SimulatedDatabase, stream: SimulatedStream, member: int, owner: str) -> None:
        self.db = db
        self.member = member
        self.source = GroupSource(stream.group, member)
        self.moved = True
        self._stream = stream
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
        self.worker = Worker(
            stream.rules,
            stream.stream_id,
            codec=make_codec(EVENT, FEATURES, layout="lines", max_future_us=stream.rules.max_future_us or 0),
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
            clock=db.clock.monotonic_s,
        )
        self.plane = ControlPlane(
            stream.rules,
            stream.stream_id,
            stores=ControlPlaneStores(
                windows=WindowStore(db),
                thresholds=ThresholdStore(db),
                drift=DriftStore(db),
                evidence=EvidenceStore(db),
            ),
            models=ModelCache(stream.rules.stream, models),
            now_us=db.clock.read_us,
            renew=lambda: True,  # every replica runs the control plane: the lease only avoids double work
            notify_sealed=lambda: inbox.put(ControlChanged()),
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
            self.moved = self.plane.run_due()
