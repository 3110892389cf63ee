"""The season of a stream as text: which one is active and since when, or why none is."""

import numpy as np

from config.time_format import DAY_US, HOUR_US, format_short_time
from monitor.statistics.season import Season, SeasonSetting, SeasonTest, load_season
from monitor.statistics.season_fit import ACTIVATION_GAIN, ACTIVATION_LEVEL, MIN_CYCLES
from storage.control.thresholds import ThresholdRow

_CYCLES = {"hour_of_day": "days", "hour_of_week": "weeks"}


def describe_season(threshold: ThresholdRow | None, setting: SeasonSetting) -> str | None:
    """Return the season in one line; None where the setting is none.

    Args:
        threshold: The newest threshold, None before the first model.
        setting: `threshold.season` of the configuration.
    """
    if setting == "none":
        return None
    state = None if threshold is None else load_season(threshold.details)
    if state is None:
        return f"{setting}: not tested yet, the next threshold tests it"
    if state.season is not None:
        return _describe_active(state.season)
    if not state.tests:
        return f"{state.setting}: not possible, the windows are too long for it"
    return f"none is active ({state.setting}): {'; '.join(_describe_test(test) for test in state.tests)}"


def _describe_active(season: Season) -> str:
    days = 7 if season.kind == "hour_of_week" else 1
    # 1970-01-05 was a Monday. The hours are those of UTC, which matters for a change of the clocks only.
    mids_us = 4 * DAY_US + np.arange(24 * days, dtype=np.int64) * HOUR_US + HOUR_US // 2
    factors = season.factors(mids_us)
    since = format_short_time(season.since_us)
    return (
        f"{season.kind} since {since}: {factors.min():.2g} to {factors.max():.2g} times the mean rate "
        f"(hours of {season.timezone})"
    )


def _describe_test(test: SeasonTest) -> str:
    if test.cycles < MIN_CYCLES:
        return f"{test.kind} has {test.cycles} of {MIN_CYCLES} {_CYCLES[test.kind]}"
    seen = f"{test.kind} after {test.cycles} {_CYCLES[test.kind]}"
    if test.p_value is None or test.gain is None:
        return f"{seen}: there are no outliers"
    if test.p_value > ACTIVATION_LEVEL:
        return f"{seen}: p {test.p_value:.2g}, {ACTIVATION_LEVEL:g} is needed"
    return f"{seen}: it predicts later {_CYCLES[test.kind]} by {test.gain:.2g} nats, {ACTIVATION_GAIN:g} is needed"
