"""Back-test over stored windows: their statistics give the number of energies above any threshold."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from monitor.backtest.cells import GridCell
from monitor.statistics.part import Part, Scale
from monitor.statistics.part_codec import encode_part
from monitor.thresholds.look_back import count_above
from storage.control.models import Activation
from storage.ledger.commit import WindowPartRow
from storage.ledger.schedule import ScheduledThreshold


class WindowReplay:
    """Data plane of one cell over stored windows: only their outliers are counted again."""

    def __init__(self, cell: GridCell, activations: Sequence[tuple[int, Activation]]) -> None:
        self._cell = cell
        self._activations = list(activations)
        self._last_end_us: int | None = None

    def add_window(self, start_us: int, end_us: int, model_id: int, part: Part, scale: Scale) -> None:
        """Add and judge a window of a model with the scale of its energies."""
        cell, memory = self._cell, self._cell.memory
        self._activate_models(end_us)
        if self._last_end_us is not None and start_us > self._last_end_us:
            # The first event after a gap seals earlier windows before the threshold of its own window is known.
            memory.add_parts([], start_us)
            cell.run_due()
        threshold = _threshold_at(memory.schedule(), start_us, model_id)
        outliers = count_above(part, scale, threshold.threshold)
        row = WindowPartRow(
            window_start_us=start_us,
            window_end_us=end_us,
            threshold_id=threshold.id,
            events=part.events,
            outliers=outliers,
            late=0,
            dead=part.dead,
            payload=_encode_with_outliers(part, outliers),
        )
        memory.add_parts([row], end_us + cell.schedule.at(start_us).grace_us)
        cell.run_due()
        self._last_end_us = end_us

    def finish(self) -> None:
        """Judge the remaining windows at the end."""
        self._cell.memory.end_source()
        self._cell.run_due()

    def _activate_models(self, end_us: int) -> None:
        """Activate the models stored before the window was sealed, and the first model in any case."""
        while self._activations and (
            self._activations[0][1].computed_at_us < end_us or not self._cell.memory.thresholds
        ):
            self._cell.activate(*self._activations.pop(0))


@lru_cache(maxsize=16)
def _encode_with_outliers(part: Part, outliers: int) -> bytes:
    """Encode a part with another outlier count; cached since cells of one percentile mostly have equal counts."""
    return encode_part(replace(part, outliers=outliers))


def _threshold_at(schedule: Sequence[ScheduledThreshold], start_us: int, model_id: int) -> ScheduledThreshold:
    """Return the threshold valid for a window of a model; the first one also applies to earlier windows."""
    own = [row for row in schedule if row.model_id == model_id]
    if not own:
        raise RuntimeError(f"the window at {start_us} is of model {model_id}, which has no threshold")
    return next((row for row in reversed(own) if row.valid_from_us <= start_us), own[0])
