"""The control plane of a stream: judge windows, step drift, tick and seal in order of event time until nothing is due.

The decisions are pure functions of stored facts; this module reads the facts, calls the functions and stores the
results. Any process may run it at any time: the lease only avoids double work, while locks, guards and unique keys of
the database keep the rows correct.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.stream_rules import StreamRules
from config.streams import ModelSettings
from consumers.window_schedule import WindowSchedule, make_window_schedule
from monitor.control_plane.drift_step import DriftMonitor
from monitor.control_plane.judge import (
    expects_keys,
    judge_open_window,
    judge_window,
    needs_evidence,
    tracked_keys,
    wants_key_counts,
)
from monitor.control_plane.refit_step import RefitStep
from monitor.control_plane.rollup_step import RollupStep
from monitor.control_plane.rule_reader import RuleReader
from monitor.control_plane.seal import next_seal_us, pending_tick_us
from monitor.control_plane.stores import (
    DriftStoreProtocol,
    EvidenceStoreProtocol,
    KeyCountStoreProtocol,
    ModelsProtocol,
    RefitStoreProtocol,
    RollupStoreProtocol,
    ThresholdStoreProtocol,
    WindowStoreProtocol,
)
from monitor.incidents.calibration import find_calibration_problem
from monitor.incidents.effective_threshold import apply_to_window
from monitor.incidents.explain import build_evidence_details
from monitor.incidents.key_energies import EnergiesUnderTest
from monitor.incidents.lifecycle import Interval, Kind
from monitor.incidents.precision import PRECISION_SPAN_US, measure_precision
from monitor.incidents.rows import update_incident
from monitor.incidents.spike import evaluate_open_window
from monitor.incidents.window import ThresholdInForce
from monitor.models.refit_fit import Fitter
from monitor.schedule import tick_at_or_after
from monitor.statistics.part import Scale
from monitor.statistics.part_codec import decode_part
from monitor.statistics.rollup import ScoredBy
from monitor.statistics.season import SeasonState, load_season
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.look_back_cache import LookBackCache
from monitor.thresholds.season_learner import SeasonLearner
from monitor.thresholds.tick import (
    ThresholdResult,
    build_calibration_row,
    compute_tick_threshold,
    load_scale,
)
from storage.control.evidence import WindowKeys
from storage.control.records import Incident, OpenWindow, SealFacts, WindowFacts
from storage.control.thresholds import ThresholdRow, TickFacts

log = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
BUDGETED_KINDS = (Kind.SPIKE, Kind.SLOW_RISE, Kind.DRIFT)
"""The kinds of incidents that share the false-alarm budget `false_alarms`."""

_WINDOWS_PER_RENEWAL = 200
_ROLLUPS_PER_RUN = 40
"""Roll-ups of 15 minutes that one run stores: those of an older database must not delay the windows of now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneStores:
    """The stores of a control plane. Without `drift` it skips drift, without `evidence` incidents have none.

    Without `refits` no model is fitted again, without `keys` no key becomes habitual, without `rollups` windows are not
    summed up.
    """

    windows: WindowStoreProtocol
    thresholds: ThresholdStoreProtocol
    drift: DriftStoreProtocol | None = None
    evidence: EvidenceStoreProtocol | None = None
    refits: RefitStoreProtocol | None = None
    keys: KeyCountStoreProtocol | None = None
    rollups: RollupStoreProtocol | None = None


class ThresholdCalculator:
    """Computes the thresholds of ticks; a back-test shares the results between the cells of its grid."""

    def make_look_back(self, scale: Scale) -> LookBack:
        """Return an empty look-back for energies of a scale."""
        return LookBack(scale)

    def compute_threshold(
        self,
        previous: ThresholdRow,
        look_back: LookBack,
        clean: Sequence[int],
        reference: Float32,
        rules: StreamRules,
        *,
        tick_us: int,
        valid_from_us: int,
        most_events: int,
        season: SeasonState | None,
    ) -> ThresholdResult:
        """Return the threshold of a tick, its count model and the exceedance of the clean windows."""
        return compute_tick_threshold(
            previous,
            look_back,
            clean,
            reference,
            rules,
            tick_us=tick_us,
            valid_from_us=valid_from_us,
            most_events=most_events,
            season=season,
        )


