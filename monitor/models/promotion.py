"""Promotion of a shadow model: evaluate the gate, and activate the model with a threshold from its own windows."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from config.stream_rules import StreamRules
from monitor.models.shadow_gate import ComparedModel, GateVerdict, WindowPair, evaluate_gate
from monitor.models.shadow_parts import merge_shadow_parts
from monitor.statistics.counts import count_model_to_json
from monitor.statistics.part import Scale
from monitor.statistics.part_codec import decode_part
from monitor.statistics.season import SeasonState, load_season
from monitor.thresholds.carried import CarriedDispersion, add_carried, carried_to_json
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.look_back_cache import LookBackCache, LookBackSummary
from monitor.thresholds.tick import (
    build_first_threshold,
    compute_tick_threshold,
    load_count_model,
    load_scale,
)
from storage.control.models import Activation, ModelRecord, ModelStore
from storage.control.shadows import ShadowModel, ShadowStore
from storage.control.thresholds import ThresholdRow, ThresholdStore

log = logging.getLogger(__name__)

Float32 = NDArray[np.float32]


class Promoter:
    """Evaluates and promotes the shadow model of one stream.

    `reference` returns the reference energies of a model, ascending. `rules_at` returns the rules that are valid at an
    event time; None: `rules` are always valid.
    """

    def __init__(
        self,
        rules: StreamRules,
        stream_id: int,
        *,
        shadows: ShadowStore,
        models: ModelStore,
        thresholds: ThresholdStore,
        reference: Callable[[int], Float32],
        rules_at: Callable[[int], StreamRules] | None = None,
    ) -> None:
        self._stream = rules.stream
        self._rules_at = rules_at or (lambda _: rules)
        self._stream_id = stream_id
        self._shadows = shadows
        self._models = models
        self._thresholds = thresholds
        self._reference = reference

    def run_due(self) -> bool:
        """Merge the shadow's sealed windows and decide on it when it is due; return whether windows were merged.

        While the evidence is insufficient, the decision waits for further windows.
        """
        if not self._merge_windows():
            return False
        shadow = self._shadows.current(self._stream_id)
        if shadow is not None and _is_due(shadow):
            verdict = self.evaluate(shadow)
            if verdict.holds is not None:
                self._apply_verdict(shadow, verdict)
        return True

    def _merge_windows(self) -> bool:
        merged = False
        while self._shadows.merge_windows(self._stream_id, merge_shadow_parts):
            merged = True
        return merged

    def _apply_verdict(self, shadow: ShadowModel, verdict: GateVerdict) -> None:
        stream_id, model_id = self._stream_id, shadow.model_id
        details = {"holds": verdict.holds, "reason": verdict.reason, **verdict.numbers}
        if verdict.holds:
            make_threshold = self._make_threshold_factory(model_id)
            done = self._shadows.promote(stream_id, model_id, make_threshold, details) is not None
        else:
            done = self._shadows.end(stream_id, model_id, details)
        if not done:
            return  # a user has promoted it or stored another shadow model in the meantime
        log.log(
            logging.INFO if verdict.holds else logging.WARNING,
            "Stream %s: model %d %s: %s.",
            self._stream,
            shadow.version,
            "is promoted" if verdict.holds else "is not promoted and becomes a candidate",
            verdict.reason,
            extra={"action": "promote", "stream": self._stream},
        )

    def evaluate(self, shadow: ShadowModel) -> GateVerdict:
        """Evaluate the gate for the model on the stored windows."""
        self._merge_windows()
        active, newest = self._models.active(self._stream_id), self._thresholds.newest_threshold(self._stream_id)
        assert active is not None, "a shadow model requires an active model"
        assert newest is not None, "an active model has a threshold"
        reference = self._reference(shadow.model_id)
        derived = {model.id: model.derived_fields for model in self._models.list(self._stream_id)}
        pairs = [
            WindowPair(
                active=decode_part(window.active_payload), shadow=decode_part(window.shadow_payload), fired=window.fired
            )
            for window in self._shadows.windows(self._stream_id, shadow.model_id)
        ]
        n_above = int((reference > shadow.threshold).sum())
        return evaluate_gate(
            pairs,
            ComparedModel(
                kind=active.kind,
                scale=load_scale(newest.details),
                dispersion=load_count_model(newest.details).dispersion,
                derived=derived[active.id],
            ),
            ComparedModel(kind=shadow.kind, scale=Scale.from_energies(reference), derived=derived[shadow.model_id]),
            (n_above, len(reference)),
            self._rules_at(shadow.sealed_until_us or 0),
        )

    def promote(self, model_id: int) -> ModelRecord:
        """Activate a stored model from the next free window on.

        Its threshold is estimated as at a tick from the windows that it scored as shadow model, if there are any.
        The threshold therefore keeps its rank across the change of model, and no window lacks a valid threshold.
        """
        return self._models.promote(self._stream_id, model_id, self._make_threshold_factory(model_id))

    def _make_threshold_factory(self, model_id: int) -> Callable[[int, Activation], ThresholdRow]:
        self._merge_windows()
        facts = self._thresholds.tick_facts(self._stream_id)
        sealed_us = facts.sealed_until_us or 0
        rules = self._rules_at(sealed_us)
        cache = LookBackCache(self._stream_id, model_id, Scale.from_energies(self._reference(model_id)))
        summary = cache.refresh(self._thresholds, sealed_us, rules)
        newest = self._thresholds.newest_threshold(self._stream_id)
        season = None if newest is None else load_season(newest.details)
        return partial(first_threshold_from_history, cache.look_back, summary, self._reference(model_id), rules, season)


def first_threshold_from_history(
    look_back: LookBack,
    refreshed: LookBackSummary,
    reference: Float32,
    rules: StreamRules,
    season: SeasonState | None,
    model_id: int,
    activation: Activation,
    *,
    carried: CarriedDispersion | None = None,
) -> ThresholdRow:
    """Return the first threshold of a promoted model, from the windows that it has scored before, if there are any.

    Args:
        look_back: The windows that the model scored as shadow model or during an earlier activation.
        refreshed: The selection of windows that count.
        reference: The reference energies of the model, ascending.
        rules: The rules of the stream.
        season: The season of the threshold before, which holds for all models.
        model_id: The model.
        activation: The time from which the model is valid.
        carried: The dispersion that the model takes over from the one before it.
    """
    first = build_first_threshold(reference, model_id, activation, rules.percentile, rules.method, season)
    if carried is not None:
        first = replace(first, details={**first.details, "carried": carried_to_json(carried)})
    if not len(look_back):
        law = count_model_to_json(add_carried(load_count_model(first.details), carried))
        return replace(first, details={**first.details, "law": law})
    threshold, _, _ = compute_tick_threshold(
        first,
        look_back,
        refreshed.clean,
        reference,
        rules,
        tick_us=activation.computed_at_us,
        valid_from_us=activation.valid_from_us,
        most_events=refreshed.most_events,
        season=season,
    )
    return threshold


def _is_due(shadow: ShadowModel) -> bool:
    sealed = shadow.sealed_until_us
    return shadow.due_us is not None and sealed is not None and sealed >= shadow.due_us
