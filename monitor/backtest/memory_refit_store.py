"""Refits, samples and shadow windows of one stream in memory, as `storage.control.refits` stores them in a database."""
# ruff: noqa: ARG002 - the store holds one stream with one caller, so some arguments of the protocol are not used

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from monitor.backtest.memory_store import MemoryStore
from storage.control.models import Activation, ModelRecord, NewModel
from storage.control.refits import FittedShadow, IncidentSpan, RefitRow, RefitState
from storage.control.samples import StoredSample
from storage.control.shadows import MergedWindow, ScheduledShadow, ShadowWindow
from storage.control.thresholds import ThresholdRow


class MemoryRefitStore:
    """The refits of one stream.

    Args:
        memory: The windows, thresholds and incidents of the stream.
        records: The models by id; it grows with the models that are added.
        add_model: Adds a model to those that the stream can score with; returns its id.

    Attributes:
        rows: The refits in the order of their due times.
    """

    def __init__(
        self, memory: MemoryStore, records: Mapping[int, ModelRecord], add_model: Callable[[NewModel], int]
    ) -> None:
        self.rows: list[RefitRow] = []
        self._memory = memory
        self._records = records
        self._add_model = add_model

    def last_refit(self, stream_id: int) -> RefitRow | None:
        """Return the refit with the latest due time; None before the first."""
        return self.rows[-1] if self.rows else None

    def find_incidents(self, stream_id: int, kinds: Sequence[str], after_us: int, until_us: int) -> list[IncidentSpan]:
        """Return the incidents that were open at some time in (after, until], as known at `until_us`."""
        rows = [life.row for life in self._memory.incidents]
        spans = [
            IncidentSpan(
                kind=row.kind,
                since_us=row.window_start_us,
                until_us=None if row.resolved_at_us is None or row.resolved_at_us > until_us else row.resolved_at_us,
            )
            for row in rows
            if row.kind in kinds
            and row.opened_at_us <= until_us
            and (row.resolved_at_us is None or row.resolved_at_us > after_us)
        ]
        return sorted(spans, key=lambda span: (span.since_us, span.kind))

    def read_samples(self, stream_id: int, after_us: int, until_us: int) -> list[StoredSample]:
        """Return the samples of the windows that start at or after `after_us` and end at or before `until_us`."""
        samples = self._memory.samples
        del samples[: bisect_left(samples, after_us, key=lambda sample: sample.window_start_us)]
        return [sample for sample in samples if sample.window_end_us <= until_us]

    def feature_names(self, stream_id: int) -> dict[int, tuple[str, ...]]:
        """Return the feature names of each model of a stream."""
        return {model_id: record.feature_names for model_id, record in self._records.items()}

    def has_other_shadow(self, stream_id: int) -> bool:
        """Return False: nobody starts a shadow model in a back-test."""
        return False

    def begin(self, stream_id: int, last_due_us: int | None, row: RefitRow) -> bool:
        """Insert a refit."""
        self.rows.append(row)
        return True

    def finish(self, stream_id: int, row: RefitRow, fitted: FittedShadow) -> int | None:
        """Store the model of a refit as the shadow model; return its id."""
        model_id = self._add_model(fitted.model)
        self._set_state(row, "shadow", {"since_us": fitted.since_us}, model_id=model_id, gate_us=fitted.gate_us)
        shadow = ScheduledShadow(model_id=model_id, threshold=fitted.threshold, since_us=fitted.since_us)
        self._memory.set_shadows((shadow,))
        return model_id

    def fail(self, stream_id: int, row: RefitRow, state: Literal["failed", "skipped"], reason: str) -> bool:
        """Store that a refit brought no model."""
        self._set_state(row, state, {"reason": reason})
        return True

    def shadow_windows(self, stream_id: int, model_id: int) -> list[ShadowWindow]:
        """Return the judged windows of the active model that a shadow model scored, in order."""
        memory = self._memory
        scored, active = memory.shadow.get(model_id, {}), memory.activations[-1][0]
        return [
            ShadowWindow(
                window_start_us=window.window_start_us,
                window_end_us=window.window_end_us,
                fired=window.fired,
                active_threshold_id=memory.threshold_at(index).id or 0,
                active_payload=window.payload,
                shadow_payload=scored[window.window_start_us],
            )
            for index, window in enumerate(memory.judged)
            if window.window_start_us in scored and memory.threshold_at(index).model_id == active
        ]

    def merge_shadow_windows(self, stream_id: int, merge: Callable[[Sequence[bytes]], MergedWindow]) -> None:
        """Merge the shadow parts of all sealed windows."""
        self._memory.merge_shadow_parts(lambda payloads: merge(payloads).payload)

    def promote(
        self,
        stream_id: int,
        row: RefitRow,
        first_threshold: Callable[[int, Activation], ThresholdRow],
        verdict: Mapping[str, Any],
    ) -> bool:
        """Activate the model of a refit from the next free window on."""
        assert row.model_id is not None, "a shadow model is stored with the refit"
        self._memory.insert_threshold(first_threshold(row.model_id, self._memory.find_next_activation()))
        self._memory.set_shadows(())
        self._set_state(row, "promoted", verdict)
        return True

    def reject(self, stream_id: int, row: RefitRow, verdict: Mapping[str, Any]) -> bool:
        """End the shadow run of a refit."""
        self._memory.set_shadows(())
        self._set_state(row, "rejected", verdict)
        return True

    def _set_state(self, row: RefitRow, state: RefitState, details: Mapping[str, Any], **values: Any) -> None:
        index = self.rows.index(row)
        self.rows[index] = replace(row, state=state, details={**row.details, **details}, **values)
