"""In-memory store of the drift step, for the back-test. It reads the windows of a `MemoryStore`."""

# ruff: noqa: ARG002 - the store holds one stream with one caller, so some arguments of the protocol are not used

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monitor.backtest.memory_store import MemoryStore
from storage.control.drift import (
    DriftBaselineRow,
    DriftDayRow,
    DriftFacts,
    DriftModel,
    DriftUpdate,
    DriftWindow,
    season_kind,
)
from storage.control.drift_cells import FeatureSummaryRow
from storage.control.samples import StoredSample, spread_evenly


class MemoryDriftStore:
    """Baselines and progress of the drift step. Incidents are written to the `MemoryStore` of the stream."""

    def __init__(self, memory: MemoryStore) -> None:
        self._memory = memory
        self._until_us: int | None = None
        self._state: Mapping[str, Any] = {}
        self._baselines: list[DriftBaselineRow] = []
        self._base_from_us: int | None = None
        self._days: list[DriftDayRow] = []
        self._summaries: dict[tuple[int, int, int], FeatureSummaryRow] = {}

    def drift_facts(self, stream_id: int, horizons_us: Sequence[int]) -> DriftFacts:
        """Return the progress of the drift step and the windows that it can process next."""
        progress = self._memory.tick_facts(stream_id)
        return DriftFacts(
            until_us=self._until_us,
            rebased_from_us=None,
            state=self._state,
            sealed_until_us=progress.sealed_until_us,
            first_part_end_us=progress.first_part_end_us,
            first_windows_us={length: self._first_window_us(length) for length in horizons_us},
            next_window_us=self._first_window_us(1),
        )

    def _first_window_us(self, horizon_us: int) -> int | None:
        starts = self._memory.judged_starts_us
        if self._until_us is None:
            return starts[0] if starts else None
        at = bisect_left(starts, self._until_us // horizon_us * horizon_us)
        return starts[at] if at < len(starts) else None

    def find_model_before(self, stream_id: int, before_us: int) -> DriftModel | None:
        """Return the model of the last window that starts before a time; None if there is no such window."""
        at = bisect_left(self._memory.judged_starts_us, before_us) - 1
        if at < 0:
            return None
        row = self._memory.threshold_at(at)
        # The newest activation of the same model that is not later than this row.
        since_us = next(
            valid_from_us
            for model_id, valid_from_us in reversed(self._memory.activations)
            if model_id == row.model_id and valid_from_us <= row.valid_from_us
        )
        return DriftModel(model_id=row.model_id, activated_us=since_us, season=season_kind(row.details))

    def windows(self, stream_id: int, model_id: int, from_us: int, until_us: int) -> Iterator[DriftWindow]:
        """Yield the judged windows of a model that start in [from, until), in order."""
        memory = self._memory
        for at in range(bisect_left(memory.judged_starts_us, from_us), bisect_left(memory.judged_starts_us, until_us)):
            if memory.threshold_at(at).model_id == model_id:
                window = memory.judged[at]
                yield DriftWindow(
                    window_start_us=window.window_start_us,
                    events=window.events,
                    outliers=window.outliers,
                    fired=window.fired,
                    payload=window.payload,
                )

    def baselines(self, stream_id: int, from_us: int) -> list[DriftBaselineRow]:
        """Return the frozen baselines that begin at or after `from_us`, in order."""
        begun = [each for each in self._baselines if each.from_us >= from_us]
        return sorted(begun, key=lambda each: (each.from_us, each.horizon_us))

    def days(self, stream_id: int, base_from_us: int) -> list[DriftDayRow]:
        """Return the stored days since the start of a base, in order."""
        return list(self._days) if base_from_us == self._base_from_us else []

    def spread_samples(self, stream_id: int, model_id: int, from_us: int, until_us: int) -> list[StoredSample]:
        """Return the samples of the windows of a model that start in [from, until), evenly spread."""
        samples = self._memory.samples
        first, end = (bisect_left(samples, us, key=lambda each: each.window_start_us) for us in (from_us, until_us))
        chosen = set(spread_evenly([each.window_start_us for each in samples[first:end]]))
        return [each for each in samples[first:end] if each.window_start_us in chosen and each.model_id == model_id]

    def base_summary(self, model_id: int, horizon_us: int, from_us: int) -> FeatureSummaryRow | None:
        """Return the distributions of the features in a frozen baseline; None without them."""
        return self._summaries.get((model_id, horizon_us, from_us))

    def store_update(self, stream_id: int, stream: str, before_us: int | None, step: DriftUpdate) -> bool:
        """Store a step; return False if another step was stored since `before_us`."""
        if before_us != self._until_us:
            return False
        self._until_us, self._state = step.until_us, step.state
        self._baselines += step.baselines
        for each in step.summaries:
            if each.kind == "base":
                self._summaries.setdefault((each.model_id, each.horizon_us, each.from_us), each)
        if step.days is not None:
            days = [*self.days(stream_id, step.days.base_from_us), *step.days.rows]
            self._base_from_us = step.days.base_from_us
            self._days = [each for each in days if each.start_us >= step.days.keep_from_us]
        self._memory.apply_change(step.update_incidents, step.until_us)
        return True
