"""The look-back of one model over stored windows, kept from tick to tick. A cache: built anew it is the same."""

from dataclasses import dataclass

import numpy as np

from monitor.calibration import ThresholdRule
from monitor.keepers import CalibrationKeeper
from monitor.look_back import LARGEST_LEFT_OUT, LookBack, calibration_windows
from monitor.parts import Scale, decode
from storage.calibration import JudgedWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """The look-back at a tick: the starts of its clean windows, ascending, and the events of its fullest window."""

    clean: list[int]
    most_events: int


class KeptLookBack:
    """What a tick added or left out is the only work of the next."""

    def __init__(self, stream_id: int, model_id: int, scale: Scale, acceptances: int = 0) -> None:
        self.model_id = model_id
        self.acceptances = acceptances
        self.look_back = LookBack(scale)
        self._stream_id = stream_id
        self._read_until_us: int | None = None
        self._windows: dict[int, JudgedWindow] = {}

    def refresh(self, store: CalibrationKeeper, tick_us: int, rule: ThresholdRule) -> Refreshed:
        """Bring the look-back to a tick.

        The limit may be drawn from some windows that fired (it survives outliers, and must not starve); the law of
        counts is learned from those that fired nothing.
        """
        begin_us = tick_us - rule.look_back_us
        after_us = begin_us if self._read_until_us is None else max(begin_us, self._read_until_us)
        for window in store.judged_windows(self._stream_id, self.model_id, after_us, tick_us):
            if window.events:
                self._windows[window.window_start_us] = window
        # A window that reaches over the tick has not been read.
        self._read_until_us = tick_us // rule.size_us * rule.size_us
        for start in [start for start in self._windows if start < begin_us]:
            del self._windows[start]
        windows = [self._windows[start] for start in sorted(self._windows)]
        counted = _chosen(windows, tick_us, rule, LARGEST_LEFT_OUT)
        for gone in [start for start in self.look_back.windows if start not in counted]:
            self.look_back.evict(gone)
        for start in sorted(counted):
            if start not in self.look_back:
                self.look_back.add(start, decode(self._windows[start].payload))
        return Refreshed(
            clean=sorted(_chosen(windows, tick_us, rule, 1.0)),
            most_events=max((window.events for window in windows), default=0),
        )


def _chosen(windows: list[JudgedWindow], tick_us: int, rule: ThresholdRule, largest_left_out: float) -> set[int]:
    counts = calibration_windows(
        np.array([window.window_start_us for window in windows], np.int64),
        np.array([window.window_end_us for window in windows], np.int64),
        [
            (window.window_start_us if window.since_us is None else window.since_us, window.window_end_us)
            for window in windows
            if window.fired
        ],
        tick_us,
        look_back_us=rule.look_back_us,
        adopt_after_us=rule.adopt_after_us,
        largest_left_out=largest_left_out,
    )
    return {window.window_start_us for window, count in zip(windows, counts, strict=True) if count}
