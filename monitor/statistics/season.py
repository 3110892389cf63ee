"""The season of the outlier rate: a smooth course of the rate over the day or the week, as stored with a threshold.

The logarithm of the rate has two harmonics of the day (`hour_of_day`), and in addition two harmonics of the week and an
indicator of the weekend (`hour_of_week`). `monitor.statistics.season_fit` learns and tests them. Pure functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from config.local_time import find_utc_offset_us
from config.time_format import DAY_US, HOUR_US, WEEK_US
from monitor.statistics.part import Int64

SeasonKind = Literal["hour_of_day", "hour_of_week"]
SeasonSetting = Literal["none", "auto", "hour_of_day", "hour_of_week"]
Floats = NDArray[np.float64]

_HARMONICS = 2
_WEEK_COLUMNS = 5
_LARGEST_LOG_FACTOR = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Season:
    """A course of the outlier rate over the hours of a day or a week.

    Attributes:
        kind: `hour_of_day` or `hour_of_week`.
        timezone: IANA name of the time zone of its hours.
        coefficients: Coefficients of the logarithm of the rate: cosine and sine of each harmonic of the day; of the
            week; the weekend.
        level: Logarithm of the mean factor over the events that it was learned from.
        exposure: Number of these events, weighted with their factors.
        parameters: Effective number of coefficients after the shrinkage.
        since_us: Event time of the tick that activated it.
    """

    kind: SeasonKind
    timezone: str
    coefficients: tuple[float, ...]
    level: float
    exposure: float
    parameters: float
    since_us: int

    def factors(self, times_us: Int64) -> Floats:
        """Return the rate at each time divided by the mean rate, (n,).

        The factor of a window is that of its middle.
        """
        local_us = to_local(times_us, self.timezone)
        columns = build_columns(local_us, self.kind, _day_harmonics(self.kind, len(self.coefficients)))
        log_factor = sum_columns(columns, np.array(self.coefficients)) - self.level
        return np.exp(np.clip(log_factor, -_LARGEST_LOG_FACTOR, _LARGEST_LOG_FACTOR))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonTest:
    """The result of the activation tests of one kind of season.

    `cycles` is the number of whole cycles that were seen. `p_value` and `gain` are None before `MIN_CYCLES`.
    """

    kind: SeasonKind
    cycles: int
    p_value: float | None = None
    gain: float | None = None
    passed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonState:
    """The season that is stored with a threshold: the active one if any, and the tests that decided it.

    Attributes:
        setting: `threshold.season` at the time of the tests.
        timezone: `timezone` at that time.
        day: Number of the local day of the tick that ran the tests; they run once a day.
        season: The active season, None without one.
        tests: The results by kind.
    """

    setting: SeasonSetting
    timezone: str
    day: int
    season: Season | None
    tests: tuple[SeasonTest, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the state as the JSON object that is stored with thresholds."""
        season = self.season
        return {
            "setting": self.setting,
            "timezone": self.timezone,
            "day": self.day,
            "kind": None if season is None else season.kind,
            "since_us": None if season is None else season.since_us,
            "coefficients": None if season is None else list(season.coefficients),
            "level": None if season is None else season.level,
            "exposure": None if season is None else season.exposure,
            "parameters": None if season is None else season.parameters,
            "tests": [
                {
                    "kind": test.kind,
                    "cycles": test.cycles,
                    "p_value": test.p_value,
                    "gain": test.gain,
                    "passed": test.passed,
                }
                for test in self.tests
            ],
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "SeasonState":
        """Return the stored state."""
        season = None
        if stored["kind"] is not None:
            season = Season(
                coefficients=tuple(stored["coefficients"]),
                **{name: stored[name] for name in ("kind", "timezone", "level", "exposure", "parameters", "since_us")},
            )
        return SeasonState(
            setting=stored["setting"],
            timezone=stored["timezone"],
            day=stored["day"],
            season=season,
            tests=tuple(SeasonTest(**test) for test in stored["tests"]),
        )


def load_season(details: Mapping[str, Any]) -> SeasonState | None:
    """Return the season that is stored with a threshold; None for rows without one."""
    stored = details.get("season")
    return None if stored is None else SeasonState.from_json(stored)


def find_local_day(time_us: int, timezone: str) -> int:
    """Return the number of the local day of a time, counted from 1970."""
    return (time_us + find_utc_offset_us(time_us, timezone)) // DAY_US


def to_local(times_us: Int64, timezone: str) -> Int64:
    """Return the local clock at each time, in microseconds since 1970, (n,)."""
    return times_us + np.array([find_utc_offset_us(each, timezone) for each in times_us.tolist()], np.int64)


def is_season_due(before: SeasonState | None, setting: SeasonSetting, timezone: str, tick_us: int) -> bool:
    """Return whether a tick fits and tests the season again: once a local day, and after a change of its settings."""
    if before is None or (before.setting, before.timezone) != (setting, timezone):
        return True
    return before.day != find_local_day(tick_us, timezone)


def is_season_possible(kind: SeasonKind, size_us: int) -> bool:
    """Return whether windows of a length have enough phases: at least three a day, or at least one a day of a week."""
    return count_day_harmonics(max(size_us, HOUR_US)) > 0 if kind == "hour_of_day" else size_us <= DAY_US


def count_day_harmonics(cell_us: int) -> int:
    """Return the number of harmonics of the day that cells of a length can tell apart, at most two."""
    return max(min(_HARMONICS, (DAY_US // cell_us - 1) // 2), 0)


def _day_harmonics(kind: SeasonKind, coefficients: int) -> int:
    return (coefficients - (_WEEK_COLUMNS if kind == "hour_of_week" else 0)) // 2


def build_columns(local_us: Int64, kind: SeasonKind, day_harmonics: int) -> Floats:
    """Return the regressors at local times, (n, p)."""
    columns = [
        function(2 * np.pi * harmonic * (local_us % DAY_US) / DAY_US)
        for harmonic in range(1, day_harmonics + 1)
        for function in (np.cos, np.sin)
    ]
    if kind == "hour_of_week":
        # 1970-01-01 was a Thursday; the week begins on Monday.
        in_week_us = (local_us + 3 * DAY_US) % WEEK_US
        columns += [
            function(2 * np.pi * harmonic * in_week_us / WEEK_US)
            for harmonic in range(1, _HARMONICS + 1)
            for function in (np.cos, np.sin)
        ]
        columns.append((in_week_us >= 5 * DAY_US).astype(np.float64))
    return np.stack(columns, axis=1)


def sum_columns(columns: Floats, weights: Floats) -> Floats:
    """Return columns @ weights, (n,), added column by column: the result of a library depends on the processor."""
    total = np.zeros(len(columns))
    for j in range(columns.shape[1]):
        total += columns[:, j] * weights[j]
    return total
