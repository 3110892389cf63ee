"""The drift step of the control plane: adds windows up to horizons, has them judged, and stores what comes of it.

What is kept in memory can be lost at any moment: it is the sums of stored windows. Bases, verdicts and what is carried
from step to step are stored, so a restart decides the same.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.time_format import DAY_US
from monitor.control_plane.stores import DriftStoreProtocol
from monitor.incidents.drift import build_drift_finding, build_verdict_rows, format_horizon
from monitor.incidents.drift_horizons import (
    MAX_BASELINE_SPAN_US,
    SEASON_SEARCH_DAYS,
    DriftState,
    FrozenBaseline,
    Horizon,
    HorizonResult,
    baseline_from_json,
    baseline_to_json,
    explain_waiting,
    has_season,
    judge_horizon,
    learn_baseline,
    learn_seasonal_baseline,
    state_from_json,
    state_to_json,
    update_drift_state,
)
from monitor.incidents.drift_test import horizon_false_alarm_probability
from monitor.incidents.lifecycle import Finding, Interval, Kind
from monitor.incidents.rows import IncidentPolicy, update_incident, withdraw_incident
from monitor.statistics.drift_means import DriftStatistics, is_valid_shape, join_sums
from monitor.statistics.part import decode_part
from monitor.statistics.training_profile import TrainingProfile
from storage.control.drift import DriftBaseRow, DriftFacts, DriftUpdate, DriftWindow
from storage.control.records import IncidentRow, StoredIncident

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRule:
    """The settings that drift depends on; `exceedance` is the share of normal events above the limit."""

    stream: str
    stream_id: int
    size_us: int
    horizons_us: tuple[int, ...]
    min_effect: float
    per_week: float
    exceedance: float
    config_hash: str
    incident_policy: IncidentPolicy

    @property
    def active_horizons_us(self) -> tuple[int, ...]:
        """Return the horizons that hold a window at least."""
        return tuple(length for length in self.horizons_us if length >= self.size_us)

    def alpha_for(self, horizon_us: int) -> float:
        """Return the probability of a false alarm that one horizon of a length may spend."""
        return horizon_false_alarm_probability(self.per_week, horizon_us, horizons=len(self.active_horizons_us))


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoredModel:
    """What drift needs of a model; `yardstick` is None where it was fitted before drift was watched."""

    version: int
    features: tuple[str, ...]
    training_profile: TrainingProfile | None


class DriftMonitor:
    """Watches one stream; used by one thread."""

    def __init__(
        self,
        rule: DriftRule,
        *,
        store: DriftStoreProtocol,
        model: Callable[[int], MonitoredModel],
        now_us: Callable[[], int],
    ) -> None:
        self._rule = rule
        self._store = store
        self._model = model
        self._now_us = now_us
        self._kept: _ModelHorizons | None = None

    def run_due(self) -> bool:
        """Judge the horizons that end next, once all windows in them are judged; return whether there were any."""
        rule = self._rule
        if not rule.active_horizons_us:
            return False
        facts = self._store.drift_facts(rule.stream_id, rule.active_horizons_us)
        until_us = next_due_us(facts, rule)
        if until_us is None:
            return False
        found = self._store.find_model_before(rule.stream_id, until_us)
        assert found is not None, "a horizon is due because it has a window"
        step = self._build_step(facts, until_us, *found)
        kept, self._kept = self._kept, None
        stored = self._store.store_update(rule.stream_id, rule.stream, facts.until_us, step)
        if stored and kept is not None:
            # Only what is stored is frozen; after a failure, or another holder's step, all is read again.
            kept.add_bases(step.bases)
            self._kept = kept
        return stored

    def _build_step(self, facts: DriftFacts, until_us: int, model_id: int, activated_us: int) -> DriftUpdate:
        rule, state = self._rule, state_from_json(facts.state)
        model = self._model(model_id)
        rebased_us = facts.rebased_from_us
        base_from_us = activated_us if rebased_us is None or rebased_us >= until_us else max(activated_us, rebased_us)
        renewed = state.base_from_us not in (None, base_from_us)
        if state.base_from_us != base_from_us:
            state = DriftState(base_from_us=base_from_us)
        kept = self._get_horizons(model_id, base_from_us, facts.until_us)
        if model.training_profile is not None:
            kept.load_windows(self._store, rule, until_us)
        statistics = kept.statistics(model)
        before, judged, bases = state, [], []
        for length in [length for length in rule.active_horizons_us if until_us % length == 0]:
            if statistics is None or until_us - length not in kept.horizons[length]:
                continue
            bases += kept.fit_bases(length, statistics, state, until_us)
            verdict = kept.judge_horizon_at(length, statistics, state, rule, until_us)
            judged += [] if verdict is None else [verdict]
        state = replace(
            update_drift_state(state, judged, rule.incident_policy.lifecycle.resolve_after),
            waiting=kept.waiting_reasons(model),
        )
        kept.discard_before(until_us)
        finding = None
        if statistics is not None:
            finding = build_drift_finding(
                judged,
                statistics,
                model_version=model.version,
                config_hash=rule.config_hash,
                per_week=rule.per_week,
            )
        if finding is not None:
            log.info("Stream %s: %s", rule.stream, finding.summary, extra={"action": "drift", "stream": rule.stream})
        return DriftUpdate(
            until_us=until_us,
            state=state_to_json(state),
            update_incidents=self._build_incident_change(finding, before, state, judged, until_us, renewed=renewed),
            bases=bases,
            verdicts=[row for each in judged for row in build_verdict_rows(each, statistics)] if statistics else [],
        )

    def _build_incident_change(
        self,
        finding: Finding | None,
        before: DriftState,
        after: DriftState,
        judged: Sequence[HorizonResult],
        until_us: int,
        *,
        renewed: bool,
    ) -> Callable[[Sequence[StoredIncident]], Sequence[IncidentRow]]:
        """Return what a step does to the incident; it ends when no horizon's drift lasts any more."""
        rule = self._rule
        life = replace(rule.incident_policy, lifecycle=replace(rule.incident_policy.lifecycle, unit="horizons"))
        # Windows that reach over the horizon's end belong to it: nothing is told before they are judged.
        end_us = _covering_window_end_us(until_us, rule.size_us)
        lengths = [each.horizon_us for each in judged if each.verdict.drifted] or [each.horizon_us for each in judged]
        at = Interval(start_us=until_us - min(lengths, default=0), end_us=end_us)
        ended = bool(before.alarms) and not after.alarms

        def change(known: Sequence[StoredIncident]) -> list[IncidentRow]:
            rows = []
            if renewed:
                why = "renewed: drift is measured against a new base, since another model or an accepted change"
                rows = [
                    withdraw_incident(each, why, at, life, now_us=self._now_us())
                    for each in known
                    if each.kind == Kind.DRIFT
                ]
                known = [each for each in known if each.kind != Kind.DRIFT]
            if finding is None and not ended:
                return rows
            # Clean horizons are counted by their length, in the state; the incident sees the last one.
            counted = [replace(each, clean_windows=life.lifecycle.resolve_after - 1) for each in known]
            return [*rows, *update_incident(Kind.DRIFT, finding, counted, at, life, now_us=self._now_us())]

        return change

    def _get_horizons(self, model_id: int, base_from_us: int, judged_us: int | None) -> "_ModelHorizons":
        """Return what is kept, or read it anew: for another model or base, and after another holder's steps."""
        kept = self._kept
        if kept is None or (kept.model_id, kept.base_from_us, kept.loaded_us) != (model_id, base_from_us, judged_us):
            kept = self._kept = _ModelHorizons(model_id, base_from_us, self._rule.active_horizons_us)
            kept.add_bases(self._store.bases(self._rule.stream_id, base_from_us))
        return kept


