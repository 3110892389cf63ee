"""A simulated stream in one process: commits of several sources, seals, judgements and ticks in any order of steps.

The steps are those of the daemon (`Worker`, `ControlPlane`) on a real database. The scenes plant incidents; kills, lost
answers and other replicas between two transactions are those of `tests.simulation`.
"""

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa

from config.stream_rules import ALWAYS_US, RuleSchedule, StreamRules
from config.streams import ModelSettings
from config.units import to_us
from consumers.batch import Partition, RawBatch
from consumers.decoded_batch import DeadLetters, DecodedBatch, Events
from monitor.control_plane.control_plane import ControlPlane, ControlPlaneStores
from monitor.control_plane.model_cache import ModelCache
from monitor.control_plane.rule_reader import RuleReader
from monitor.incidents.explain import FeatureReasons
from monitor.models.refit_fit import InProcessFitter
from monitor.models.scoring import Scorer, load_model
from monitor.pipeline.inbox import Inbox, PartitionClaimed, PartitionEnded, RecordsFetched
from monitor.pipeline.intake import ReclaimRequest
from monitor.pipeline.partition_buffer import BufferState
from monitor.pipeline.retry import StorageRetry
from monitor.pipeline.worker import Worker
from storage.control.drift import DriftStore
from storage.control.evidence import EvidenceStore
from storage.control.models import ModelStore
from storage.control.records import OpenWindow
from storage.control.refits import RefitStore
from storage.control.rollups import RollupStore
from storage.control.shadows import ShadowStore
from storage.control.thresholds import ThresholdStore
from storage.control.windows import WindowStore
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from tests.integration.control.worker_bench import NAMES, PERCENTILE, SECOND, T0, open_stream, partition

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """The records of the sources and the settings.

    `fires` is True if the run has incidents; `kinds` are the kinds that must be among them.
    """

    rules: StreamRules
    refresh: timedelta | str
    look_back: timedelta
    sources: list[DecodedBatch]
    fires: bool = True
    kinds: frozenset[str] = frozenset()
    resolve_after: int = 2
    repeat: timedelta = timedelta(minutes=3)
    per_week: float = 1000.0
    drift_horizons: tuple[timedelta, ...] = (timedelta(minutes=10),)
    changes: tuple[tuple[int, Mapping[str, Any]], ...] = ()
    """Event times from which on some fields of the rules have other values, in order."""


def make_records(
    seed: int,
    *,
    n: int,
    span_s: int,
    number: int = 0,
    anomalous: tuple[float, float] | None = None,
    share: float = 0.125,
    factor: float = 9.0,
    moved: tuple[float, float] | None = None,
) -> DecodedBatch:
    """Return n records over `span_s` seconds: most in order, some late or far back, some dead letters.

    Between the two fractions of the span in `anomalous`, one event in eight (or another `share`) has `factor` times
    its features, and is an outlier; between the fractions in `moved`, the first feature is 1.5 standard deviations
    higher.
    """
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, span_s * SECOND, n)) + T0
    back = rng.random(n) < 0.1
    times[back] -= rng.choice([SECOND, 30 * SECOND, 300 * SECOND], int(back.sum()))
    features = rng.normal(size=(n, 2)).astype(np.float32)
    if anomalous is not None:
        low, high = (T0 + fraction * span_s * SECOND for fraction in anomalous)
        features[(times >= low) & (times < high) & (rng.random(n) < share)] *= factor
    if moved is not None:
        low, high = (T0 + fraction * span_s * SECOND for fraction in moved)
        features[(times >= low) & (times < high), 0] += 1.5
    dead = np.flatnonzero(rng.random(n) < 0.03)
    alive = np.setdiff1d(np.arange(n), dead)
    return DecodedBatch(
        partition=partition(number),
        begin=0,
        end=n,
        cursors=None,
        events=Events(offsets=alive.astype(np.int64), times_us=times[alive], features=features[alive]),
        dead_letters=DeadLetters(
            offsets=dead.astype(np.int64),
            end_offsets=dead.astype(np.int64) + 1,
            reasons=["not_json"] * len(dead),
            details=["-"] * len(dead),
            payloads=[None] * len(dead),
        ),
    )


