"""The control plane of a stream: judge, tick, seal, in the order of event time, until nothing is due.

Its decisions are pure functions of what is stored; this file fetches, calls them and stores. Any process may run it at
any time: the lease only saves work, and what keeps the result right are the locks and unique keys of the store.
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
    load_clean_rate,
    load_count_model,
    load_scale,
)
from storage.control.records import Incident, Judgement, WindowFacts
from storage.control.thresholds import NewThreshold, StoredThreshold, TickFacts

log = logging.getLogger(__name__)

Float32 = NDArray[np.float32]
BUDGETED_KINDS = (Kind.SPIKE, Kind.SLOW_RISE, Kind.DRIFT)
"""The kinds of incidents that `false_alarms` is about, all of them together."""

_WINDOWS_PER_RENEWAL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """What the control plane of one stream goes by."""

    stream: str
    stream_id: int
    size_us: int
    grace_us: int
    refresh: timedelta | str
    threshold: ThresholdRule
    judge: JudgeRule


class ControlPlane:
    """Runs one stream; used by one thread."""

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
        draw: Callable[..., tuple[NewThreshold, CountModel, float]] = compute_tick_threshold,
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
        self._known: dict[int, ThresholdInForce] = {}
        self._look_back: LookBackCache | None = None
        self._accepted: Float32 | None = None
        self._opened_early_us: int | None = None

    def run_due(self) -> bool:
        """Do everything that is due; return whether anything was.

        Stops early when the lease is lost.
        """
        moved = False
        while self._renew():
            if not (
                self._judge_due_windows() or self._run_drift_step() or self._run_due_tick() or self._seal_windows()
            ):
                self._open_early_incident()
                return moved
            moved = True
        return moved

    def _judge_due_windows(self) -> bool:
        settings = self._settings
        starts = self._control.due_windows(settings.stream_id, limit=_WINDOWS_PER_RENEWAL)
        for start in starts:
            self._judge_window(start)
        return bool(starts)

    def _judge_window(self, start_us: int) -> None:
        """Judge a window; where it fires, once more with what explains it, which is looked up outside the lock."""
        settings = self._settings
        firing: list[WindowFacts] = []
        known: Mapping[str, Any] | None = None

        def decide(facts: WindowFacts) -> Judgement | None:
            judgement = judge_window(facts, self._get_threshold, settings.judge, self._now_us(), known)
            if known is None and self._evidence is not None and needs_evidence(judgement.incidents):
                firing.append(facts)
                return None
            return judgement

        if not self._control.judge(settings.stream_id, settings.stream, start_us, decide) and firing:
            known = self._find_evidence(firing[0])
            self._control.judge(settings.stream_id, settings.stream, start_us, decide)

    def _open_early_incident(self) -> None:
        """Open the incident of the first open window, where its counts are above the full window's limit already."""
        settings, early = self._settings, self._early
        window = None if early is None else early.first_open_window(settings.stream_id)
        if early is None or window is None or window.window_start_us == self._opened_early_us:
            return
        verdict = evaluate_open_window(
            self._get_threshold(window.threshold_id), window.events, window.outliers, settings.judge
        )
        if verdict is None or not verdict.fires:
            return
        firing: list[WindowFacts] = []
        known: Mapping[str, Any] | None = None

        def decide(facts: WindowFacts) -> list[Incident]:
            rows = judge_open_window(facts, self._get_threshold, settings.judge, self._now_us(), known)
            if known is None and self._evidence is not None and rows:
                firing.append(facts)
                return []
            return rows

        start_us = window.window_start_us
        if not early.open_incidents_early(settings.stream_id, settings.stream, start_us, decide) and firing:
            known = self._find_evidence(firing[0])
            early.open_incidents_early(settings.stream_id, settings.stream, start_us, decide)
        self._opened_early_us = start_us

    def _find_evidence(self, facts: WindowFacts) -> Mapping[str, Any]:
        """Look up what explains a window that fires."""
        assert self._evidence is not None, "asked for only where it can be looked up"
        known = self._get_threshold(next(part.threshold_id for part in facts.parts if part.threshold_id is not None))
        found = self._evidence.find_evidence(facts.offset_ranges, facts.window_start_us, facts.window_end_us)
        model_id, rate = known.row.model_id, known.count_model.rate
        return build_evidence_details(facts, found, model_id=model_id, clean_rate=rate, explain=self._explain)

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
        """Store the tick that the judged windows call for, once everything before it is sealed and judged."""
        settings = self._settings
        facts = self._calibration.tick_facts(settings.stream_id)
        ended = pending_tick_us(facts)
        if ended is None or facts.sealed_until_us is None:
            return False
        tick_us = self._tick_at_or_after(ended)
        if facts.sealed_until_us < tick_us // settings.size_us * settings.size_us:
            return False
        if facts.first_part_end_us is not None and facts.first_part_end_us <= tick_us:
            return False  # sealed, and not judged yet: by another holder of the lease, a moment ago
        if self._run_drift_step():
            return True  # a tick counts the incidents before it, those of drift among them
        newest = self._calibration.newest_threshold(settings.stream_id)
        return newest is not None and self._store_tick(facts, newest, tick_us)

    def _store_tick(self, facts: TickFacts, newest: StoredThreshold, tick_us: int) -> bool:
        settings, rule = self._settings, self._settings.threshold
        kept = self._get_look_back(newest, facts.acceptances)
        refreshed = kept.refresh(self._calibration, tick_us, rule)
        first_us = -(-(tick_us + facts.lead_us) // settings.size_us) * settings.size_us
        row, law, share = self._draw(
            newest,
            kept.look_back,
            refreshed.clean,
            self._reference(newest.model_id) if self._accepted is None else self._accepted,
            rule,
            tick_us=tick_us,
            valid_from_us=max(first_us, newest.valid_from_us),
            most_events=refreshed.most_events,
        )
        fired = self._calibration.count_firings(
            settings.stream_id, BUDGETED_KINDS, tick_us - rule.look_back_us, tick_us
        )
        stored = self._calibration.store_tick(
            settings.stream_id,
            last_tick_us=facts.last_tick_us,
            tick_us=tick_us,
            threshold=row,
            calibration=build_calibration_row(tick_us, row, law, share, rule, fired),
            change=self._build_calibration_change(newest, row, tick_us),
        )
        if stored and (row.threshold != newest.threshold or row.method != newest.method):
            log.info(
                "Stream %s: the limit is now %.4g (%s, from %d energies), before it was %.4g.",
                settings.stream,
                row.threshold,
                row.method,
                row.n,
                newest.threshold,
                extra={"action": "threshold", "stream": settings.stream},
            )
        return stored

    def _build_calibration_change(
        self, newest: StoredThreshold, row: NewThreshold, tick_us: int
    ) -> Callable[[Sequence[Incident]], Sequence[Incident]]:
        """Return what a tick does to the incident of kind calibration; its life is counted in ticks."""
        rule = self._settings.judge
        finding = find_calibration_problem(
            row,
            self._settings.threshold,
            tick_us,
            model_version=self._get_threshold(newest.id).model_version,
            config_hash=rule.config_hash,
        )
        life = replace(rule.incident_policy, lifecycle=replace(rule.incident_policy.lifecycle, unit="ticks"))
        at = Interval(start_us=tick_us, end_us=tick_us)
        return lambda known: update_incident(Kind.CALIBRATION, finding, known, at, life, now_us=self._now_us())

    def _get_look_back(self, newest: StoredThreshold, acceptances: int) -> LookBackCache:
        """Return the look-back that is kept, or a new one for another model or since somebody accepted something."""
        kept = self._look_back
        if kept is None or (kept.model_id, kept.acceptances) != (newest.model_id, acceptances):
            stream_id, model_id = self._settings.stream_id, newest.model_id
            kept = self._look_back = LookBackCache(
                stream_id, model_id, load_scale(newest.details), acceptances, self._make_look_back
            )
            self._accepted = self._calibration.accepted_reference(newest.model_id)
        return kept

    def _get_threshold(self, threshold_id: int) -> ThresholdInForce:
        """Return a threshold row for judging; rows never change, so they are kept."""
        known = self._known.get(threshold_id)
        if known is None:
            row = self._calibration.threshold(threshold_id)
            version = next(m.version for m in self._models.list(self._settings.stream_id) if m.id == row.model_id)
            known = ThresholdInForce(
                row=row,
                count_model=load_count_model(row.details),
                scale=load_scale(row.details),
                model_version=version,
                clean_rate=load_clean_rate(row.details),
                most_events=row.details.get("most_events"),
            )
            if len(self._known) > _WINDOWS_PER_RENEWAL:
                self._known.clear()
            self._known[threshold_id] = known
        return known
