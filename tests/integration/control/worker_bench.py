"""A stream with a fitted model and a worker that a test feeds with batches."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import sqlalchemy as sa

from config.stream_rules import StreamRules
from config.streams import EventSettings, ModelSettings
from consumers.batch import Partition, RawBatch
from consumers.codec import Codec, RecordFilter, make_codec
from consumers.decoded_batch import Events
from monitor.models.fitting import FittedModel, fit_model
from monitor.models.scoring import Scorer, load_model
from monitor.models.training_history import find_history
from monitor.models.training_set import TrainingSet
from monitor.pipeline.control_reader import WorkerSettings
from monitor.pipeline.inbox import Inbox, PartitionClaimed, RecordsFetched, StopRequested
from monitor.pipeline.intake import ReclaimRequest
from monitor.pipeline.retry import StorageRetry
from monitor.pipeline.worker import Worker
from monitor.thresholds.tick import build_first_threshold
from storage.control.models import ModelRecord, ModelStore
from storage.control.shadows import ShadowStore
from storage.database.engine import Database
from storage.database.tables import positions, streams
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource, SourceClaim
from tests.rules import make_rules

T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SECOND = 1_000_000
MINUTE = 60 * SECOND
NAMES = ("x", "y")
TOPIC = "payments"
RULE = make_rules(size_us=MINUTE, grace_us=10 * SECOND, ahead_us=10 * MINUTE, max_future_us=None)
PERCENTILE = 99.0


@lru_cache(maxsize=4)
def fit_small_model(seed: int = 0) -> FittedModel:
    """Return a mixture of one component, fitted on 400 events."""
    features = np.random.default_rng(seed).normal(size=(400, 2)).astype(np.float32)
    training = TrainingSet(features=features, names=NAMES, rejected=0, exhausted=False)
    return fit_model(training, ModelSettings(n_components=1))


@lru_cache(maxsize=2)
def fit_deriving_model() -> FittedModel:
    """Return a mixture of one component on x, y, their changes and their roughness, fitted on 400 events."""
    times_us = T0 + np.arange(400) * SECOND
    features = np.random.default_rng(0).normal(size=(400, 2))
    events = Events(offsets=np.arange(400), times_us=times_us, features=features)
    history = find_history([events], EventSettings(derive=NAMES), NAMES)
    training = TrainingSet(features=features, names=NAMES, rejected=0, exhausted=False, history=history)
    return fit_model(training, ModelSettings(n_components=1))


def add_model(
    db: Database, stream_id: int, seed: int = 0, *, only_first: bool = False, model: FittedModel | None = None
) -> ModelRecord | None:
    """Store a fitted model and activate it."""
    model = model or fit_small_model(seed)
    return ModelStore(db).add(
        stream_id,
        model.new_model,
        lambda model_id, activation: build_first_threshold(model.reference, model_id, activation, PERCENTILE),
        only_first=only_first,
    )


def partition(number: int = 0) -> Partition:
    return Partition(topic=TOPIC, partition=number)


def open_stream(
    db: Database,
    partitions: int = 1,
    rules: StreamRules = RULE,
    name: str = "payments",
    model: FittedModel | None = None,
) -> int:
    """Store a stream with a model and partitions; return its id."""
    ledger = Ledger(db)
    stream = ledger.open_stream(name, rules.size_us, rules.lead_us)
    ledger.register_sources(
        stream.id, [NewSource(topic=TOPIC, partition=p, identity="log", next_offset=0) for p in range(partitions)]
    )
    add_model(db, stream.id, only_first=True, model=model)
    return stream.id


def seal(db: Database, stream_id: int, until_us: int, *, revisions: int = 0) -> None:
    """Seal a stream as the control plane does."""
    with db.write() as conn:
        moved = {"sealed_until_us": until_us, "revision": streams.c.revision + revisions}
        conn.execute(sa.update(streams).where(streams.c.id == stream_id).values(moved))


def fetch_rows(db: Database, query: str) -> list[tuple[object, ...]]:
    with db.read() as conn:
        return [tuple(row) for row in conn.exec_driver_sql(query)]


def count_rows(db: Database, table: str) -> int:
    return int(str(fetch_rows(db, f"SELECT count(*) FROM {table}")[0][0]))


def encode_event(time_us: int, x: float = 0.1, y: float = 0.2) -> bytes:
    return json.dumps({"x": x, "y": y, "ts": time_us / SECOND}).encode()


def raw_batch(
    values: Sequence[bytes | None], begin: int = 0, of: Partition | None = None, **others: object
) -> RawBatch:
    """Return consecutive records of one partition."""
    n = len(values)
    fields: dict[str, object] = {"end": begin + n, "offsets": np.arange(begin, begin + n, dtype=np.int64)}
    return RawBatch(partition=of or partition(), begin=begin, values=values, **(fields | others))  # type: ignore[arg-type]


def event_batch(times_us: Iterable[int], begin: int = 0, of: Partition | None = None) -> RawBatch:
    return raw_batch([encode_event(time_us) for time_us in times_us], begin, of)


@dataclass
class WorkerBench:
    """A worker with its inbox, its reclaim requests and its published positions."""

    db: Database
    stream_id: int
    rules: StreamRules = RULE
    idle_timeout_s: float = 60.0
    drain_timeout_s: float = 20.0
    record_filter: RecordFilter | None = None
    fields: tuple[str, ...] = NAMES
    changed: WorkerSettings | None = None
    reclaims: list[ReclaimRequest] = field(default_factory=list)
    published: dict[Partition, int] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.db)
        self.inbox = Inbox()
        self.codec = self.make_codec()
        self.worker = Worker(
            replace(self.rules, idle_timeout_us=round(self.idle_timeout_s * SECOND)),
            self.stream_id,
            codec=self.codec,
            features=NAMES,
            scorer=Scorer(lambda model_id: load_model(*ModelStore(self.db).load(model_id), "cpu")),
            ledger=self.ledger,
            shadows=ShadowStore(self.db),
            inbox=self.inbox,
            intake=self,
            ask_control=lambda _: None,
            retry=StorageRetry(self.stop, self.drain_timeout_s),
            read_derives=lambda: ModelStore(self.db).derives(self.stream_id),
            read_settings=self._read_changed_settings,
        )

    def change_settings(self, rules: StreamRules, codec: Codec | None = None) -> None:
        """Give the stream other settings; without a codec the decoding stays the same."""
        self.changed = WorkerSettings(rules=rules, codec=codec or self.codec)
        with self.db.write() as conn:
            conn.execute(sa.update(streams).values(settings_revision=streams.c.settings_revision + 1))

    def _read_changed_settings(self) -> WorkerSettings:
        assert self.changed is not None
        return self.changed

    def make_codec(self, *, key: str = "k") -> Codec:
        """Return a codec of JSON records."""
        event = EventSettings.model_validate({"time": {"field": "ts", "unit": "s"}, "key": key})
        return make_codec(
            event, self.fields, layout="lines", max_future_us=5 * MINUTE, record_filter=self.record_filter
        )

    def request_reclaim(self, request: ReclaimRequest) -> None:
        self.reclaims.append(request)

    def set_positions(self, positions: Mapping[Partition, int]) -> None:
        self.published.update(positions)

    def claim(self, number: int = 0, owner: str = "me") -> SourceClaim:
        """Claim a partition and put the message into the inbox, as the intake does."""
        source = next(each for each in self.ledger.active_sources(self.stream_id) if each.partition == number)
        claim = self.ledger.claim_source(source.source_id, owner)
        assert claim is not None
        self.inbox.put(PartitionClaimed(partition=partition(number), claim=claim))
        return claim

    def feed(self, claim: SourceClaim, *batches: RawBatch) -> None:
        for each in batches:
            self.inbox.put(RecordsFetched(epoch=claim.epoch, batch=each))

    def finish(self) -> None:
        """Run the worker in this thread until it has processed the inbox."""
        self.inbox.put(StopRequested())
        self.worker.run()

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self.worker.run, daemon=True)
        thread.start()
        return thread

    def end(self, thread: threading.Thread, within_s: float = 30) -> None:
        self.inbox.put(StopRequested())
        thread.join(within_s)
        assert not thread.is_alive(), "the worker did not stop"

    def position(self, number: int = 0) -> sa.Row[tuple[object, ...]]:
        source = next(each for each in self.ledger.active_sources(self.stream_id) if each.partition == number)
        with self.db.read() as conn:
            return conn.execute(sa.select(positions).where(positions.c.source_id == source.source_id)).one()


def wait_until(condition: Callable[[], bool], within_s: float = 30) -> None:
    """Wait until a condition is true; fail after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    gate = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{within_s:g} s passed"
        gate.wait(0.02)
