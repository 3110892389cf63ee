"""Times, ages and durations as text."""

import numpy as np
import pytest

from config.time_format import (
    format_age,
    format_optional_time,
    format_rough_duration,
    format_short_time,
    format_time,
    format_times,
    format_utc,
)

TIME_US = 1_767_225_600_000_001


def test_times_are_rfc_3339_in_utc_with_microseconds() -> None:
    assert format_time(TIME_US) == "2026-01-01T00:00:00.000001Z"
    assert format_time(TIME_US - 1) == "2026-01-01T00:00:00.000000Z"
    assert format_optional_time(None) is None


def test_array_of_times_is_formatted_like_single_times() -> None:
    times = np.array([TIME_US, "NaT"], "datetime64[us]")
    assert format_times(times) == [format_time(TIME_US), None]
    assert format_times(times.astype("datetime64[ns]")) == [format_time(TIME_US), None]


def test_summaries_omit_zero_microseconds() -> None:
    assert format_utc(TIME_US - 1) == "2026-01-01T00:00:00Z"
    assert format_utc(TIME_US) == format_time(TIME_US)


@pytest.mark.parametrize("time", [TIME_US, "2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00.000001"])
def test_short_times_end_at_the_second(time: int | str) -> None:
    assert format_short_time(time) == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_199, "120 min"), (7_200, "2 h"), (200_000, "2 d")],
)
def test_ages_are_rough_durations(seconds: float, text: str) -> None:
    assert format_rough_duration(seconds) == text
    assert format_age(seconds) == f"{text} ago"


def test_age_of_a_clock_that_is_ahead() -> None:
    assert format_age(-3) == "3 s ahead of the clock"