def cut_batch(whole: DecodedBatch, begin: int, end: int) -> DecodedBatch:
    """Return the records [begin, end)."""
    a, b = np.searchsorted(whole.events.offsets, [begin, end])
    c, d = np.searchsorted(whole.dead_letters.offsets, [begin, end])
    return replace(
        whole, begin=begin, end=end, events=whole.events.slice(a, b), dead_letters=whole.dead_letters.slice(c, d)
    )


class SimulatedWriter:
    """The worker of one source, which reads the records of a scene; 10 s pass between its steps."""

    def __init__(self, db: Database, stream_id: int, scene: SimulationSettings, number: int) -> None:
        ledger = Ledger(db)
        self._whole = scene.sources[number]
        source = next(each for each in ledger.active_sources(stream_id) if each.partition == number)
        claim = ledger.claim_source(source.source_id, "simulation")
        assert claim is not None
        self._epoch, self._read = claim.epoch, claim.next_offset
        self._now_s = 0.0
        self._positions = {partition(number): claim.next_offset}
        self._inbox = Inbox()
        self._worker = Worker(
            make_rule_schedule(scene).newest,
            stream_id,
            codec=self,
            features=NAMES,
            scorer=Scorer(lambda model_id: load_model(*ModelStore(db).load(model_id), "cpu")),
            ledger=ledger,
            shadows=ShadowStore(db),
            inbox=self._inbox,
            intake=self,
            ask_control=lambda _: None,
            retry=StorageRetry(threading.Event(), 0.0),
            clock=lambda: self._now_s,
        )
        self._inbox.put(PartitionClaimed(partition=partition(number), claim=claim))
        self._worker.run_once(0.0)

    @property
    def ended(self) -> bool:
        """Return whether all records and the end of the source are stored."""
        return self._worker.ended

    def commit(self, n: int) -> bool:
        """Read up to n records unless some wait for their commit, and let the worker carry out its due steps.

        Return whether anything was read or committed.
        """
        if self.ended:
            return False
        self._now_s += 10.0
        before = (self._read, dict(self._positions))
        (buffer,) = self._worker._buffers.values()
        if buffer.state in {BufferState.CLAIMED, BufferState.UNDECIDED} and self._read < self._whole.end:
            self._fetch(min(self._read + n, self._whole.end))
        if self._read == self._whole.end and not buffer.ended:
            self._inbox.put(PartitionEnded(partition=buffer.partition, epoch=self._epoch, seen_us=0))
        self._worker.run_once(0.0)
        return self.ended or before != (self._read, self._positions)

    def _fetch(self, end: int) -> None:
        batch = RawBatch(
            partition=self._whole.partition,
            begin=self._read,
            end=end,
            offsets=np.arange(self._read, end),
            values=[None] * (end - self._read),
        )
        self._inbox.put(RecordsFetched(epoch=self._epoch, batch=batch))
        self._read = end

    def decode(self, batch: RawBatch, now_us: int) -> DecodedBatch:
        """Return the records of the scene, as the codec of the worker."""
        return cut_batch(self._whole, batch.begin, batch.end)

    def set_positions(self, positions: Mapping[Partition, int]) -> None:
        """Note the stored positions, as the intake of the worker."""
        self._positions.update(positions)

    def request_reclaim(self, request: ReclaimRequest) -> None:
        """Fail: a writer is replaced, and does not lose its claim."""
        raise AssertionError(request)


def make_control_plane(db: Database, stream_id: int, scene: SimulationSettings, *, early: bool = True) -> ControlPlane:
    """Return a control plane that always has its lease; without `early` it opens no incident before a seal."""
    return ControlPlane(
        make_simulation_rules(scene),
        stream_id,
        stores=ControlPlaneStores(
            windows=WindowStore(db) if early else SealedWindowStore(db),
            thresholds=ThresholdStore(db),
            drift=DriftStore(db),
            evidence=EvidenceStore(db),
            refits=RefitStore(db),
            keys=EvidenceStore(db),
            rollups=RollupStore(db),
        ),
        fitter=InProcessFitter(),
        model_settings=lambda: ModelSettings(n_components=1),
        models=UnexplainedModels("payments", ModelStore(db)),
        now_us=lambda: 0,
        renew=lambda: True,
        notify_sealed=lambda: None,
        rule_reader=RuleReader(make_rule_schedule(scene)),
    )