class ControlPlane:
    """Runs the control plane of one stream; used by one thread.

    Args:
        rules: The rules of the stream.
        stream_id: The stream.
        stores: The stores of windows, thresholds, drift and evidence.
        models: The models of the stream.
        now_us: The wall clock, in microseconds since 1970.
        renew: Renews the lease; returns whether this process holds it.
        notify_sealed: Called after the stream was sealed further.
        calculator: Computes the thresholds of ticks.
        rule_reader: The rules over event time. None: `rules` are always valid.
        fitter: Starts the fits of refits; required with a store of refits.
        model_settings: Returns the present settings of the model, for refits.
    """

    def __init__(
        self,
        rules: StreamRules,
        stream_id: int,
        *,
        stores: ControlPlaneStores,
        models: ModelsProtocol,
        now_us: Callable[[], int],
        renew: Callable[[], bool],
        notify_sealed: Callable[[], None],
        calculator: ThresholdCalculator | None = None,
        rule_reader: RuleReader | None = None,
        fitter: Fitter | None = None,
        model_settings: Callable[[], ModelSettings] = ModelSettings,
    ) -> None:
        self._stream = rules.stream
        self._reader = rule_reader or RuleReader.constant(rules)
        self._stream_id = stream_id
        self._stores = stores
        self._models = models
        self._now_us = now_us
        self._renew = renew
        self._notify_sealed = notify_sealed
        self._calculator = calculator or ThresholdCalculator()
        self._drift = None
        if stores.drift is not None:
            self._drift = DriftMonitor(self._reader, stream_id, store=stores.drift, model=models.load, now_us=now_us)
        self._refits = None
        if stores.refits is not None and fitter is not None:
            self._refits = RefitStep(
                rules.stream,
                stream_id,
                reader=self._reader,
                store=stores.refits,
                thresholds=stores.thresholds,
                models=models,
                fitter=fitter,
                model_settings=model_settings,
            )
        self._rollups = None
        if stores.rollups is not None:
            self._rollups = RollupStep(stream_id, store=stores.rollups, scored_by=self._find_model)
        self._sealed_until_us: int | None = None
        self._thresholds: dict[int, ThresholdInForce] = {}
        self._look_back: LookBackCache | None = None
        self._season = SeasonLearner(stream_id)
        self._accepted: Float32 | None = None
        self._opened_early_us: int | None = None
        self._explained: tuple[int, int, float] | None = None
        self._open_start_us: int | None = None
        self._open_energies: dict[int, float] = {}

    def run_due(self) -> bool:
        """Run all due steps; return whether there was any.

        Stops early when the lease is lost.
        """
        changed = False
        rollups = 0
        while self._renew():
            if not (
                self._judge_due_windows()
                or self._run_drift_step()
                or self._run_due_tick()
                or self._run_refit_step()
                or self._seal_windows()
            ):
                if rollups == _ROLLUPS_PER_RUN or not self._roll_up_windows(changed=changed):
                    self._open_early_incident()
                    return changed
                rollups += 1
            changed = True
        return changed

    def _judge_due_windows(self) -> bool:
        """Judge the due windows in order; stop at a window with facts that have changed since they were read."""
        starts = self._stores.windows.due_windows(self._stream_id, limit=_WINDOWS_PER_RENEWAL)
        for start_us in starts:
            if not self._judge_window(start_us):
                break
        return bool(starts)

    def _judge_window(self, start_us: int) -> bool:
        """Judge a window; return False if its facts have changed since they were read.

        A window with an alarm is judged a second time, with the evidence, which is looked up outside of a transaction.
        """
        store = self._stores.windows
        facts = store.read_window(self._stream_id, start_us)
        if facts is None:
            return True  # another lease holder has judged it
        if facts.is_judged:
            store.add_late_parts(self._stream_id, start_us)
            return True
        rules = self._reader.follow(facts.settings_revision).at(start_us)
        keys = self._count_keys(facts) if wants_key_counts(facts) else None
        judgement = judge_window(facts, self._get_threshold, rules, self._now_us(), keys=keys)
        if self._stores.evidence is not None and needs_evidence(judgement.incidents):
            evidence = self._find_evidence(facts, self._stores.evidence)
            judgement = judge_window(facts, self._get_threshold, rules, self._now_us(), evidence, keys)
        return store.store_judgement(self._stream_id, self._stream, facts, judgement)

    def _open_early_incident(self) -> None:
        """Open the incident of the first open window if its counts exceed the threshold of the full window already."""
        store = self._stores.windows
        window = store.first_open_window(self._stream_id)
        if window is None or window.window_start_us == self._opened_early_us:
            return
        largest = self._find_largest_energy(window)
        if not self._has_grown(window, largest):
            return
        rules = self._reader.schedule.at(window.window_start_us)
        end_us = window.window_start_us + rules.size_us
        threshold = apply_to_window(self._get_threshold(window.threshold_id), window.window_start_us, end_us, {})
        tests = evaluate_open_window(
            threshold, window.events, window.outliers, EnergiesUnderTest(others=largest), rules
        )
        if tests is None or not tests.fires:
            return
        facts = store.read_window(self._stream_id, window.window_start_us)
        if facts is None or facts.is_judged:
            return
        rules = self._reader.follow(facts.settings_revision).at(window.window_start_us)
        keys = self._count_keys(facts) if expects_keys(facts) else None
        rows = judge_open_window(facts, self._get_threshold, rules, self._now_us(), keys=keys)
        if rows and self._stores.evidence is not None:
            evidence = self._find_evidence(facts, self._stores.evidence)
            rows = judge_open_window(facts, self._get_threshold, rules, self._now_us(), evidence, keys)
        if not rows:
            self._explained = (window.window_start_us, window.outliers, largest or 0.0)
        elif store.open_incidents_early(self._stream_id, self._stream, facts, rows):
            self._opened_early_us = window.window_start_us

    def _has_grown(self, window: OpenWindow, largest: float | None) -> bool:
        """Return whether an open window that was no spike is to be tested again: its keys are counted for that.

        It is with a larger energy, or an eighth more outliers.
        """
        if self._explained is None or self._explained[0] != window.window_start_us:
            return True
        _, outliers, energy = self._explained
        return (largest or 0.0) > energy or window.outliers >= outliers + max(outliers // 8, 1)

    def _find_largest_energy(self, window: OpenWindow) -> float | None:
        """Return the largest energy of the outliers of the first open window; only new parts are read."""
        start_us = window.window_start_us
        known = self._open_energies if self._open_start_us == start_us else {}
        if window.outliers:
            for part_id, payload in self._stores.windows.open_outlier_parts(self._stream_id, start_us, known):
                known[part_id] = float(decode_part(payload).top[0])
        self._open_start_us, self._open_energies = start_us, known
        return max(known.values(), default=None)

    def _count_keys(self, facts: WindowFacts) -> WindowKeys | None:
        """Look up the keys of a window; None without a store of them."""
        store = self._stores.keys
        if store is None or (not any(part.outliers for part in facts.parts) and not tracked_keys(facts)):
            return None
        return store.count_keys(facts.offset_ranges, facts.window_start_us, facts.window_end_us, tracked_keys(facts))

    def _find_evidence(self, facts: WindowFacts, store: EvidenceStoreProtocol) -> Mapping[str, Any]:
        """Look up the most anomalous events and the keys of a window, and explain them."""
        threshold_id = next(part.threshold_id for part in facts.parts if part.threshold_id is not None)
        threshold = self._get_threshold(threshold_id)
        evidence = store.find_evidence(facts.offset_ranges, facts.window_start_us, facts.window_end_us)
        model_id, rate = threshold.row.model_id, threshold.count_model.rate
        return build_evidence_details(facts, evidence, model_id=model_id, clean_rate=rate, explain=self._models.explain)

    def _run_drift_step(self) -> bool:
        return self._drift is not None and self._drift.run_due()

    def _seal_windows(self) -> bool:
        """Seal the windows that have passed. Other settings are read outside of the transaction that shows them."""
        revision = 0

        def decide(facts: SealFacts) -> int | None:
            nonlocal revision
            revision = facts.settings_revision
            self._sealed_until_us = facts.sealed_until_us
            if not self._reader.is_current(revision):
                return None
            return next_seal_us(facts, self._windows(), self._tick_at_or_after, self._find_refit_limit(facts))

        sealed = self._stores.windows.seal(self._stream_id, decide)
        if not self._reader.is_current(revision):
            self._reader.follow(revision)
            sealed = self._stores.windows.seal(self._stream_id, decide)
        if sealed is None:
            return False
        self._notify_sealed()
        return True

    def _roll_up_windows(self, *, changed: bool) -> bool:
        return self._rollups is not None and self._rollups.run_due(self._sealed_until_us, changed=changed)

    def _find_model(self, threshold_id: int) -> ScoredBy:
        threshold = self._get_threshold(threshold_id)
        return ScoredBy(model_id=threshold.row.model_id, version=threshold.model_version, scale=threshold.scale)

    def _run_refit_step(self) -> bool:
        if self._refits is None:
            return False
        return self._refits.run_due(finish_earlier=lambda: self._run_drift_step() or self._run_due_tick())

    def _find_refit_limit(self, facts: SealFacts) -> int | None:
        if self._refits is None:
            return None
        return self._refits.find_limit(facts.last_judged_end_us, facts.first_part_end_us)

    @property
    def is_fitting(self) -> bool:
        """Return whether a fit runs whose result the stream waits for."""
        return self._refits is not None and self._refits.is_fitting

    def close(self) -> None:
        """End a running fit; the next control plane of the stream begins it again."""
        if self._refits is not None:
            self._refits.close()

    def _windows(self) -> WindowSchedule:
        return make_window_schedule(self._reader.schedule.newest.windows)

    def _tick_at_or_after(self, event_time_us: int) -> int:
        return self._reader.schedule.find_tick(event_time_us, tick_at_or_after)

    def _run_due_tick(self) -> bool:
        """Run the tick after the last judged window, once all windows before the tick are sealed and judged."""
        store = self._stores.thresholds
        facts = store.tick_facts(self._stream_id)
        self._reader.follow(facts.settings_revision)
        ended_us = pending_tick_us(facts)
        if ended_us is None or facts.sealed_until_us is None:
            return False
        tick_us = self._tick_at_or_after(ended_us)
        if facts.sealed_until_us < self._windows().floor_us(tick_us):
            return False
        if facts.first_part_end_us is not None and facts.first_part_end_us <= tick_us:
            return False  # sealed by another lease holder and not judged yet
        if self._run_drift_step():
            return True  # the tick counts all earlier incidents, those of drift included
        newest = store.newest_threshold(self._stream_id)
        return newest is not None and self._store_tick(facts, newest, tick_us)

    def compute_tick(self, facts: TickFacts, newest: ThresholdRow, tick_us: int) -> ThresholdResult:
        """Return the threshold of a tick, its count model and the exceedance of the clean windows; store nothing.

        Args:
            facts: The facts of the tick.
            newest: The newest threshold row before the tick.
            tick_us: Event time of the tick.
        """
        rules, store = self._reader.schedule.at(tick_us), self._stores.thresholds
        cache = self._get_look_back(newest, facts.acceptances)
        refreshed = cache.refresh(store, tick_us, rules)
        first_us = self._windows().ceil_us(tick_us + facts.lead_us)
        return self._calculator.compute_threshold(
            newest,
            cache.look_back,
            refreshed.clean,
            self._models.load(newest.model_id).reference if self._accepted is None else self._accepted,
            rules,
            tick_us=tick_us,
            valid_from_us=max(first_us, newest.valid_from_us),
            most_events=refreshed.most_events,
            season=self._season.find_season(store, load_season(newest.details), tick_us, rules, facts.acceptances),
        )

    def carry_look_back(self, look_back: LookBackCache) -> None:
        """Use a look-back that was built before; it is used as long as its model and its acceptances hold."""
        self._look_back = look_back
        self._accepted = self._stores.thresholds.accepted_reference(look_back.model_id)

    def _store_tick(self, facts: TickFacts, newest: ThresholdRow, tick_us: int) -> bool:
        rules, store = self._reader.schedule.at(tick_us), self._stores.thresholds
        row, count_model, clean_share = self.compute_tick(facts, newest, tick_us)
        firings = store.count_firings(self._stream_id, BUDGETED_KINDS, tick_us - rules.look_back_us, tick_us)
        verdicts = store.count_verdicts(self._stream_id, BUDGETED_KINDS, tick_us - PRECISION_SPAN_US, tick_us)
        calibration = build_calibration_row(tick_us, row, count_model, clean_share, rules, firings)
        stored = store.store_tick(
            self._stream_id,
            last_tick_us=facts.last_tick_us,
            tick_us=tick_us,
            threshold=row,
            calibration=replace(calibration, verdicts=measure_precision(verdicts)),
            change=self._build_calibration_change(newest, row, tick_us, rules),
            acceptances=facts.acceptances,
        )
        if stored and (row.threshold != newest.threshold or row.method != newest.method):
            log.info(
                "Stream %s: the threshold is now %.4g (%s, from %d energies); it was %.4g.",
                rules.stream,
                row.threshold,
                row.method,
                row.n,
                newest.threshold,
                extra={"action": "threshold", "stream": rules.stream},
            )
        return stored

    def _build_calibration_change(
        self, newest: ThresholdRow, row: ThresholdRow, tick_us: int, rules: StreamRules
    ) -> Callable[[Sequence[Incident]], Sequence[Incident]]:
        """Return the function that updates the calibration incident; its lifecycle counts ticks."""
        assert newest.id is not None, "the newest threshold is read from the database"
        model_version = self._get_threshold(newest.id).model_version
        finding = find_calibration_problem(row, rules, tick_us, model_version=model_version)
        at = Interval(start_us=tick_us, end_us=tick_us)
        return lambda incidents: update_incident(
            Kind.CALIBRATION, finding, incidents, at, rules, now_us=self._now_us(), unit="ticks"
        )

    def _get_look_back(self, newest: ThresholdRow, acceptances: int) -> LookBackCache:
        """Return the cached look-back; build it again for another model and after an acceptance."""
        cache = self._look_back
        if cache is None or (cache.model_id, cache.acceptances) != (newest.model_id, acceptances):
            model_id = newest.model_id
            cache = self._look_back = LookBackCache(
                self._stream_id, model_id, load_scale(newest.details), acceptances, self._calculator.make_look_back
            )
            self._accepted = self._stores.thresholds.accepted_reference(newest.model_id)
        return cache

    def _get_threshold(self, threshold_id: int) -> ThresholdInForce:
        """Return a threshold row as judging uses it, cached: rows never change."""
        threshold = self._thresholds.get(threshold_id)
        if threshold is None:
            row = self._stores.thresholds.threshold(threshold_id)
            version = self._models.version(self._stream_id, row.model_id)
            threshold = ThresholdInForce.from_row(row, model_version=version)
            if len(self._thresholds) > _WINDOWS_PER_RENEWAL:
                self._thresholds.clear()
            self._thresholds[threshold_id] = threshold
        return threshold
