"""The correlation between days: a season is found, noise and a moving level are not."""

from itertools import pairwise

import numpy as np
import pytest

from monitor.statistics.day_correlation import DayCorrelation, correlate_days, shows_season

J = 20
HOURS = np.arange(24)


def pairs_of(days: np.ndarray) -> list[DayCorrelation]:
    found = [correlate_days(today, before) for before, today in pairwise(days)]
    return [each for each in found if each is not None]


def make_days(rng: np.random.Generator, n: int, amplitude: float) -> np.ndarray:
    days = rng.standard_normal((n, 24, J))
    days[:, :, 3] += amplitude * np.sin(2 * np.pi * HOURS / 24)
    return days


def test_course_of_one_statistic_is_found_within_three_days() -> None:
    rng = np.random.default_rng(1)
    assert sum(shows_season(pairs_of(make_days(rng, 3, 5.0))) for _ in range(20)) >= 19
    assert not shows_season(pairs_of(make_days(rng, 2, 5.0))), "one pair of days is not enough"


@pytest.mark.parametrize("days", [3, 8, 29])
def test_independent_hours_show_no_season(days: int) -> None:
    rng = np.random.default_rng(2)
    assert sum(shows_season(pairs_of(make_days(rng, days, 0.0))) for _ in range(200)) <= 8


def test_level_that_moves_between_days_is_no_season() -> None:
    rng = np.random.default_rng(3)
    days = make_days(rng, 8, 0.0) + 10 * rng.standard_normal((8, 1, J))
    assert not shows_season(pairs_of(days))


def test_hours_without_events_are_left_out() -> None:
    days = make_days(np.random.default_rng(4), 2, 1.0)
    days[1, :21] = np.nan
    pair = correlate_days(days[1], days[0])
    assert pair is not None
    assert pair.hours == 3
    days[1, 21] = np.nan
    assert correlate_days(days[1], days[0]) is None


def test_constant_statistic_has_no_correlation() -> None:
    pair = correlate_days(np.ones((24, 2)), np.ones((24, 2)))
    assert pair is not None
    assert pair.correlations.tolist() == [0.0, 0.0]
