"""The look-back of one model over stored windows, carried from tick to tick.

It is a cache: rebuilt from the stored windows it is identical.
"""

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from config.stream_rules import StreamRules
from monitor.statistics.part import Part, Scale
from monitor.statistics.part_codec import decode_part
from monitor.thresholds.look_back import MAX_EXCLUDED_SHARE, LookBack, select_calibration_windows
from storage.control.thresholds import JudgedWindow, WindowAlarm


class JudgedWindowReader(Protocol):
    """A source of judged windows, implemented by `storage.control.thresholds.ThresholdStore` and by the back-test."""

    def judged_windows(self, stream_id: int, model_id: int, after_us: int, until_us: int) -> list[JudgedWindow]:
        """Return the judged windows of a model that start at or after `after_us` and end at or before `until_us`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LookBackSummary:
    """The look-back at a tick: start times of its clean windows, ascending, and the events of its fullest window."""

    clean: list[int]
    most_events: int


class LookBackCache:
    """The look-back of one model. A tick only reads and decodes the windows that changed since the previous one."""

    def __init__(
        self,
        stream_id: int,
        model_id: int,
        scale: Scale,
        acceptances: int = 0,
        make: Callable[[Scale], LookBack] = LookBack,
    ) -> None:
        self.model_id = model_id
        self.acceptances = acceptances
        self.look_back = make(scale)
        self._stream_id = stream_id
        self._read_until_us: int | None = None
        self._windows: list[JudgedWindow] = []
        self._starts_us = np.empty(0, np.int64)
        self._ends_us = np.empty(0, np.int64)
        self._events = np.empty(0, np.int64)
        self._fired: list[tuple[int, int, int, bool]] = []
        self._selected = np.empty(0, np.int64)

    @property
    def read_until_us(self) -> int | None:
        """Return the event time up to which windows were read; None before the first tick."""
        return self._read_until_us

    def __len__(self) -> int:
        """Return the number of windows that are kept, used by the threshold or not."""
        return len(self._windows)

    def copy_with_alarms(self, alarms: Sequence[WindowAlarm]) -> "LookBackCache":
        """Return a copy that changes on its own, whose windows have these alarms; the next `refresh` uses them."""
        made = LookBackCache(self._stream_id, self.model_id, self.look_back.scale, self.acceptances)
        made.look_back = self.look_back.copy()
        made._read_until_us, made._windows, made._selected = self._read_until_us, self._windows, self._selected
        made._starts_us, made._ends_us, made._events = self._starts_us, self._ends_us, self._events
        known = set(self._starts_us.tolist())
        made._fired = [
            (
                each.window_start_us,
                each.window_start_us if each.fired_since_us is None else each.fired_since_us,
                each.window_end_us,
                each.confirmed,
            )
            for each in alarms
            if each.window_start_us in known
        ]
        return made

    def refresh(self, store: JudgedWindowReader, tick_us: int, rules: StreamRules) -> LookBackSummary:
        """Move the look-back to a tick.

        The threshold may use some windows that fired, because it is robust against outliers and needs enough windows.
        The count model is learned only from windows that did not fire.
        """
        begin_us = tick_us - rules.look_back_us
        after_us = begin_us if self._read_until_us is None else max(begin_us, self._read_until_us)
        new_windows = [w for w in store.judged_windows(self._stream_id, self.model_id, after_us, tick_us) if w.events]
        # A window that ends after the tick has not been read.
        self._read_until_us = tick_us // rules.size_us * rules.size_us
        self._move_window_range(new_windows, begin_us)
        selected = np.flatnonzero(self._select_windows(tick_us, rules, MAX_EXCLUDED_SHARE))
        starts = self._starts_us[selected]
        for window in np.setdiff1d(self._selected, starts, assume_unique=True).tolist():
            self.look_back.evict(window)
        for index in np.flatnonzero(~np.isin(starts, self._selected, assume_unique=True)).tolist():
            self.look_back.add(int(starts[index]), decode_part(self._windows[selected[index]].payload))
        self._selected = starts
        self._set_excluded(selected)
        self.look_back.set_fired(self._find_fired())
        clean = self._starts_us[self._select_windows(tick_us, rules, 1.0)] if self._fired else starts
        return LookBackSummary(
            clean=clean.tolist(),
            most_events=int(self._events.max(initial=0)),
        )

    def _set_excluded(self, selected: NDArray[np.intp]) -> None:
        """Keep the windows of the look-back that are not selected."""
        excluded, before = np.ones(len(self._windows), np.bool_), self.look_back.excluded
        excluded[selected] = False
        parts: dict[Hashable, Part] = {}
        for index in np.flatnonzero(excluded).tolist():
            start_us = int(self._starts_us[index])
            known = before.get(start_us)
            parts[start_us] = known or replace(decode_part(self._windows[index].payload), drift=None)
        self.look_back.set_excluded(parts)

    def _find_fired(self) -> list[int]:
        """Return the starts of the windows of incidents, in or out of the look-back."""
        fired = np.zeros(len(self._starts_us), np.bool_)
        for _, since_us, end_us, _ in self._fired:
            fired |= (self._ends_us > since_us) & (self._starts_us < end_us)
        starts: list[int] = self._starts_us[fired].tolist()
        return starts

    def _move_window_range(self, new_windows: Sequence[JudgedWindow], begin_us: int) -> None:
        """Append the new windows and drop those that begin before the look-back."""
        windows = [*self._windows, *new_windows]
        first = bisect_left(windows, begin_us, key=lambda window: window.window_start_us)
        self._windows = windows[first:]
        starts = np.array([window.window_start_us for window in new_windows], np.int64)
        ends = np.array([window.window_end_us for window in new_windows], np.int64)
        self._starts_us = np.concatenate([self._starts_us, starts])[first:]
        self._ends_us = np.concatenate([self._ends_us, ends])[first:]
        events = np.array([window.events for window in new_windows], np.int64)
        self._events = np.concatenate([self._events, events])[first:]
        fired = [
            (
                each.window_start_us,
                each.window_start_us if each.fired_since_us is None else each.fired_since_us,
                each.window_end_us,
                each.confirmed,
            )
            for each in new_windows
            if each.fired
        ]
        self._fired = [each for each in (*self._fired, *fired) if each[0] >= begin_us]

    def _select_windows(self, tick_us: int, rules: StreamRules, max_excluded_share: float) -> NDArray[np.bool_]:
        return select_calibration_windows(
            self._starts_us,
            self._ends_us,
            [(since_us, end_us) for _, since_us, end_us, _ in self._fired],
            tick_us,
            look_back_us=rules.look_back_us,
            adopt_after_us=rules.adopt_after_us,
            max_excluded_share=max_excluded_share,
            confirmed=[(since_us, end_us) for _, since_us, end_us, is_confirmed in self._fired if is_confirmed],
        )
