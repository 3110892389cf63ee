"""Back-test: what cells share: where the same windows count they add them up once, and draw the same threshold once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.counts import CountModel
from monitor.statistics.part import Scale
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.tick import ThresholdRule, compute_tick_threshold
from storage.control.thresholds import NewThreshold, StoredThreshold

_CACHED_TICKS = 8
"""Cells go from tick to tick together; what the last few ticks added up is all that another cell can want."""

ThresholdResult = tuple[NewThreshold, CountModel, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ThresholdKey:
    """All that a threshold is drawn from; the promise, in which cells of one percentile differ, is not among it."""

    previous: StoredThreshold
    windows: Sequence[Hashable]
    clean: Sequence[int]
    rule: tuple[object, ...]
    tick_us: int
    valid_from_us: int
    most_events: int


class SharedCache:
    """The sketches and thresholds of the last few ticks; of one grid, whose cells all have the same energies."""

    def __init__(self) -> None:
        self._sketches: dict[tuple[Scale, tuple[Hashable, ...]], EnergySketch] = {}
        self._drawn: list[tuple[_ThresholdKey, ThresholdResult]] = []

    def make_look_back(self, scale: Scale) -> LookBack:
        """Return a look-back that shares its sketches."""
        return _CachedLookBack(scale, self)

    def get_sketch(self, look_back: "_CachedLookBack") -> EnergySketch:
        """Return the sketch of a look-back's windows, added up at most once."""
        key = look_back.scale, tuple(look_back.windows)
        if key not in self._sketches:
            self._sketches[key] = look_back.compute_sketch()
            while len(self._sketches) > _CACHED_TICKS:
                self._sketches.pop(next(iter(self._sketches)))
        return self._sketches[key]

    def compute_threshold(
        self,
        previous: StoredThreshold,
        look_back: LookBack,
        clean: Sequence[int],
        reference: NDArray[np.float32],
        rule: ThresholdRule,
        **more: Any,
    ) -> ThresholdResult:
        """Return the threshold of a tick as `tick_threshold` does, drawn at most once."""
        asked = _ThresholdKey(
            previous=previous,
            windows=look_back.windows,
            clean=clean,
            rule=(rule.percentile, rule.method),
            **more,
        )
        for known, drawn in self._drawn:
            if known == asked:
                return drawn
        drawn = compute_tick_threshold(previous, look_back, clean, reference, rule, **more)
        self._drawn = [*self._drawn, (asked, drawn)][-_CACHED_TICKS:]
        return drawn


class _CachedLookBack(LookBack):
    def __init__(self, scale: Scale, shared: SharedCache) -> None:
        super().__init__(scale)
        self._shared = shared

    def sketch(self) -> EnergySketch:
        """Return the sketch of the windows in it."""
        return self._shared.get_sketch(self)

    def compute_sketch(self) -> EnergySketch:
        """Return the sketch, added up here."""
        return super().sketch()