def make_simulation_rules(scene: SimulationSettings) -> StreamRules:
    """Return the rules of a simulated stream."""
    look_back_us = to_us(scene.look_back)
    return replace(
        scene.rules,
        config_hash="-",
        percentile=PERCENTILE,
        refresh=scene.refresh,
        look_back_us=look_back_us,
        adopt_after_us=look_back_us,
        per_week=scene.per_week,
        min_outliers=3,
        min_ratio=0.0,
        max_dead_letter_ratio=0.05,
        resolve_after=scene.resolve_after,
        repeat_interval_us=to_us(scene.repeat),
        horizons_us=tuple(to_us(horizon) for horizon in scene.drift_horizons),
        min_effect=0.1,
        max_age_us=2**62,
        channels=lambda kind, severity: ("ops",),
    )


def make_rule_schedule(scene: SimulationSettings) -> RuleSchedule:
    """Return the rules of a simulated stream over event time."""
    rows = [(ALWAYS_US, make_simulation_rules(scene))]
    for start_us, changed in scene.changes:
        rows.append((start_us, replace(rows[-1][1], **changed)))
    windows = tuple(replace(rules.windows[0], valid_from_us=start_us) for start_us, rules in rows)
    return RuleSchedule(
        revision=0, rows=tuple((start_us, replace(rules, window_changes=windows)) for start_us, rules in rows)
    )


class SealedWindowStore(WindowStore):
    """A store that shows no open window."""

    def first_open_window(self, stream_id: int) -> OpenWindow | None:
        """Return None."""
        return None


class UnexplainedModels(ModelCache):
    """Models that explain no events."""

    def explain(
        self,
        model_id: int,
        events: Sequence[Mapping[str, float]],
    ) -> Sequence[FeatureReasons]:
        """Return no reasons."""
        return [[] for _ in events]


def run_in_turn(db: Database, scene: SimulationSettings, n: int = 10**9) -> None:
    """Commit n records of each source in turn, and run the due steps of the control plane in between."""
    stream_id = open_stream(db, len(scene.sources), scene.rules)
    writers = [SimulatedWriter(db, stream_id, scene, number) for number in range(len(scene.sources))]
    plane = make_control_plane(db, stream_id, scene)
    quiet = 0
    while not all(writer.ended for writer in writers):
        moved = [writer.commit(n) for writer in writers]
        quiet = 0 if plane.run_due() or any(moved) else quiet + 1
        assert quiet < 3, "the simulation makes no progress"
    plane.run_due()


def run_at_random(db: Database, scene: SimulationSettings, seed: int) -> None:
    """Run single steps in a random order, with two lease holders, restarts of both planes and any cuts."""
    chance = random.Random(seed)
    stream_id = open_stream(db, len(scene.sources), scene.rules)
    writers = [SimulatedWriter(db, stream_id, scene, number) for number in range(len(scene.sources))]
    planes = [make_control_plane(db, stream_id, scene) for _ in range(2)]
    quiet = 0
    while not all(writer.ended for writer in writers):
        kind = chance.random()
        if kind < 0.02:
            planes[chance.randrange(2)] = make_control_plane(db, stream_id, scene)
        elif kind < 0.04:
            number = chance.randrange(len(writers))
            writers[number] = SimulatedWriter(db, stream_id, scene, number)
        elif kind < 0.6:
            writer = chance.choice(writers)
            quiet = 0 if writer.commit(chance.choice([1, 7, 60, 400])) else quiet + 1
        else:
            plane = chance.choice(planes)
            step = chance.choice(
                [
                    plane._judge_due_windows,
                    plane._run_drift_step,
                    plane._run_due_tick,
                    plane._run_refit_step,
                    plane._seal_windows,
                    plane._open_early_incident,
                ]
            )
            quiet = 0 if step() else quiet + 1
        assert quiet < 2_000, "the simulation makes no progress"
    while planes[0].run_due() or planes[1].run_due():
        pass


