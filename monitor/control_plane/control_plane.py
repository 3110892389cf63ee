"""The control plane of a stream: judge windows, step drift, tick and seal in order of event time until nothing is due.

The decisions are pure functions of stored facts; this module reads the facts, calls the functions and stores the
results. Any process may run it at any time: the lease only avoids double work, while locks, guards and unique keys of
the database keep the rows correct.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.control_plane.drift_step import DriftMonitor
from monitor.control_plane.judge import judge_open_window, judge_window, needs_evidence
from monitor.control_plane.seal import next_seal_us, pending_tick_us
from monitor.control_plane.stores import (
    EarlyStoreProtocol,
    EvidenceStoreProtocol,
    ModelStoreProtocol,
    ThresholdStoreProtocol,
    WindowStoreProtocol,
)
from monitor.incidents.calibration import find_calibration_problem
from monitor.incidents.explain import ExplainEvents, build_evidence_details
from monitor.incidents.lifecycle import Interval, Kind
from monitor.incidents.rows import update_incident
from monitor.incidents.spike import evaluate_open_window
from monitor.incidents.window import JudgeRule, ThresholdInForce
from monitor.schedule import tick_at_or_after
from monitor.statistics.counts import CountModel
from monitor.statistics.part import Scale
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.look_back_cache import LookBackCache
from monitor.thresholds.tick import (
    ThresholdRule,
    build_calibration_row,
    compute_tick_threshold,
    load_scale,
)
from storage.control.records import Incident, WindowFacts
from storage.control.thresholds import ThresholdRow, TickFacts

log = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
BUDGETED_KINDS = (Kind.SPIKE, Kind.SLOW_RISE, Kind.DRIFT)
"""The kinds of incidents that share the false-alarm budget `false_alarms`."""

_WINDOWS_PER_RENEWAL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """The settings of the control plane of one stream."""

    stream: str
    stream_id: int
    size_us: int
    grace_us: int
    refresh: timedelta | str
    threshold: ThresholdRule
    judge: JudgeRule


class ControlPlane:
    """Runs the control plane of one stream; used by one thread."""

    def __init__(
        self,
        settings: ControlSettings,
        *,
        control: WindowStoreProtocol,
        calibration: ThresholdStoreProtocol,
        models: ModelStoreProtocol,
        reference: Callable[[int], Float32],
        now_us: Callable[[], int],
        renew: Callable[[], bool],
        advanced: Callable[[], None],
        early: EarlyStoreProtocol | None = None,
        evidence: EvidenceStoreProtocol | None = None,
        explain: ExplainEvents | None = None,
        drift: DriftMonitor | None = None,
        make_look_back: Callable[[Scale], LookBack] = LookBack,
        draw: Callable[..., tuple[ThresholdRow, CountModel, float]] = compute_tick_threshold,
    ) -> None:
        self._settings = settings
        self._control = control
        self._calibration = calibration
        self._models = models
        self._reference = reference
        self._now_us = now_us
        self._renew = renew
        self._advanced = advanced
        self._early = early
        self._evidence = evidence
        self._explain = explain
        self._drift = drift
        self._make_look_back = make_look_back
        self._draw = draw
        self._thresholds: dict[int, ThresholdInForce] = {}
        self._look_back: LookBackCache | None = None
        self._accepted: Float32 | None = None
        self._opened_early_us: int | None = None

    def run_due(self) -> bool:
        """Run all due steps; return whether there was any.

        Stops early when the lease is lost.
        """
        changed = False
        while self._renew():
            if not (
                self._judge_due_windows() or self._run_drift_step() or self._run_due_tick() or self._seal_windows()
            ):
                self._open_early_incident()
                return changed
            changed = True
        return changed

    def _judge_due_windows(self) -> bool:
        """Judge the due windows in order; stop at a window with facts that have changed since they were read."""
        settings = self._settings
        starts = self._control.due_windows(settings.stream_id, limit=_WINDOWS_PER_RENEWAL)
        for start_us in starts:
            if not self._judge_window(start_us):
                break
        return bool(starts)

    def _judge_window(self, start_us: int) -> bool:
        """Judge a window; return False if its facts have changed since they were read.

        A window with an alarm is judged a second time, with the evidence, which is looked up outside of a transaction.
        """
        settings = self._settings
        facts = self._control.read_window(settings.stream_id, start_us)
        if facts is None:
            return True  # another lease holder has judged it
        if facts.is_judged:
            self._control.add_late_parts(settings.stream_id, start_us)
            return True
        judgement = judge_window(facts, self._get_threshold, settings.judge, self._now_us())
        if self._evidence is not None and needs_evidence(judgement.incidents):
            evidence = self._find_evidence(facts)
            judgement = judge_window(facts, self._get_threshold, settings.judge, self._now_us(), evidence)
        return self._control.store_judgement(settings.stream_id, settings.stream, facts, judgement)

    def _open_early_incident(self) -> None:
        """Open the incident of the first open window if its counts exceed the threshold of the full window already."""
        settings, early = self._settings, self._early
        window = None if early is None else early.first_open_window(settings.stream_id)
        if early is None or window is None or window.window_start_us == self._opened_early_us:
            return
        threshold = self._get_threshold(window.threshold_id)
        verdict = evaluate_open_window(threshold, window.events, window.outliers, settings.judge)
        facts = None
        if verdict is not None and verdict.fires:
            facts = early.read_window(settings.stream_id, window.window_start_us)
        if facts is None or facts.is_judged:
            return
        rows = judge_open_window(facts, self._get_threshold, settings.judge, self._now_us())
        if rows and self._evidence is not None:
            evidence = self._find_evidence(facts)
            rows = judge_open_window(facts, self._get_threshold, settings.judge, self._now_us(), evidence)
        if not rows or early.open_incidents_early(settings.stream_id, settings.stream, facts, rows):
            self._opened_early_us = window.window_start_us

    def _find_evidence(self, facts: WindowFacts) -> Mapping[str, Any]:
        """Look up the most anomalous events and the keys of a window, and explain them."""
        assert self._evidence is not None, "the caller checks that there is a store of evidence"
        threshold_id = next(part.threshold_id for part in facts.parts if part.threshold_id is not None)
        threshold = self._get_threshold(threshold_id)
        evidence = self._evidence.find_evidence(facts.offset_ranges, facts.window_start_us, facts.window_end_us)
        model_id, rate = threshold.row.model_id, threshold.count_model.rate
        return build_evidence_details(facts, evidence, model_id=model_id, clean_rate=rate, explain=self._explain)

    def _run_drift_step(self) -> bool:
        return self._drift is not None and self._drift.run_due()

    def _seal_windows(self) -> bool:
        settings = self._settings
        sealed = self._control.seal(
            settings.stream_id,
            lambda facts: next_seal_us(facts, settings.size_us, settings.grace_us, self._tick_at_or_after),
        )
        if sealed is None:
            return False
        self._advanced()
        return True

    def _tick_at_or_after(self, event_time_us: int) -> int:
        return tick_at_or_after(self._settings.refresh, event_time_us)

    def _run_due_tick(self) -> bool:
        """Run the tick after the last judged window, once all windows before the tick are sealed and judged."""
        settings = self._settings
        facts = self._calibration.tick_facts(settings.stream_id)
        ended_us = pending_tick_us(facts)
        if ended_us is None or facts.sealed_until_us is None:
            return False
        tick_us = self._tick_at_or_after(ended_us)
        if facts.sealed_until_us < tick_us // settings.size_us * settings.size_us:
            return False
        if facts.first_part_end_us is not None and facts.first_part_end_us <= tick_us:
            return False  # sealed by another lease holder and not judged yet
        if self._run_drift_step():
            return True  # the tick counts all earlier incidents, those of drift included
        newest = self._calibration.newest_threshold(settings.stream_id)
        return newest is not None and self._store_tick(facts, newest, tick_us)

    def _store_tick(self, facts: TickFacts, newest: ThresholdRow, tick_us: int) -> bool:
        settings, rule = self._settings, self._settings.threshold
        cache = self._get_look_back(newest, facts.acceptances)
        refreshed = cache.refresh(self._calibration, tick_us, rule)
        first_us = -(-(tick_us + facts.lead_us) // settings.size_us) * settings.size_us
        row, count_model, clean_share = self._draw(
            newest,
            cache.look_back,
            refreshed.clean,
            self._reference(newest.model_id) if self._accepted is None else self._accepted,
            rule,
            tick_us=tick_us,
            valid_from_us=max(first_us, newest.valid_from_us),
            most_events=refreshed.most_events,
        )
        firings = self._calibration.count_firings(
            settings.stream_id, BUDGETED_KINDS, tick_us - rule.look_back_us, tick_us
        )
        stored = self._calibration.store_tick(
            settings.stream_id,
            last_tick_us=facts.last_tick_us,
            tick_us=tick_us,
            threshold=row,
            calibration=build_calibration_row(tick_us, row, count_model, clean_share, rule, firings),
            change=self._build_calibration_change(newest, row, tick_us),
        )
        if stored and (row.threshold != newest.threshold or row.method != newest.method):
            log.info(
                "Stream %s: the threshold is now %.4g (%s, from %d energies); it was %.4g.",
                settings.stream,
                row.threshold,
                row.method,
                row.n,
                newest.threshold,
                extra={"action": "threshold", "stream": settings.stream},
            )
        return stored

    def _build_calibration_change(
        self, newest: ThresholdRow, row: ThresholdRow, tick_us: int
    ) -> Callable[[Sequence[Incident]], Sequence[Incident]]:
        """Return the function that updates the calibration incident; its lifecycle counts ticks."""
        rule = self._settings.judge
        assert newest.id is not None, "the newest threshold is read from the database"
        finding = find_calibration_problem(
            row,
            self._settings.threshold,
            tick_us,
            model_version=self._get_threshold(newest.id).model_version,
            config_hash=rule.config_hash,
        )
        policy = replace(rule.incident_policy, lifecycle=replace(rule.incident_policy.lifecycle, unit="ticks"))
        at = Interval(start_us=tick_us, end_us=tick_us)
        return lambda incidents: update_incident(
            Kind.CALIBRATION, finding, incidents, at, policy, now_us=self._now_us()
        )

    def _get_look_back(self, newest: ThresholdRow, acceptances: int) -> LookBackCache:
        """Return the cached look-back; build it again for another model and after an acceptance."""
        cache = self._look_back
        if cache is None or (cache.model_id, cache.acceptances) != (newest.model_id, acceptances):
            stream_id, model_id = self._settings.stream_id, newest.model_id
            cache = self._look_back = LookBackCache(
                stream_id, model_id, load_scale(newest.details), acceptances, self._make_look_back
            )
            self._accepted = self._calibration.accepted_reference(newest.model_id)
        return cache

    def _get_threshold(self, threshold_id: int) -> ThresholdInForce:
        """Return a threshold row as judging uses it, cached: rows never change."""
        threshold = self._thresholds.get(threshold_id)
        if threshold is None:
            row = self._calibration.threshold(threshold_id)
            version = next(m.version for m in self._models.list(self._settings.stream_id) if m.id == row.model_id)
            threshold = ThresholdInForce.from_row(row, model_version=version)
            if len(self._thresholds) > _WINDOWS_PER_RENEWAL:
                self._thresholds.clear()
            self._thresholds[threshold_id] = threshold
        return threshold
