"""The drift step of the control plane: sum windows into horizons and days, judge these, store the verdicts.

The memory of this step is a cache of sums over stored windows and can be lost at any time. Baselines, days, verdicts
and the state between steps are stored, so that a restart takes the same decisions.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from config.local_time import local_day
from config.stream_rules import ALWAYS_US, RuleSchedule, StreamRules
from config.time_format import WEEK_US
from consumers.window_schedule import make_window_schedule
from monitor.control_plane.drift_memory import DriftMemory
from monitor.control_plane.drift_values_step import read_values, summarise_bases, summarise_training
from monitor.control_plane.rule_reader import RuleReader
from monitor.control_plane.stores import DriftStoreProtocol
from monitor.incidents.drift import build_cells, build_drift_finding, build_verdict_rows, format_horizon
from monitor.incidents.drift_alarms import (
    LASTING_US,
    AlarmUpdate,
    Ending,
    advance_cycle_alarm,
    advance_horizon_alarm,
    drop_untested,
    raised_factor,
    restart_base,
)
from monitor.incidents.drift_cycles import KEPT_CYCLES, explain_waiting, judge_cycle, prepare_cycles
from monitor.incidents.drift_days import DriftDay, decode_day, encode_day, ends_cycle, list_cycles
from monitor.incidents.drift_horizons import FrozenBaseline, HorizonResult, judge_horizon, learn_baseline
from monitor.incidents.drift_plan import HorizonPlan, active_cycle, plan_horizons
from monitor.incidents.drift_state import DriftState
from monitor.incidents.drift_test import CYCLES_US, horizon_false_alarm_probability
from monitor.incidents.lifecycle import Finding, Interval, Kind
from monitor.incidents.rows import update_incident, withdraw_incident
from monitor.models.scoring import LoadedModel
from monitor.statistics.drift_means import DriftStatistics
from monitor.thresholds.percentile import exceedance
from storage.control.drift import DriftBaselineRow, DriftDayRow, DriftFacts, DriftModel, DriftUpdate, StoredDays
from storage.control.drift_cells import FeatureSummaryRow
from storage.control.records import Incident

log = logging.getLogger(__name__)

_LASTING_HORIZONS = 90
_ATTEMPTS = 288
"""Number of horizons up to which a baseline is tried at each of them; with more, at one in some horizons."""

_RENEWED = "renewed: drift is measured against a new base, since another model or an accepted change"
_REBASED = "rebased: the change lasts, and what follows is compared with the new level"
_UNTESTED = "renewed: this horizon is not tested any more"


@dataclass(slots=True, kw_only=True)
class _Step:
    """One drift step while it is computed: the state so far, and the rows to store."""

    rules: StreamRules
    until_us: int
    state: DriftState
    results: list[HorizonResult] = field(default_factory=list)
    told: list[HorizonResult] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    baselines: list[DriftBaselineRow] = field(default_factory=list)
    waiting: dict[int, str | None] = field(default_factory=dict)

    def apply(self, update: AlarmUpdate) -> None:
        """Take over the state after a test and what it says about incidents."""
        self.state = update.state
        self.told += update.told
        self.endings += update.endings

    def false_alarm_probability(self, length: int, n_lengths: int) -> float:
        """Return the false-alarm probability of a horizon, for a number of lengths that share the budget."""
        return horizon_false_alarm_probability(self.rules.per_week, length, horizons=max(n_lengths, 1))


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
        self._memory: DriftMemory | None = None
        self._summarised: int | None = None

    def run_due(self) -> bool:
        """Judge the horizons that end next once all of their windows are judged; return whether any was judged."""
        lengths_us = {length for _, rules in self._reader.schedule.rows for length in rules.active_horizons_us}
        if not lengths_us:
            return False
        facts = self._store.drift_facts(self._stream_id, sorted(lengths_us - set(CYCLES_US)))
        if not self._reader.is_current(facts.settings_revision):
            self._reader.follow(facts.settings_revision)
            return self.run_due()
        rules = rules_after(self._reader.schedule, facts.until_us)
        until_us = next_due_us(facts, rules)
        if until_us is None:
            return False
        model = self._store.find_model_before(self._stream_id, until_us)
        assert model is not None, "a horizon is due because it has a window"
        update = self._build_update(facts, rules, until_us, model)
        memory, self._memory = self._memory, None
        stored = self._store.store_update(self._stream_id, rules.stream, facts.until_us, update)
        if stored and memory is not None:
            # Only stored rows are used; after a failure or another holder's step everything is read again.
            memory.add_baselines(update.baselines)
            if update.days is not None and update.days.rows:
                memory.stored_until_us = update.days.rows[-1].end_us
            self._memory = memory
        return stored

    def _build_update(self, facts: DriftFacts, rules: StreamRules, until_us: int, in_force: DriftModel) -> DriftUpdate:
        before = DriftState.from_json(facts.state)
        model = self._model(in_force.model_id)
        rebased_us = facts.rebased_from_us
        base_from_us = in_force.activated_us
        if rebased_us is not None and rebased_us < until_us:
            base_from_us = max(base_from_us, rebased_us)
        state = before
        if state.base_from_us != base_from_us:
            waiting = {format_horizon(length): explain_waiting(0, length) for length in CYCLES_US}
            state = DriftState(
                base_from_us=base_from_us, waiting=waiting, cycle_us=before.cycle_us, raised=before.raised
            )
        stored = self._store.days(self._stream_id, base_from_us) if _ends_day(until_us, rules) else []
        memory = self._get_memory(in_force.model_id, base_from_us, facts.until_us, rules)
        if model.training_profile is not None:
            memory.load_windows(self._store, self._stream_id, state, until_us)
        step = _Step(rules=rules, until_us=until_us, state=state)
        statistics, new_days = memory.statistics(model), memory.end_days(until_us) if _ends_day(until_us, rules) else []
        if statistics is not None:
            _run_tests(step, memory, statistics, [*map(decode_day, stored), *new_days], in_force.season)
        step.state = replace(step.state, waiting=_waiting_reasons(step, model))
        memory.discard(step.state, until_us)
        finding = self._build_finding(step, model, statistics)
        renewed = before.base_from_us not in (None, base_from_us)
        return DriftUpdate(
            until_us=until_us,
            state=step.state.to_json(),
            update_incidents=self._build_incident_change(finding, step, renewed=renewed),
            baselines=step.baselines,
            days=_days_to_store(base_from_us, until_us, new_days),
            verdicts=[row for each in step.results for row in build_verdict_rows(each, statistics)]
            if statistics
            else [],
            cells=[build_cells(each, statistics, in_force.model_id) for each in step.results] if statistics else [],
            summaries=self._summarise(model, step.baselines),
        )

    def _build_finding(self, step: _Step, model: LoadedModel, statistics: DriftStatistics | None) -> Finding | None:
        if statistics is None:
            return None
        rules = step.rules
        finding = build_drift_finding(
            step.told,
            statistics,
            model_version=model.record.version,
            config_hash=rules.config_hash,
            per_week=rules.per_week,
            values=[read_values(self._store, self._stream_id, model, each) for each in step.told],
        )
        if finding is not None:
            log.info("Stream %s: %s", rules.stream, finding.summary, extra={"action": "drift", "stream": rules.stream})
        return finding

    def _summarise(self, model: LoadedModel, baselines: Sequence[DriftBaselineRow]) -> list[FeatureSummaryRow]:
        """Return the distributions to store: of training once for each model and process, and of new baselines."""
        rows = summarise_bases(self._store, self._stream_id, model, baselines)
        training = None if model.record.id == self._summarised else summarise_training(model)
        self._summarised = model.record.id
        return rows if training is None else [training, *rows]

    def _build_incident_change(
        self, finding: Finding | None, step: _Step, *, renewed: bool
    ) -> Callable[[Sequence[Incident]], Sequence[Incident]]:
        """Return the function that updates the drift incident; it ends when no drift is open any more."""
        rules, until_us = step.rules, step.until_us
        # A window that ends after the horizon belongs to it, so notifications wait until that window is judged.
        end_us = _covering_window_end_us(until_us, rules)
        starts_us = [each.horizon.start_us for each in step.told] or [each.horizon.start_us for each in step.results]
        at = Interval(start_us=max(starts_us, default=until_us), end_us=end_us)
        is_open, is_over = step.state.is_open, Ending.OVER in step.endings
        unit = "horizons" if step.results and step.results[-1].horizon_us not in CYCLES_US else "cycles"

        def change(incidents: Sequence[Incident]) -> list[Incident]:
            rows: list[Incident] = []
            own = [each for each in incidents if each.kind == Kind.DRIFT]
            if renewed:
                rows = [withdraw_incident(each, _RENEWED, at, rules, now_us=self._now_us()) for each in own]
                own = []
            if finding is not None:
                return [*rows, *update_incident(Kind.DRIFT, finding, own, at, rules, now_us=self._now_us())]
            if is_open or not own:
                return rows
            if not is_over:
                why = _REBASED if Ending.REBASED in step.endings else _UNTESTED
                details = {"reason": "rebased" if Ending.REBASED in step.endings else "renewed"}
                ended = [
                    withdraw_incident(each, why, at, rules, now_us=self._now_us(), details=details) for each in own
                ]
                return [*rows, *ended]
            # The drift state counts the clean horizons of each length; the incident counts only the last of them.
            needed = 1 if unit == "cycles" else rules.resolve_after
            counted = [replace(each, clean_windows=needed - 1) for each in own]
            return [
                *rows,
                *update_incident(
                    Kind.DRIFT, None, counted, at, rules, now_us=self._now_us(), resolve_after=needed, unit=unit
                ),
            ]

        return change

    def _get_memory(self, model_id: int, base_from_us: int, judged_us: int | None, rules: StreamRules) -> DriftMemory:
        """Return the cached sums.

        They are read again for another model, other lengths or another base, and after another holder's step.
        """
        lengths = tuple(length for length in rules.active_horizons_us if length not in CYCLES_US)
        cached, key = self._memory, (model_id, base_from_us, judged_us, lengths)
        if cached is None or (cached.model_id, cached.base_from_us, cached.loaded_us, cached.lengths) != key:
            days = self._store.days(self._stream_id, base_from_us)
            cached = self._memory = DriftMemory(
                model_id=model_id,
                base_from_us=base_from_us,
                lengths=lengths,
                day_of=lambda time_us: local_day(time_us, self._reader.schedule.at(time_us).timezone),
                stored_until_us=days[-1].end_us if days else None,
            )
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
    """Return the end of the horizons or of the day that are due next; None while a window in them is not judged yet."""
    ends = [_next_day_end_us(facts, rules)]
    plan = plan_horizons(rules.active_horizons_us, DriftState.from_json(facts.state).cycle_us, 0)
    for length in plan.horizons:
        first_us = facts.first_windows_us[length]
        ends += [None if first_us is None else first_us // length * length + length]
    due = [end_us for end_us in ends if end_us is not None]
    if not due or facts.sealed_until_us is None:
        return None
    until_us = min(due)
    covered = _covering_window_end_us(until_us, rules)
    if facts.sealed_until_us < covered:
        return None
    judged = facts.first_part_end_us is None or facts.first_part_end_us > covered
    return until_us if judged else None


def _next_day_end_us(facts: DriftFacts, rules: StreamRules) -> int | None:
    """Return the end of the local day that is being judged, or of the next one with a window."""
    if facts.until_us is not None:
        start_us, end_us = local_day(facts.until_us, rules.timezone)
        if start_us < facts.until_us:
            return end_us
    return None if facts.next_window_us is None else local_day(facts.next_window_us, rules.timezone)[1]


def _ends_day(until_us: int, rules: StreamRules) -> bool:
    return local_day(until_us, rules.timezone)[0] == until_us


def _covering_window_end_us(until_us: int, rules: StreamRules) -> int:
    """Return the end of the last window that starts before a time."""
    return make_window_schedule(rules.windows).ceil_us(until_us)


def _days_to_store(base_from_us: int, until_us: int, days: Sequence[DriftDay]) -> StoredDays | None:
    if not days:
        return None
    rows: list[DriftDayRow] = [encode_day(day) for day in days]
    return StoredDays(base_from_us=base_from_us, keep_from_us=until_us - KEPT_CYCLES * WEEK_US, rows=rows)


def _run_tests(
    step: _Step, memory: DriftMemory, statistics: DriftStatistics, days: Sequence[DriftDay], season: str | None
) -> None:
    """Test the cycles and horizons that end now. `days` are those of the base at the end of a day, otherwise none."""
    if days:
        step.state = replace(step.state, cycle_us=active_cycle(season, days, step.state.cycle_us))
    plan = plan_horizons(step.rules.active_horizons_us, step.state.cycle_us, len(days))
    due = [length for length in plan.horizons if step.until_us % length == 0]
    for length in due:
        _learn_horizon(step, memory, statistics, length, step.state.start_of(length))
    n_lengths = len(plan.cycles) + sum(_has_baseline(step, memory, length) for length in plan.horizons)
    for length in due:
        _test_horizon(step, memory, statistics, length, n_lengths)
    if days:
        for cycle_us in plan.cycles:
            _test_cycle(step, statistics, days, cycle_us, n_lengths)
        _drop_untested(step, memory, plan)
    _explain_plan(step, plan)


def _learn_horizon(
    step: _Step, memory: DriftMemory, statistics: DriftStatistics, length: int, from_us: int
) -> FrozenBaseline | None:
    """Freeze the baseline of a length if its horizons since a time are one."""
    if _has_baseline(step, memory, length) and from_us == step.state.start_of(length):
        return None
    horizons = list(memory.horizons_since(length, from_us).values())
    if (step.until_us // length) % max(1, len(horizons) // _ATTEMPTS):
        return None
    learned = learn_baseline(length, horizons, statistics, from_us=from_us, until_us=step.until_us)
    if isinstance(learned, str):
        step.waiting[length] = learned
        return None
    step.waiting[length] = None
    step.baselines.append(
        DriftBaselineRow(
            horizon_us=length, from_us=from_us, until_us=step.until_us, baseline=learned.baseline.to_json()
        )
    )
    return learned


def _has_baseline(step: _Step, memory: DriftMemory, length: int) -> bool:
    learned = any(row.horizon_us == length and row.from_us == step.state.start_of(length) for row in step.baselines)
    return learned or memory.baseline(length, step.state) is not None


def _test_horizon(step: _Step, memory: DriftMemory, statistics: DriftStatistics, length: int, n_lengths: int) -> None:
    """Test the horizon that ends now, against a baseline that was stored before."""
    frozen, horizon = memory.baseline(length, step.state), memory.horizon(length, step.until_us - length)
    if frozen is None or horizon is None:
        return
    result = judge_horizon(
        horizon,
        frozen,
        statistics,
        alpha=step.false_alarm_probability(length, n_lengths),
        min_effect=step.rules.min_effect,
        exceedance=exceedance(step.rules.percentile),
        raised=raised_factor(step.state, length),
    )
    if result is None:
        return
    step.results.append(result)
    step.apply(advance_horizon_alarm(step.state, result, step.rules.resolve_after))
    _rebase_horizon(step, memory, statistics, length)


def _rebase_horizon(step: _Step, memory: DriftMemory, statistics: DriftStatistics, length: int) -> None:
    """Make a lasting change the base as soon as its horizons are a baseline, or learn another one after some days."""
    alarm = step.state.alarms.get(length)
    if alarm is None:
        return
    from_us = alarm.since_us
    if _learn_horizon(step, memory, statistics, length, from_us) is None:
        if step.until_us - from_us < max(LASTING_US, _LASTING_HORIZONS * length):
            step.waiting.pop(length, None)
            return
        from_us = step.until_us
    step.state = restart_base(step.state, length, from_us)
    step.told = [each for each in step.told if each.horizon_us != length]
    step.endings.append(Ending.REBASED)


def _test_cycle(
    step: _Step, statistics: DriftStatistics, days: Sequence[DriftDay], cycle_us: int, n_lengths: int
) -> None:
    """Test the cycle that ends now."""
    if not ends_cycle(step.until_us, cycle_us, step.rules.timezone):
        return
    cycles = list_cycles([day for day in days if day.shape == statistics.shape], cycle_us, step.rules.timezone)
    if not cycles or cycles[-1].end_us != step.until_us:
        return
    test = prepare_cycles(cycles, cycle_us, statistics)
    if isinstance(test, str):
        step.waiting[cycle_us] = test
        return
    step.waiting[cycle_us] = None
    result = judge_cycle(
        test,
        cycle_us,
        step.state.shrunk,
        statistics,
        alpha=step.false_alarm_probability(cycle_us, n_lengths),
        min_effect=step.rules.min_effect,
        exceedance=exceedance(step.rules.percentile),
        raised=raised_factor(step.state, cycle_us),
    )
    step.results.append(result)
    step.apply(advance_cycle_alarm(step.state, result, test))


def _drop_untested(step: _Step, memory: DriftMemory, plan: HorizonPlan) -> None:
    """End the drifts of lengths that are not tested: with a cycle, those of shorter horizons; those without a base."""
    horizons = [length for length in plan.horizons if _has_baseline(step, memory, length)]
    step.apply(drop_untested(step.state, [*plan.cycles, *horizons]))


def _explain_plan(step: _Step, plan: HorizonPlan) -> None:
    """Say for each configured length that is not tested why not."""
    if step.state.cycle_us is None:
        return
    tested = " and ".join(format_horizon(length) for length in plan.cycles)
    for length in step.rules.active_horizons_us:
        if length not in plan.cycles:
            step.waiting[length] = (
                f"not tested: the stream has a daily or weekly course, and {tested} is tested instead"
            )


def _waiting_reasons(step: _Step, model: LoadedModel) -> dict[str, str]:
    """Return the reasons why there is no verdict, by formatted horizon; earlier ones where none is known now."""
    lengths = [format_horizon(length) for length in step.rules.active_horizons_us]
    if model.training_profile is None:
        why = f"model {model.record.version} was fitted before drift was watched: refit to watch for drift"
        return dict.fromkeys(lengths, why)
    new = {format_horizon(length): why for length, why in step.waiting.items()}
    reasons = {**step.state.waiting, **new}
    cycle_us = step.state.cycle_us
    shown = {*lengths, *([] if cycle_us is None else [format_horizon(cycle_us)])}
    return {length: why for length, why in reasons.items() if why is not None and length in shown}
