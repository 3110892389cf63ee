"""Cache of sketches and thresholds that the cells of a grid share."""

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config.budget import EARLY_ALPHA, false_alarm_probability
from config.stream_rules import StreamRules
from config.streams import ModelSettings
from monitor.control_plane.control_plane import ThresholdCalculator
from monitor.models.refit_fit import FitJob, InProcessFitter
from monitor.models.training_set import TrainingSet
from monitor.statistics.part import Scale
from monitor.statistics.season import SeasonState
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.tick import ThresholdResult
from storage.control.thresholds import ThresholdRow

_CACHED_TICKS = 8
"""Number of cached ticks. Cells advance tick by tick together, so older results are not used again."""


_CACHED_FITS = 8
"""Number of cached fits: cells whose incidents differ fit on other windows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ThresholdKey:
    """Inputs of a threshold.

    Of the false-alarm budget, in which cells of one percentile differ, only `learns_early` is an input: whether it is
    large enough for a count model of few windows (`config.budget`).
    """

    previous: ThresholdRow
    windows: Sequence[Hashable]
    excluded: Sequence[Hashable]
    fired: frozenset[Hashable]
    clean: Sequence[int]
    rule: tuple[object, ...]
    learns_early: bool
    tick_us: int
    valid_from_us: int
    most_events: int
    season: SeasonState | None


class SharedFitter:
    """Fits in this process; the last few results are kept for cells with the same training events."""

    def __init__(self) -> None:
        self._results: dict[bytes, FitJob] = {}

    def start(self, training: TrainingSet, settings: ModelSettings) -> FitJob:
        """Return the fit on training events, computed at most once."""
        digest = hashlib.sha256(settings.model_dump_json().encode())
        digest.update(repr(training.names).encode())
        digest.update(np.ascontiguousarray(training.features).tobytes())
        if training.history is not None:
            digest.update(repr(training.history.derived).encode())
            digest.update(np.ascontiguousarray(training.history.context).tobytes())
        if training.weights is not None:
            digest.update(training.weights.tobytes())
        key = digest.digest()
        if key not in self._results:
            self._results[key] = InProcessFitter().start(training, settings)
            while len(self._results) > _CACHED_FITS:
                self._results.pop(next(iter(self._results)))
        return self._results[key]


class SharedCache(ThresholdCalculator):
    """Sketches and thresholds of the last few ticks of one grid; all its cells have the same energies."""

    def __init__(self) -> None:
        self._sketches: dict[tuple[Scale, tuple[Hashable, ...]], EnergySketch] = {}
        self._results: list[tuple[_ThresholdKey, ThresholdResult]] = []

    def make_look_back(self, scale: Scale) -> LookBack:
        """Return a look-back that takes its sketches from this cache."""
        return _CachedLookBack(scale, self)

    def get_sketch(self, look_back: "_CachedLookBack") -> EnergySketch:
        """Return the merged sketch of a look-back's windows, computed at most once."""
        key = look_back.scale, tuple(look_back.windows)
        if key not in self._sketches:
            self._sketches[key] = look_back.compute_sketch()
            while len(self._sketches) > _CACHED_TICKS:
                self._sketches.pop(next(iter(self._sketches)))
        return self._sketches[key]

    def compute_threshold(
        self,
        previous: ThresholdRow,
        look_back: LookBack,
        clean: Sequence[int],
        reference: NDArray[np.float32],
        rules: StreamRules,
        *,
        tick_us: int,
        valid_from_us: int,
        most_events: int,
        season: SeasonState | None,
    ) -> ThresholdResult:
        """Return the threshold of a tick as `compute_tick_threshold` does, computed at most once."""
        key = _ThresholdKey(
            previous=previous,
            windows=look_back.windows,
            excluded=list(look_back.excluded),
            fired=look_back.fired,
            clean=clean,
            rule=(rules.percentile, rules.method),
            learns_early=false_alarm_probability(rules.per_week, rules.size_us) >= EARLY_ALPHA,
            tick_us=tick_us,
            valid_from_us=valid_from_us,
            most_events=most_events,
            season=season,
        )
        for cached, result in self._results:
            if cached == key:
                return result
        result = super().compute_threshold(
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
        self._results = [*self._results, (key, result)][-_CACHED_TICKS:]
        return result


class _CachedLookBack(LookBack):
    def __init__(self, scale: Scale, shared: SharedCache) -> None:
        super().__init__(scale)
        self._shared = shared

    def sketch(self) -> EnergySketch:
        """Return the merged sketch of its windows from the cache."""
        return self._shared.get_sketch(self)

    def compute_sketch(self) -> EnergySketch:
        """Merge the sketches of its windows."""
        return super().sketch()
