"""The drift step of the control plane: sum windows into horizons, judge these, store the verdicts.

The memory of this step is a cache of sums over stored windows and can be lost at any time. Baselines, verdicts and the
state between steps are stored, so that a restart takes the same decisions.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from config.stream_rules import ALWAYS_US, RuleSchedule, StreamRules
from consumers.window_schedule import make_window_schedule
from monitor.control_plane.rule_reader import RuleReader
from monitor.control_plane.stores import DriftStoreProtocol
from monitor.incidents.drift import build_drift_finding, build_verdict_rows, format_horizon
from monitor.incidents.drift_horizons import (
    MAX_BASELINE_SPAN_US,
    SEASON_SEARCH_US,
    FrozenBaseline,
    Horizon,
    HorizonResult,
    explain_waiting,
    has_season,
    judge_horizon,
    learn_baseline,
    learn_seasonal_baseline,
    update_drift_state,
)
from monitor.incidents.drift_state import DriftState
from monitor.incidents.drift_test import DriftBaseline, horizon_false_alarm_probability
from monitor.incidents.lifecycle import Finding, Interval, Kind
from monitor.incidents.rows import update_incident, withdraw_incident
from monitor.models.scoring import LoadedModel
from monitor.statistics.drift_means import DriftStatistics, is_valid_shape, join_sums
from monitor.statistics.part_codec import decode_part
from monitor.thresholds.percentile import exceedance
from storage.control.drift import DriftBaselineRow, DriftFacts, DriftUpdate, DriftWindow
from storage.control.records import Incident

log = logging.getLogger(__name__)


class DriftMonitor:
    """The drift detection of one stream; used by one thread."""

    def __init__(
        self,
        rules: RuleReader,
        stream_id: int,
        *,
        store: DriftStoreProtocol,
        model: Callable[[int], LoadedModel],
        now_us: Callable[[], int],
    ) -> None:
        self._reader = rules
        self._stream_id = stream_id
        self._store = store
        self._model = model
        self._now_us = now_us
        self._horizons: _ModelHorizons | None = None

    def run_due(self) -> bool:
        """Judge the horizons that end next once all of their windows are judged; return whether any was judged."""
        lengths_us = {length for _, rules in self._reader.schedule.rows for length in rules.active_horizons_us}
        if not lengths_us:
            return False
        facts = self._store.drift_facts(self._stream_id, sorted(lengths_us))
        if not self._reader.is_current(facts.settings_revision):
            self._reader.follow(facts.settings_revision)
            return self.run_due()
        rules = rules_after(self._reader.schedule, facts.until_us)
        until_us = next_due_us(facts, rules)
        if until_us is None:
            return False
        model = self._store.find_model_before(self._stream_id, until_us)
        assert model is not None, "a horizon is due because it has a window"
        step = self._build_step(facts, rules, until_us, *model)
        horizons, self._horizons = self._horizons, None
        stored = self._store.store_update(self._stream_id, rules.stream, facts.until_us, step)
        if stored and horizons is not None:
            # Only stored baselines are used; after a failure or another holder's step everything is read again.
            horizons.add_baselines(step.baselines)
            self._horizons = horizons
        return stored

    def _build_step(
        self, facts: DriftFacts, rules: StreamRules, until_us: int, model_id: int, activated_us: int
    ) -> DriftUpdate:
        state = DriftState.from_json(facts.state)
        model = self._model(model_id)
        rebased_us = facts.rebased_from_us
        base_from_us = activated_us if rebased_us is None or rebased_us >= until_us else max(activated_us, rebased_us)
        renewed = state.base_from_us not in (None, base_from_us)
        if state.base_from_us != base_from_us:
            state = DriftState(base_from_us=base_from_us)
        horizons = self._get_horizons(model_id, base_from_us, facts.until_us, rules)
        if model.training_profile is not None:
            horizons.load_windows(self._store, self._stream_id, until_us)
        statistics = horizons.statistics(model)
        before, results, baselines = state, [], []
        for length in [length for length in rules.active_horizons_us if until_us % length == 0]:
            if statistics is None or until_us - length not in horizons.by_length[length]:
                continue
            baselines += horizons.fit_baselines(length, statistics, state, rules, until_us)
            result = horizons.judge_horizon_at(length, statistics, state, rules, until_us)
            results += [] if result is None else [result]
        state = replace(
            update_drift_state(state, results, rules.resolve_after),
            waiting=horizons.waiting_reasons(model),
        )
        horizons.discard_before(until_us)
        finding = None
        if statistics is not None:
            finding = build_drift_finding(
                results,
                statistics,
                model_version=model.record.version,
                config_hash=rules.config_hash,
                per_week=rules.per_week,
            )
        if finding is not None:
            log.info("Stream %s: %s", rules.stream, finding.summary, extra={"action": "drift", "stream": rules.stream})
        return DriftUpdate(
            until_us=until_us,
            state=state.to_json(),
            update_incidents=self._build_incident_change(
                finding, before, state, results, until_us, rules, renewed=renewed
            ),
            baselines=baselines,
            verdicts=[row for each in results for row in build_verdict_rows(each, statistics)] if statistics else [],
        )

    def _build_incident_change(
        self,
        finding: Finding | None,
        before: DriftState,
        after: DriftState,
        results: Sequence[HorizonResult],
        until_us: int,
        rules: StreamRules,
        *,
        renewed: bool,
    ) -> Callable[[Sequence[Incident]], Sequence[Incident]]:
        """Return the function that updates the drift incident; it ends when no horizon has drifted any more."""
        # A window that ends after the horizon belongs to it, so notifications wait until that window is judged.
        end_us = _covering_window_end_us(until_us, rules)
        lengths = [each.horizon_us for each in results if each.verdict.drifted] or [each.horizon_us for each in results]
        at = Interval(start_us=until_us - min(lengths, default=0), end_us=end_us)
        ended = bool(before.alarms) and not after.alarms

        def change(incidents: Sequence[Incident]) -> list[Incident]:
            rows = []
            if renewed:
                why = "renewed: drift is measured against a new base, since another model or an accepted change"
                rows = [
                    withdraw_incident(each, why, at, rules, now_us=self._now_us())
                    for each in incidents
                    if each.kind == Kind.DRIFT
                ]
                incidents = [each for each in incidents if each.kind != Kind.DRIFT]
            if finding is None and not ended:
                return rows
            # The drift state counts the clean horizons of each length; the incident counts only the last of them.
            counted = [replace(each, clean_windows=rules.resolve_after - 1) for each in incidents]
            return [
                *rows,
                *update_incident(Kind.DRIFT, finding, counted, at, rules, now_us=self._now_us(), unit="horizons"),
            ]

        return change

    def _get_horizons(
        self, model_id: int, base_from_us: int, judged_us: int | None, rules: StreamRules
    ) -> "_ModelHorizons":
        """Return the cached horizons.

        They are reloaded for another model, other lengths or another baseline, and after another holder's step.
        """
        cached, lengths = self._horizons, rules.active_horizons_us
        key = (model_id, base_from_us, judged_us, list(lengths))
        if cached is None or (cached.model_id, cached.base_from_us, cached.loaded_us, list(cached.by_length)) != key:
            cached = self._horizons = _ModelHorizons(model_id, base_from_us, lengths)
            cached.add_baselines(self._store.baselines(self._stream_id, base_from_us))
        return cached


def rules_after(schedule: RuleSchedule, until_us: int | None) -> StreamRules:
    """Return the rules of the horizons that follow an event time up to which drift is judged; None: of the first ones.

    A change of the horizons takes effect after the end of one. Rules without a horizon are passed over.
    """
    begun = schedule.at(ALWAYS_US if until_us is None else until_us)
    rows = [rules for _, rules in schedule.rows]
    following = rows[rows.index(begun) :]
    return next((rules for rules in following if rules.active_horizons_us), begun)


def next_due_us(facts: DriftFacts, rules: StreamRules) -> int | None:
    """Return the end of the horizons that are due next; None while a window in them is not judged yet."""
    ends = [
        first // length * length + length
        for length in rules.active_horizons_us
        if (first := facts.first_windows_us[length]) is not None
    ]
    if not ends or facts.sealed_until_us is None:
        return None
    until_us = min(ends)
    covered = _covering_window_end_us(until_us, rules)
    if facts.sealed_until_us < covered:
        return None
    judged = facts.first_part_end_us is None or facts.first_part_end_us > covered
    return until_us if judged else None


def _covering_window_end_us(until_us: int, rules: StreamRules) -> int:
    """Return the end of the last window that starts before a time."""
    return make_window_schedule(rules.windows).ceil_us(until_us)


class _ModelHorizons:
    """The horizons of one model, summed from its windows, by length and start, and its frozen baselines."""

    def __init__(self, model_id: int, base_from_us: int, lengths: Sequence[int]) -> None:
        self.model_id = model_id
        self.base_from_us = base_from_us
        self.by_length: dict[int, dict[int, Horizon]] = {length: {} for length in lengths}
        self._baselines: dict[tuple[int, bool], FrozenBaseline] = {}
        self.loaded_us: int | None = None
        self._shape: tuple[int, int, int] | None = None

    def add_baselines(self, stored: Sequence[DriftBaselineRow]) -> None:
        """Add stored baselines."""
        for row in stored:
            self._baselines[row.horizon_us, row.season] = FrozenBaseline(
                horizon_us=row.horizon_us,
                is_seasonal=row.season,
                frozen_at_us=row.until_us,
                baseline=DriftBaseline.from_json(row.baseline),
            )

    def statistics(self, model: LoadedModel) -> DriftStatistics | None:
        """Return the drift statistics of the windows; None without a training profile or with unknown sums."""
        if (
            model.training_profile is None
            or self._shape is None
            or not is_valid_shape(self._shape, len(model.record.feature_names))
        ):
            return None
        return DriftStatistics(
            features=model.record.feature_names,
            shape=self._shape,
            profile=model.training_profile,
            components=model.component_names,
        )

    def load_windows(self, store: DriftStoreProtocol, stream_id: int, until_us: int) -> None:
        """Add the windows that end before a time and are not in the horizons yet."""
        from_us = self._first_needed_us(until_us) if self.loaded_us is None else self.loaded_us
        for window in store.windows(stream_id, self.model_id, from_us, until_us):
            sums = decode_part(window.payload).drift
            if sums is None or (self._shape is not None and sums.shape != self._shape):
                continue
            self._shape = sums.shape
            self._add_window(window, join_sums(sums))
        self.loaded_us = until_us

    def _add_window(self, window: DriftWindow, sums: Any) -> None:
        for length, horizons in self.by_length.items():
            start_us = window.window_start_us // length * length
            if start_us < self.base_from_us:
                continue
            horizon = horizons.get(start_us) or Horizon(
                start_us=start_us, events=0, outliers=0, has_spike=False, sums=sums * 0
            )
            horizons[start_us] = horizon.add_window(window.events, window.outliers, sums, fired=window.fired)

    def _first_needed_us(self, until_us: int) -> int:
        """Return the time from which windows are needed, those of unfinished baselines among them."""
        return min(max(self.base_from_us, self._first_needed_horizon_us(length, until_us)) for length in self.by_length)

    def _first_needed_horizon_us(self, length: int, until_us: int) -> int:
        """Return the start of the first horizon of one length that is still needed."""
        if (length, False) not in self._baselines or (has_season(length) and (length, True) not in self._baselines):
            return until_us - MAX_BASELINE_SPAN_US
        return until_us - length - (SEASON_SEARCH_US if has_season(length) else 0)

    def discard_before(self, until_us: int) -> None:
        """Discard the horizons that are no longer needed."""
        for length, horizons in self.by_length.items():
            first_us = self._first_needed_horizon_us(length, until_us)
            # The horizons were added in order of time.
            while (oldest := next(iter(horizons), first_us)) < first_us:
                del horizons[oldest]

    def waiting_reasons(self, model: LoadedModel) -> dict[str, str]:
        """Return the reasons why there is no verdict yet, by formatted horizon."""
        if model.training_profile is None:
            why = f"model {model.record.version} was fitted before drift was watched: refit to watch for drift"
            return {format_horizon(length): why for length in self.by_length}
        reasons = {
            length: explain_waiting(length, [horizons[start] for start in sorted(horizons)])
            for length, horizons in self.by_length.items()
            if (length, False) not in self._baselines
        }
        return {format_horizon(length): why for length, why in reasons.items() if why is not None}

    def fit_baselines(
        self, length: int, statistics: DriftStatistics, state: DriftState, rules: StreamRules, until_us: int
    ) -> list[DriftBaselineRow]:
        """Return the baselines that have enough horizons now, to be stored."""
        plain, seasonal = self._baselines.get((length, False)), has_season(length)
        if plain is not None and (not seasonal or (length, True) in self._baselines):
            return []
        first_us = until_us - MAX_BASELINE_SPAN_US
        learning = {start: each for start, each in self.by_length[length].items() if start >= first_us}
        if plain is None:
            new = learn_baseline(length, [learning[start] for start in sorted(learning)], statistics, until_us)
        else:
            new = learn_seasonal_baseline(learning, plain, state, statistics, until_us, rules.timezone)
        if new is None:
            return []
        return [
            DriftBaselineRow(
                horizon_us=length,
                season=new.is_seasonal,
                from_us=self.base_from_us,
                until_us=until_us,
                baseline=new.baseline.to_json(),
            )
        ]

    def judge_horizon_at(
        self, length: int, statistics: DriftStatistics, state: DriftState, rules: StreamRules, until_us: int
    ) -> HorizonResult | None:
        """Judge the horizon of a length that ends at a time; return None before its baseline is frozen."""
        plain, season = self._baselines.get((length, False)), self._baselines.get((length, True))
        if plain is None:
            return None
        return judge_horizon(
            self.by_length[length],
            until_us - length,
            plain,
            season,
            state,
            statistics,
            alpha=horizon_false_alarm_probability(rules.per_week, length, horizons=len(rules.active_horizons_us)),
            min_effect=rules.min_effect,
            exceedance=exceedance(rules.percentile),
            timezone=rules.timezone,
        )
