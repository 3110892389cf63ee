"""The sums of the current horizons and days of one model, from its judged windows.

They are a cache of stored rows, and can be read again at any time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from config.time_format import DAY_US, HOUR_US
from monitor.control_plane.stores import DriftStoreProtocol
from monitor.incidents.drift_cycles import KEPT_CYCLES
from monitor.incidents.drift_days import Cycle, DriftDay
from monitor.incidents.drift_horizons import FrozenBaseline, Horizon, learning_span_us
from monitor.incidents.drift_state import DriftState
from monitor.incidents.drift_test import DriftBaseline
from monitor.models.scoring import LoadedModel
from monitor.statistics.day_correlation import DayCorrelation, correlate_days
from monitor.statistics.drift_means import DriftStatistics, is_valid_shape, join_sums
from monitor.statistics.part import Float64, Int64
from monitor.statistics.part_codec import decode_part
from storage.control.drift import DriftBaselineRow, DriftWindow

_HOURS = 25
_MAX_UNSTORED_US = KEPT_CYCLES * DAY_US


@dataclass(slots=True, kw_only=True)
class _OpenDay:
    """A local day and its hours: the number of events of each, (25,), and their sums of ranks, (25, 2 R)."""

    horizon: Horizon
    end_us: int
    hour_events: Int64
    hour_sums: Int64

    def hour_means(self) -> Float64:
        """Return the means of the hours up to a scale; NaN in an hour without events."""
        events = np.where(self.hour_events > 0, self.hour_events, np.nan)
        return np.asarray(self.hour_sums / events[:, None], np.float64)


@dataclass(slots=True, kw_only=True)
class DriftMemory:
    """The horizons of one model by length and start, its open days, and its frozen baselines.

    Attributes:
        model_id: The model.
        base_from_us: Start of the base; earlier windows are left out.
        lengths: Lengths of the horizons.
        day_of: Returns the start and the end of the local day of an event time.
        stored_until_us: End of the last stored day; None without one.
        loaded_us: Windows before this event time are in the sums; None before the first load.
    """

    model_id: int
    base_from_us: int
    lengths: tuple[int, ...]
    day_of: Callable[[int], tuple[int, int]]
    stored_until_us: int | None
    loaded_us: int | None = None
    by_length: dict[int, dict[int, Horizon]] = field(default_factory=dict)
    _baselines: dict[tuple[int, int], FrozenBaseline] = field(default_factory=dict)
    _days: dict[int, _OpenDay] = field(default_factory=dict)
    _shape: tuple[int, int, int] | None = None

    def add_baselines(self, stored: Sequence[DriftBaselineRow]) -> None:
        """Add stored baselines."""
        for row in stored:
            self._baselines[row.horizon_us, row.from_us] = FrozenBaseline(
                horizon_us=row.horizon_us,
                from_us=row.from_us,
                frozen_at_us=row.until_us,
                baseline=DriftBaseline.from_json(row.baseline),
            )

    def baseline(self, length: int, state: DriftState) -> FrozenBaseline | None:
        """Return the baseline of a length, or None before it is frozen."""
        return self._baselines.get((length, state.start_of(length)))

    def statistics(self, model: LoadedModel) -> DriftStatistics | None:
        """Return the drift statistics of the windows; None without a training profile or with unknown sums."""
        if (
            model.training_profile is None
            or self._shape is None
            or not is_valid_shape(self._shape, len(model.record.feature_names))
        ):
            return None
        return DriftStatistics(
            features=model.record.feature_names,
            shape=self._shape,
            profile=model.training_profile,
            components=model.component_names,
        )

    def load_windows(self, store: DriftStoreProtocol, stream_id: int, state: DriftState, until_us: int) -> None:
        """Add the windows that start before a time and are not in the sums yet."""
        from_us = self.loaded_us
        if from_us is None:
            firsts = [self._first_needed_us(length, state, until_us) for length in self.lengths]
            from_us = max(min([*firsts, self._first_day_us(until_us)]), self.base_from_us)
        for window in store.windows(stream_id, self.model_id, from_us, until_us):
            sums = decode_part(window.payload).drift
            if sums is None or (self._shape is not None and sums.shape != self._shape):
                continue
            self._shape = sums.shape
            self._add_window(window, join_sums(sums))
        self.loaded_us = until_us

    def _add_window(self, window: DriftWindow, sums: Int64) -> None:
        for length in self.lengths:
            horizons = self.by_length.setdefault(length, {})
            start_us = window.window_start_us // length * length
            if start_us >= self.base_from_us:
                horizons[start_us] = _add(horizons.get(start_us), start_us, window, sums)
        self._add_to_day(window, sums)

    def _add_to_day(self, window: DriftWindow, sums: Int64) -> None:
        assert self._shape is not None, "the first window sets it"
        start_us, end_us = self.day_of(window.window_start_us)
        ranks = 2 * self._shape[0]
        day = self._days.get(start_us)
        horizon = _add(None if day is None else day.horizon, start_us, window, sums)
        if day is None:
            hours = np.zeros(_HOURS, np.int64), np.zeros((_HOURS, ranks), np.int64)
            day = _OpenDay(horizon=horizon, end_us=end_us, hour_events=hours[0], hour_sums=hours[1])
            self._days[start_us] = day
        hour = min((window.window_start_us - start_us) // HOUR_US, _HOURS - 1)
        day.horizon = horizon
        day.hour_events[hour] += window.events
        day.hour_sums[hour] += sums[:ranks]

    def end_days(self, until_us: int) -> list[DriftDay]:
        """Return the days that have ended and are not stored yet. Only the last day before a time is kept."""
        starts = sorted(start_us for start_us, day in self._days.items() if day.end_us <= until_us)
        ended = [
            self._end_day(self._days[start_us])
            for start_us in starts
            if self.stored_until_us is None or start_us >= self.stored_until_us
        ]
        for start_us in starts[:-1]:
            del self._days[start_us]
        return ended

    def _end_day(self, day: _OpenDay) -> DriftDay:
        assert self._shape is not None, "the first window sets it"
        start_us = day.horizon.start_us
        before = self._days.get(self.day_of(start_us - 1)[0])
        correlation: DayCorrelation | None = None
        if before is not None:
            correlation = correlate_days(day.hour_means(), before.hour_means())
        cycle = Cycle(horizon=day.horizon, end_us=day.end_us, hours=int((day.hour_events > 0).sum()))
        return DriftDay(cycle=cycle, shape=self._shape, correlation=correlation)

    def _first_day_us(self, until_us: int) -> int:
        """Return the time from which windows are needed for the days: the last stored one is compared with the next."""
        if self.stored_until_us is None:
            return until_us - _MAX_UNSTORED_US
        return self.day_of(self.stored_until_us - 1)[0]

    def _first_needed_us(self, length: int, state: DriftState, until_us: int) -> int:
        """Return the start of the first horizon of one length that is still needed."""
        learning_from_us = max(state.start_of(length), until_us - learning_span_us(length))
        if self.baseline(length, state) is None:
            return learning_from_us
        alarm = state.alarms.get(length)
        return until_us - length if alarm is None else max(alarm.since_us, learning_from_us)

    def discard(self, state: DriftState, until_us: int) -> None:
        """Discard the horizons that are no longer needed."""
        for length, horizons in self.by_length.items():
            first_us = self._first_needed_us(length, state, until_us)
            # The horizons were added in order of time.
            while (oldest := next(iter(horizons), first_us)) < first_us:
                del horizons[oldest]

    def horizon(self, length: int, start_us: int) -> Horizon | None:
        """Return the horizon of a length at a start; None without windows in it."""
        return self.by_length.get(length, {}).get(start_us)

    def horizons_since(self, length: int, from_us: int) -> Mapping[int, Horizon]:
        """Return the horizons of a length since a time, by their start in order."""
        return {start: each for start, each in self.by_length.get(length, {}).items() if start >= from_us}


def _add(horizon: Horizon | None, start_us: int, window: DriftWindow, sums: Int64) -> Horizon:
    if horizon is None:
        horizon = Horizon(start_us=start_us, events=0, outliers=0, has_spike=False, sums=np.zeros_like(sums))
    return horizon.add_window(window.events, window.outliers, sums, fired=window.fired)
