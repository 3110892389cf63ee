"""Back-test: look-backs that share their sketches: cells in which the same windows count add them up once."""

from collections.abc import Hashable

from monitor.parts import Scale
from monitor.percentiles.look_back import LookBack
from monitor.percentiles.sketch import EnergySketch

_KEPT = 8
"""Cells go from tick to tick together; what the last few ticks added up is all that another cell can want."""


class Sketches:
    """The sketches of the last few sets of windows; of one grid, whose cells all have the same energies."""

    def __init__(self) -> None:
        self._known: dict[tuple[Scale, frozenset[Hashable]], EnergySketch] = {}

    def look_back(self, scale: Scale) -> LookBack:
        """Return a look-back that shares its sketches."""
        return _SharedLookBack(scale, self)

    def of(self, look_back: "_SharedLookBack") -> EnergySketch:
        """Return the sketch of a look-back's windows, added up at most once."""
        key = look_back.scale, frozenset(look_back.windows)
        if key not in self._known:
            self._known[key] = look_back.added_up()
            while len(self._known) > _KEPT:
                self._known.pop(next(iter(self._known)))
        return self._known[key]


class _SharedLookBack(LookBack):
    def __init__(self, scale: Scale, sketches: Sketches) -> None:
        super().__init__(scale)
        self._sketches = sketches

    def sketch(self) -> EnergySketch:
        """Return the sketch of the windows in it."""
        return self._sketches.of(self)

    def added_up(self) -> EnergySketch:
        """Return the sketch, added up here."""
        return super().sketch()
