"""Back-test: what cells share: where the same windows count they add them up once, and draw the same threshold once."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.findings.calibration import ThresholdRule, tick_threshold
from monitor.parts import Scale
from monitor.percentiles.look_back import LookBack
from monitor.percentiles.sketch import EnergySketch
from monitor.spikes import CountLaw
from storage.calibration import NewThreshold, StoredThreshold

_KEPT = 8
"""Cells go from tick to tick together; what the last few ticks added up is all that another cell can want."""

Drawn = tuple[NewThreshold, CountLaw, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """All that a threshold is drawn from; the promise, in which cells of one percentile differ, is not among it."""

    previous: StoredThreshold
    windows: Sequence[Hashable]
    clean: Sequence[int]
    rule: tuple[object, ...]
    tick_us: int
    valid_from_us: int
    most_events: int


class Shared:
    """The sketches and thresholds of the last few ticks; of one grid, whose cells all have the same energies."""

    def __init__(self) -> None:
        self._sketches: dict[tuple[Scale, tuple[Hashable, ...]], EnergySketch] = {}
        self._drawn: list[tuple[_Asked, Drawn]] = []

    def look_back(self, scale: Scale) -> LookBack:
        """Return a look-back that shares its sketches."""
        return _SharedLookBack(scale, self)

    def sketch_of(self, look_back: "_SharedLookBack") -> EnergySketch:
        """Return the sketch of a look-back's windows, added up at most once."""
        key = look_back.scale, tuple(look_back.windows)
        if key not in self._sketches:
            self._sketches[key] = look_back.added_up()
            while len(self._sketches) > _KEPT:
                self._sketches.pop(next(iter(self._sketches)))
        return self._sketches[key]

    def draw(
        self,
        previous: StoredThreshold,
        look_back: LookBack,
        clean: Sequence[int],
        reference: NDArray[np.float32],
        rule: ThresholdRule,
        **more: Any,
    ) -> Drawn:
        """Return the threshold of a tick as `tick_threshold` does, drawn at most once."""
        asked = _Asked(
            previous=previous,
            windows=look_back.windows,
            clean=clean,
            rule=(rule.percentile, rule.method),
            **more,
        )
        for known, drawn in self._drawn:
            if known == asked:
                return drawn
        drawn = tick_threshold(previous, look_back, clean, reference, rule, **more)
        self._drawn = [*self._drawn, (asked, drawn)][-_KEPT:]
        return drawn


class _SharedLookBack(LookBack):
    def __init__(self, scale: Scale, shared: Shared) -> None:
        super().__init__(scale)
        self._shared = shared

    def sketch(self) -> EnergySketch:
        """Return the sketch of the windows in it."""
        return self._shared.sketch_of(self)

    def added_up(self) -> EnergySketch:
        """Return the sketch, added up here."""
        return super().sketch()
