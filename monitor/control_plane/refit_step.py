"""The refits of a stream: start a fit when it is due, store its model as shadow model, and let the gate decide.

Each step is a transaction that happens once (`storage.control.refits`). The fit itself runs in a child process between
two calls; a process that takes over begins it again from the stored selection, with the same result.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from config.stream_rules import StreamRules
from config.streams import ModelSettings
from consumers.window_schedule import WindowSchedule, make_window_schedule
from monitor.control_plane.rule_reader import RuleReader
from monitor.control_plane.stores import ModelsProtocol, RefitStoreProtocol, ThresholdStoreProtocol
from monitor.models.promotion import first_threshold_from_history
from monitor.models.refit import (
    BLOCKING_KINDS,
    RefitStart,
    decide_start,
    find_due,
    find_gate_time,
    find_seal_limit,
    find_shadow_start,
)
from monitor.models.refit_fit import FitJob, Fitter, RefitFailed, RefittedModel
from monitor.models.sampled_events import build_training_set, derived_fields, select_samples
from monitor.models.shadow_gate import ComparedModel, GateVerdict, WindowPair, evaluate_refit
from monitor.models.shadow_parts import merge_shadow_parts
from monitor.models.training_set import TrainingSet, min_training_events
from monitor.statistics.part import Scale
from monitor.statistics.part_codec import decode_part
from monitor.statistics.season import load_season
from monitor.thresholds.carried import carry_dispersion
from monitor.thresholds.choose import estimate_first_threshold
from monitor.thresholds.look_back_cache import LookBackCache
from monitor.thresholds.tick import load_count_model, load_scale
from storage.control.models import Activation
from storage.control.refits import FittedShadow, RefitRow
from storage.control.thresholds import ThresholdRow, TickFacts

log = logging.getLogger(__name__)


class RefitStep:
    """Runs the refits of one stream; used by the thread of its control plane.

    Args:
        stream: The name of the stream.
        stream_id: Its number in the database.
        reader: The rules over event time.
        store: The refits, samples and shadow windows.
        thresholds: The threshold rows and judged windows.
        models: The models of the stream.
        fitter: Starts fits.
        model_settings: Returns the present settings of the model.
    """

    def __init__(
        self,
        stream: str,
        stream_id: int,
        *,
        reader: RuleReader,
        store: RefitStoreProtocol,
        thresholds: ThresholdStoreProtocol,
        models: ModelsProtocol,
        fitter: Fitter,
        model_settings: Callable[[], ModelSettings],
    ) -> None:
        self._stream = stream
        self._stream_id = stream_id
        self._reader = reader
        self._store = store
        self._thresholds = thresholds
        self._models = models
        self._fitter = fitter
        self._model_settings = model_settings
        self._has_open_refit: bool | None = None
        self._job: FitJob | None = None
        self._job_due_us: int | None = None

    def run_due(self, finish_earlier: Callable[[], bool] = lambda: False) -> bool:
        """Take the next step if one is due; return whether anything was stored.

        `finish_earlier` runs a due drift step or tick, and returns whether there was one: a refit counts all earlier
        incidents, and its first threshold follows all earlier ones.
        """
        if self._has_nothing_to_do():
            return False
        last = self._store.last_refit(self._stream_id)
        facts = self._thresholds.tick_facts(self._stream_id)
        if last is not None and last.state == "fitting":
            return self._follow_fit(last)
        self.close()
        if last is not None and last.state == "shadow" and _is_reached(last.gate_us, facts, self._windows()):
            return finish_earlier() or self._decide_gate(last)
        due_us = find_due(self._reader.schedule, last, _find_ended(last, facts.last_judged_end_us, None))
        if due_us is None or not _is_reached(due_us, facts, self._windows()):
            return False
        return finish_earlier() or self._begin(last, due_us)

    def find_limit(self, last_judged_end_us: int | None, first_part_end_us: int | None) -> int | None:
        """Return the time that the stream may not be sealed beyond; None without one."""
        if self._has_nothing_to_do():
            return None
        last = self._store.last_refit(self._stream_id)
        ended_us = _find_ended(last, last_judged_end_us, first_part_end_us)
        return find_seal_limit(self._reader.schedule, self._windows(), last, ended_us)

    def _has_nothing_to_do(self) -> bool:
        """Return whether the stream has no refits, and none that an earlier setting has left open.

        Without refits in its settings no process begins one, so that the table is read once.
        """
        if any(rules.refit is not None for _, rules in self._reader.schedule.rows):
            self._has_open_refit = None
            return False
        if self._has_open_refit is not False:
            last = self._store.last_refit(self._stream_id)
            self._has_open_refit = last is not None and last.state in {"fitting", "shadow"}
        return not self._has_open_refit

    @property
    def is_fitting(self) -> bool:
        """Return whether a fit of this process runs."""
        return self._job is not None

    def close(self) -> None:
        """End a running fit; its refit is fitted again by the next owner."""
        if self._job is not None:
            self._job.close()
        self._job = self._job_due_us = None

    def _windows(self) -> WindowSchedule:
        return make_window_schedule(self._reader.schedule.newest.windows)

    def _begin(self, last: RefitRow | None, due_us: int) -> bool:
        rules = self._reader.schedule.at(due_us)
        assert rules.refit is not None, "it is due"
        after_us = due_us - rules.refit.over_us
        samples = self._store.read_samples(self._stream_id, after_us, due_us)
        incidents = self._store.find_incidents(self._stream_id, BLOCKING_KINDS, after_us, due_us)
        start = decide_start(due_us, rules, incidents, samples[0].window_start_us if samples else None)
        if self._store.has_other_shadow(self._stream_id):
            start = RefitStart(state="skipped", reason="a shadow model of a person runs")
        details = {"from_us": start.from_us, "excluded": [list(each) for each in start.excluded]}
        row = RefitRow(due_us=due_us, state=start.state, details=details)
        if start.reason is None:
            start = replace(start, reason=_explain_shortage(self._read_training_set(row)))
        if start.reason is not None:
            state = start.state if start.state == "postponed" else "skipped"
            row = RefitRow(due_us=due_us, state=state, details={"reason": start.reason})
        stored = self._store.begin(self._stream_id, None if last is None else last.due_us, row)
        if stored and start.reason is not None:
            self._log(logging.INFO, f"the model was not fitted again: {start.reason}")
        return stored

    def _follow_fit(self, row: RefitRow) -> bool:
        """Start the fit of a refit if this process does not run it, and store its result once it is there."""
        try:
            if self._job is None or self._job_due_us != row.due_us:
                self.close()
                training = self._read_training_set(row)
                self._job, self._job_due_us = self._fitter.start(training, self._model_settings()), row.due_us
            result = self._job.poll()
        except RefitFailed as error:
            self.close()
            self._store.fail(self._stream_id, row, "failed", str(error))
            self._log(logging.WARNING, f"the model could not be fitted again: {error}; the active model remains")
            return True
        if result is None:
            return False
        self.close()
        self._store_result(row, result)
        return True

    def _read_training_set(self, row: RefitRow) -> TrainingSet:
        """Return the sampled events of the refit."""
        names_of = self._store.feature_names(self._stream_id)
        newest = self._thresholds.newest_threshold(self._stream_id)
        assert newest is not None, "a stream with judged windows has a threshold"
        names = names_of[newest.model_id]
        samples = select_samples(
            self._store.read_samples(self._stream_id, row.details["from_us"], row.due_us),
            [(start_us, end_us) for start_us, end_us in row.details["excluded"]],
            {model_id for model_id, own in names_of.items() if own == names},
        )
        return build_training_set(samples, names, derived=derived_fields(self._models.load(newest.model_id).record))

    def _store_result(self, row: RefitRow, result: RefittedModel) -> None:
        rules = self._reader.schedule.at(row.due_us)
        if rules.refit is None:
            self._store.fail(self._stream_id, row, "skipped", "model.refit was removed during the fit")
            return
        facts = self._thresholds.tick_facts(self._stream_id)
        since_us = find_shadow_start(row.due_us, facts.lead_us, self._windows())
        threshold = estimate_first_threshold(result.reference, rules.percentile, method=rules.method).value
        fitted = FittedShadow(
            model=result.new_model,
            percentile=rules.percentile,
            threshold=threshold,
            since_us=since_us,
            gate_us=find_gate_time(row.due_us, since_us, rules),
        )
        if self._store.finish(self._stream_id, row, fitted) is not None:
            events = result.new_model.summary["events"]
            self._log(logging.INFO, f"fitted again on {events:,} sampled events; the model scores as shadow model")

    def _decide_gate(self, row: RefitRow) -> bool:
        assert row.model_id is not None, "a shadow model is stored with the refit"
        assert row.gate_us is not None, "its gate has a time"
        rules = self._reader.schedule.at(row.gate_us)
        self._store.merge_shadow_windows(self._stream_id, merge_shadow_parts)
        verdict = self._evaluate(row.model_id, rules)
        details = {"holds": verdict.holds, "reason": verdict.reason, **verdict.numbers}
        if verdict.holds:
            decided = self._store.promote(
                self._stream_id, row, self._make_threshold_factory(row.model_id, row.gate_us, rules), details
            )
        else:
            decided = self._store.reject(self._stream_id, row, details)
        if decided:
            done = "is active" if verdict.holds else "does not become active"
            self._log(logging.INFO, f"the model that was fitted again {done}: {verdict.reason}")
        return decided

    def _evaluate(self, model_id: int, rules: StreamRules) -> GateVerdict:
        newest = self._thresholds.newest_threshold(self._stream_id)
        assert newest is not None, "a shadow model requires an active model"
        active, shadow = self._models.load(newest.model_id), self._models.load(model_id)
        threshold = estimate_first_threshold(shadow.reference, rules.percentile, method=rules.method).value
        pairs = [
            WindowPair(
                active=decode_part(window.active_payload), shadow=decode_part(window.shadow_payload), fired=window.fired
            )
            for window in self._store.shadow_windows(self._stream_id, model_id)
        ]
        return evaluate_refit(
            pairs,
            ComparedModel(
                kind=active.record.kind,
                scale=load_scale(newest.details),
                dispersion=load_count_model(newest.details).dispersion,
            ),
            ComparedModel(kind=shadow.record.kind, scale=Scale.from_energies(shadow.reference)),
            (int((shadow.reference > threshold).sum()), len(shadow.reference)),
            rules,
        )

    def _make_threshold_factory(
        self, model_id: int, gate_us: int, rules: StreamRules
    ) -> Callable[[int, Activation], ThresholdRow]:
        newest = self._thresholds.newest_threshold(self._stream_id)
        assert newest is not None, "a shadow model requires an active model"
        reference = self._models.load(model_id).reference
        cache = LookBackCache(self._stream_id, model_id, Scale.from_energies(reference))
        summary = cache.refresh(self._thresholds, gate_us, rules)
        return partial(
            first_threshold_from_history,
            cache.look_back,
            summary,
            reference,
            rules,
            load_season(newest.details),
            carried=carry_dispersion(newest.details["law"]),
        )

    def _log(self, level: int, text: str) -> None:
        log.log(level, "Stream %s: %s.", self._stream, text, extra={"action": "refit", "stream": self._stream})


def _explain_shortage(training: TrainingSet) -> str | None:
    """Return why a fit on these events is not possible; None if it is."""
    needed = min_training_events(len(training.names))
    if len(training) >= needed:
        return None
    return f"the samples hold {len(training):,} events, a fit needs at least {needed:,}"


def _find_ended(last: RefitRow | None, last_judged_end_us: int | None, first_part_end_us: int | None) -> int | None:
    """Return the end of the last judged window if no refit has followed it, otherwise that of the first open one."""
    if last_judged_end_us is None or (last is not None and last_judged_end_us <= last.due_us):
        return first_part_end_us
    return last_judged_end_us


def _is_reached(time_us: int | None, facts: TickFacts, windows: WindowSchedule) -> bool:
    """Return whether the stream is sealed up to a time and all windows before it are judged."""
    if time_us is None or facts.sealed_until_us is None or facts.sealed_until_us < windows.floor_us(time_us):
        return False
    return facts.first_part_end_us is None or facts.first_part_end_us > time_us
