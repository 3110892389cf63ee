"""The settings of one stream as its pure functions use them: plain numbers, times in microseconds."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

ALWAYS_US = -(2**63)
"""The start of the first rules of a stream: they are valid for all earlier event times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRules:
    """The lengths and waiting times of the windows from `valid_from_us` on, a boundary of these and earlier windows.

    `sample_size` is the number of events of each window that are sampled; 0: no samples.
    """

    valid_from_us: int = ALWAYS_US
    size_us: int
    grace_us: int
    ahead_us: int
    sample_size: int = 0

    @property
    def lead_us(self) -> int:
        """Return how far a source may run ahead of the seal in event time."""
        return self.grace_us + self.ahead_us


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitRules:
    """`model.refit`: the time between two fits, and the time before one whose samples it uses."""

    every_us: int
    over_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRules:
    """The rules of one stream that are valid at one event time.

    `monitor.daemon.rules` builds them from the settings.

    Attributes:
        stream: Name of the stream.
        config_hash: Short hash of the settings of the stream, stored with incidents.
        timezone: `timezone`, an IANA name.
        size_us: `window.size`.
        grace_us: `window.grace`.
        ahead_us: `window.ahead`.
        idle_timeout_us: `window.idle_timeout`.
        max_future_us: `window.max_future`. None for the synthetic stream, which has no wrong clock.
        percentile: `threshold.percentile`.
        method: `threshold.method`.
        season: `threshold.season`.
        look_back_us: `threshold.look_back`.
        refresh: `threshold.refresh`, a duration or a cron expression in UTC.
        adopt_after_us: `threshold.adopt_after`.
        per_week: `alerts.false_alarms`, the false-alarm budget per week of all tests together.
        min_outliers: `alerts.min_outliers`.
        min_ratio: `alerts.min_ratio`.
        max_dead_letter_ratio: `alerts.max_dead_letter_ratio`.
        max_late_ratio: `alerts.max_late_ratio`.
        stalled_after_us: `alerts.stalled_after`.
        resolve_after: `alerts.resolve_after`, in windows.
        repeat_interval_us: `alerts.repeat_interval`.
        reopen_within_us: `alerts.reopen_within`.
        horizons_us: `alerts.drift.horizons`.
        min_effect: `alerts.drift.min_effect`.
        max_age_us: `notify.max_age`.
        channels: Returns the names of the channels for a kind and a severity of an incident.
        sample_size: Number of events of each window that are sampled for later fits; 0: no samples.
        refit: `model.refit`; None: the model stays as it is.
        window_changes: The windows of all event times, by the start of their validity. Empty: those of these rules.
    """

    stream: str
    config_hash: str
    timezone: str
    size_us: int
    grace_us: int
    ahead_us: int
    idle_timeout_us: int
    max_future_us: int | None
    percentile: float
    method: Literal["percentile", "pot"]
    season: Literal["none", "auto", "hour_of_day", "hour_of_week"]
    look_back_us: int
    refresh: timedelta | str
    adopt_after_us: int
    per_week: float
    min_outliers: int
    min_ratio: float
    max_dead_letter_ratio: float
    max_late_ratio: float
    stalled_after_us: int
    resolve_after: int
    repeat_interval_us: int
    reopen_within_us: int
    horizons_us: tuple[int, ...]
    min_effect: float
    max_age_us: int
    channels: Callable[[str, str], Sequence[str]]
    sample_size: int = 0
    refit: RefitRules | None = None
    window_changes: tuple[WindowRules, ...] = ()

    @property
    def windows(self) -> tuple[WindowRules, ...]:
        """Return the windows of all event times, by the start of their validity; the first one is always valid."""
        return self.window_changes or (
            WindowRules(
                size_us=self.size_us, grace_us=self.grace_us, ahead_us=self.ahead_us, sample_size=self.sample_size
            ),
        )

    @property
    def lead_us(self) -> int:
        """Return how far a source may run ahead of the seal in event time."""
        return self.grace_us + self.ahead_us

    @property
    def active_horizons_us(self) -> tuple[int, ...]:
        """Return the lengths of the drift horizons that hold at least one window."""
        return tuple(length for length in self.horizons_us if length >= self.size_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSchedule:
    """The rules of a stream over event time.

    Attributes:
        revision: The revision of the settings that the rules are built from.
        rows: Pairs of the start of the validity and the rules, at least one, in the order of the starts.
    """

    revision: int
    rows: tuple[tuple[int, StreamRules], ...]

    @staticmethod
    def constant(rules: StreamRules) -> "RuleSchedule":
        """Return the schedule of rules that never change."""
        return RuleSchedule(revision=0, rows=((ALWAYS_US, rules),))

    @property
    def newest(self) -> StreamRules:
        """Return the rules that are valid for the latest event times."""
        return self.rows[-1][1]

    def at(self, time_us: int) -> StreamRules:
        """Return the rules that are valid at an event time."""
        return self.rows[max(bisect_right(self.rows, time_us, key=lambda row: row[0]) - 1, 0)][1]

    def find_tick(self, event_time_us: int, tick_at_or_after: Callable[[timedelta | str, int], int]) -> int:
        """Return the first tick at or after an event time; the rules that are valid at a tick define it.

        Args:
            event_time_us: The event time.
            tick_at_or_after: Returns the first tick of a `threshold.refresh` at or after a time.
        """
        row = max(bisect_right(self.rows, event_time_us, key=lambda row: row[0]) - 1, 0)
        for (_, rules), following in zip(self.rows[row:], [*self.rows[row + 1 :], None], strict=True):
            tick_us = tick_at_or_after(rules.refresh, event_time_us)
            if following is None or tick_us < following[0]:
                return tick_us
            event_time_us = following[0]
        raise AssertionError("a schedule has at least one row")
