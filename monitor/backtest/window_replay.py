"""Back-test over stored windows: their statistics hold how many energies lie above any limit."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from monitor.backtest.cells import GridCell
from monitor.statistics.part import Part, Scale, encode_part
from monitor.thresholds.look_back import count_above
from storage.control.models import Activation
from storage.ledger.commit import WindowPartRow
from storage.ledger.ledger import ScheduledThreshold


class WindowReplay:
    """The data plane of one cell over windows that were folded long ago: only their outliers are counted anew."""

    def __init__(self, cell: GridCell, activations: Sequence[tuple[int, Activation]]) -> None:
        self._cell = cell
        self._activations = list(activations)
        self._last_end_us: int | None = None

    def add_window(self, start_us: int, end_us: int, model_id: int, part: Part, scale: Scale) -> None:
        """Take one window of a model, with the scale of its energies, and judge it."""
        cell, memory = self._cell, self._cell.memory
        self._activate_models(end_us)
        if self._last_end_us is not None and start_us > self._last_end_us:
            # The first event after a gap closes what came before it, before its own limit is known.
            memory.add_parts([], start_us)
            cell.run_due()
        limit = _threshold_at(memory.schedule(), start_us, model_id)
        outliers = count_above(part, scale, limit.threshold)
        row = WindowPartRow(
            window_start_us=start_us,
            window_end_us=end_us,
            threshold_id=limit.id,
            events=part.events,
            outliers=outliers,
            late=0,
            dead=part.dead,
            payload=_encode_with_outliers(part, outliers),
        )
        memory.add_parts([row], end_us + cell.grace_us)
        cell.run_due()
        self._last_end_us = end_us

    def finish(self) -> None:
        """Judge the rest; nothing follows."""
        self._cell.memory.end_source()
        self._cell.run_due()

    def _activate_models(self, end_us: int) -> None:
        """Activate the models that were stored before the window was sealed, and the first one in any case."""
        while self._activations and (
            self._activations[0][1].computed_at_us < end_us or not self._cell.memory.thresholds
        ):
            self._cell.activate(*self._activations.pop(0))


@lru_cache(maxsize=16)
def _encode_with_outliers(part: Part, outliers: int) -> bytes:
    """Return a part with other outliers as it is stored; cells of one percentile mostly have the same."""
    return encode_part(replace(part, outliers=outliers))


def _threshold_at(schedule: Sequence[ScheduledThreshold], start_us: int, model_id: int) -> ScheduledThreshold:
    """Return the row that is valid for a window of a model; the first one holds for everything before it."""
    own = [row for row in schedule if row.model_id == model_id]
    if not own:
        raise RuntimeError(f"the window at {start_us} is of model {model_id}, which no threshold row names")
    return next((row for row in reversed(own) if row.valid_from_us <= start_us), own[0])