def read_decisions(db: Database) -> dict[str, Rows]:
    """Return the rows of all tables without the columns of the wall clock."""
    queries = {
        "scores": "SELECT s.source_id, s.source_offset, s.event_time_us, s.energy, t.valid_from_us, t.computed_at_us "
        "FROM scores s JOIN thresholds t ON t.id = s.threshold_id ORDER BY 1, 2",
        "windows": "SELECT w.window_start_us, w.window_end_us, w.events, w.outliers, w.late, w.dead, w.expected, "
        "w.p_value, w.energy_p50, w.energy_p99, w.energy_max, w.payload, w.details, w.judged_at_us IS NULL, "
        "t.computed_at_us, w.fires_at FROM windows w JOIN thresholds t ON t.id = w.threshold_id ORDER BY 1",
        "rollups": "SELECT resolution_us, start_us, end_us, windows, fired, events, outliers, late, dead, filtered, "
        "expected, most_outliers, fires_at, p_value, energy_p50, energy_p99, energy_max, model_version "
        "FROM window_rollups ORDER BY 1, 2",
        "refits": "SELECT due_us, state, model_id, gate_us, details FROM refits ORDER BY 1",
        "models": "SELECT version, kind, state, checksum, valid_from_us, summary FROM models ORDER BY 1",
        "shadow_windows": "SELECT model_id, window_start_us, window_end_us, events, outliers, outliers_of_both, "
        "payload FROM shadow_windows ORDER BY 1, 2",
        "samples": "SELECT window_start_us, window_end_us, model_id, events, payload FROM window_samples ORDER BY 1",
        "thresholds": "SELECT model_id, computed_at_us, valid_from_us, percentile, threshold, lower, upper, n, method, "
        "details FROM thresholds ORDER BY computed_at_us, id",
        "calibrations": "SELECT at_us, promised_per_week, realised_per_week, windows_learned, dispersion, exceedance, "
        "state FROM calibrations ORDER BY 1",
        "transitions": "SELECT i.kind, i.window_start_us, t.transition, t.window_start_us, t.at_us, t.summary, "
        "t.details FROM transitions t JOIN incidents i ON i.id = t.incident_id ORDER BY t.at_us, i.kind, t.id",
        "incidents": "SELECT kind, severity, status, window_start_us, opened_at_us, resolved_at_us, last_told_us, "
        "clean_windows, windows_fired, summary, details, contributions FROM incidents ORDER BY opened_at_us, kind, id",
        "drift_verdicts": "SELECT horizon, window_start_us, window_end_us, statistic, feature, before, after, effect, "
        'z, "limit", drifted FROM drift_verdicts ORDER BY id',
        "drift_bases": "SELECT horizon_us, season, from_us, until_us, base FROM drift_bases ORDER BY 4, 1, 2",
        "drift_days": "SELECT base_from_us, start_us, end_us, events, outliers, fired, hours, payload FROM drift_days "
        "ORDER BY 1, 2",
        "drift_cells": 'SELECT horizon_us, window_end_us, window_start_us, model_id, statistics, "limit", payload '
        "FROM drift_cells ORDER BY 1, 2",
        "drift_cell_names": "SELECT model_id, statistics, names FROM drift_cell_names ORDER BY 1, 2",
        "feature_summaries": "SELECT model_id, kind, horizon_us, from_us, until_us, sampled, payload "
        "FROM feature_summaries ORDER BY 1, 2, 3, 4",
        "drift_marks": "SELECT until_us, rebased_from_us, state FROM drift_marks",
        "notifications": "SELECT id, channel, state FROM notifications ORDER BY 1",
    }
    with db.read() as conn:
        return {name: [tuple(row) for row in conn.execute(sa.text(query))] for name, query in queries.items()}