def next_due_us(facts: DriftFacts, rule: DriftRule) -> int | None:
    """Return the end of the horizons that are due next; None while a window in them may still be judged."""
    ends = [first // length * length + length for length, first in facts.first_windows_us.items() if first is not None]
    if not ends or facts.sealed_until_us is None:
        return None
    until_us = min(ends)
    covered = _covering_window_end_us(until_us, rule.size_us)
    if facts.sealed_until_us < covered:
        return None
    judged = facts.first_part_end_us is None or facts.first_part_end_us > covered
    return until_us if judged else None


def _covering_window_end_us(until_us: int, size_us: int) -> int:
    """Return the end of the last window that begins before a time."""
    return -(-until_us // size_us) * size_us


class _ModelHorizons:
    """Horizons of one model, added up from its windows, and its bases."""

    def __init__(self, model_id: int, base_from_us: int, lengths: Sequence[int]) -> None:
        self.model_id = model_id
        self.base_from_us = base_from_us
        self.horizons: dict[int, dict[int, Horizon]] = {length: {} for length in lengths}
        self._bases: dict[tuple[int, bool], FrozenBaseline] = {}
        self.loaded_us: int | None = None
        self._shape: tuple[int, int, int] | None = None

    def add_bases(self, stored: Sequence[DriftBaseRow]) -> None:
        """Take over stored bases."""
        for row in stored:
            self._bases[row.horizon_us, row.season] = FrozenBaseline(
                horizon_us=row.horizon_us,
                is_seasonal=row.season,
                frozen_at_us=row.until_us,
                baseline=baseline_from_json(row.base),
            )

    def statistics(self, model: MonitoredModel) -> DriftStatistics | None:
        """Return the statistics that the windows have; None where nothing of them can be judged."""
        if (
            model.training_profile is None
            or self._shape is None
            or not is_valid_shape(self._shape, len(model.features))
        ):
            return None
        return DriftStatistics(features=model.features, shape=self._shape, profile=model.training_profile)

    def load_windows(self, store: DriftStoreProtocol, rule: DriftRule, until_us: int) -> None:
        """Add the windows up to a time that are not in yet."""
        from_us = self._first_needed_us(until_us) if self.loaded_us is None else self.loaded_us
        for window in store.windows(rule.stream_id, self.model_id, from_us, until_us):
            sums = decode_part(window.payload).drift
            if sums is None or (self._shape is not None and sums.shape != self._shape):
                continue
            self._shape = sums.shape
            self._add_window(window, join_sums(sums))
        self.loaded_us = until_us

    def _add_window(self, window: DriftWindow, sums: Any) -> None:
        for length, horizons in self.horizons.items():
            start_us = window.window_start_us // length * length
            if start_us < self.base_from_us:
                continue
            known = horizons.get(start_us) or Horizon(
                start_us=start_us, events=0, outliers=0, has_spike=False, sums=sums * 0
            )
            horizons[start_us] = known.add_window(window.events, window.outliers, sums, fired=window.fired)

    def _first_needed_us(self, until_us: int) -> int:
        """Return the time from which windows matter: a base may still have to come together."""
        return min(max(self.base_from_us, self._first_needed_horizon_us(length, until_us)) for length in self.horizons)

    def _first_needed_horizon_us(self, length: int, until_us: int) -> int:
        """Return the first start of a horizon of one length that still matters."""
        if (length, False) not in self._bases or (has_season(length) and (length, True) not in self._bases):
            return until_us - MAX_BASELINE_SPAN_US
        return until_us - length - (SEASON_SEARCH_DAYS * DAY_US if has_season(length) else 0)

    def discard_before(self, until_us: int) -> None:
        """Drop the horizons that matter no more."""
        for length, horizons in self.horizons.items():
            first_us = self._first_needed_horizon_us(length, until_us)
            # They came in the order of time.
            while (oldest := next(iter(horizons), first_us)) < first_us:
                del horizons[oldest]

    def waiting_reasons(self, model: MonitoredModel) -> dict[str, str]:
        """Say why there is no verdict yet, by the length of the horizon."""
        if model.training_profile is None:
            why = f"model {model.version} was fitted before drift was watched: refit to watch for drift"
            return {format_horizon(length): why for length in self.horizons}
        found = {
            length: explain_waiting(length, [horizons[start] for start in sorted(horizons)])
            for length, horizons in self.horizons.items()
            if (length, False) not in self._bases
        }
        return {format_horizon(length): why for length, why in found.items() if why is not None}

    def fit_bases(
        self, length: int, statistics: DriftStatistics, state: DriftState, until_us: int
    ) -> list[DriftBaseRow]:
        """Return the bases that have come together, to be stored."""
        plain, seasonal = self._bases.get((length, False)), has_season(length)
        if plain is not None and (not seasonal or (length, True) in self._bases):
            return []
        first_us = until_us - MAX_BASELINE_SPAN_US
        learning = {start: each for start, each in self.horizons[length].items() if start >= first_us}
        if plain is None:
            new = learn_baseline(length, [learning[start] for start in sorted(learning)], statistics, until_us)
        else:
            new = learn_seasonal_baseline(learning, plain, state, statistics, until_us)
        if new is None:
            return []
        return [
            DriftBaseRow(
                horizon_us=length,
                season=new.is_seasonal,
                from_us=self.base_from_us,
                until_us=until_us,
                base=baseline_to_json(new.baseline),
            )
        ]

    def judge_horizon_at(
        self, length: int, statistics: DriftStatistics, state: DriftState, rule: DriftRule, until_us: int
    ) -> HorizonResult | None:
        """Judge the horizon of a length that ends at a time; None before its base is frozen."""
        plain, season = self._bases.get((length, False)), self._bases.get((length, True))
        if plain is None:
            return None
        return judge_horizon(
            self.horizons[length],
            until_us - length,
            plain,
            season,
            state,
            statistics,
            alpha=rule.alpha_for(length),
            min_effect=rule.min_effect,
            exceedance=rule.exceedance,
        )
