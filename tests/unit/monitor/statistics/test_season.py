"""The season is found where there is one, only then, at the local time of day, and is the same in every replay."""

import json

import numpy as np
import pytest

from config.time_format import DAY_US, HOUR_US, MINUTE_US
from monitor.statistics.season import Season, SeasonState, is_season_due, load_season
from monitor.statistics.season_fit import CellCounts, decide_season

MONDAY = 1_767_571_200_000_000
"""2026-01-05 00:00 UTC."""


def simulate(
    days: int,
    *,
    amplitude: float = 0.0,
    weekend: float = 0.0,
    mean: float = 3.0,
    dispersion: float = 2.0,
    seed: int = 0,
) -> CellCounts:
    """Return hourly counts with a daily course of the rate and another rate on weekends."""
    rng = np.random.default_rng(seed)
    mid_us = MONDAY + np.arange(days * 24) * HOUR_US + HOUR_US // 2
    hour = np.arange(days * 24) % 24 + 0.5
    log_rate = amplitude * np.sin(2 * np.pi * hour / 24) + weekend * (np.arange(days * 24) // 24 % 7 >= 5)
    means = mean * np.exp(log_rate)
    if dispersion > 1:
        means = rng.gamma(means / (dispersion - 1), dispersion - 1)
    return CellCounts(mid_us=mid_us, events=np.full(len(mid_us), 600), outliers=rng.poisson(means))


def decide(
    counts: CellCounts,
    setting: str = "auto",
    before: SeasonState | None = None,
    timezone: str = "UTC",
    size_us: int = MINUTE_US,
) -> SeasonState:
    """Return the season at the first tick of the day after the counts."""
    tick_us = int(counts.mid_us[-1]) // DAY_US * DAY_US + DAY_US
    return decide_season(counts, before, setting, timezone, tick_us=tick_us, size_us=size_us)  # type: ignore[arg-type]


def active(state: SeasonState) -> Season:
    assert state.season is not None
    return state.season


def test_daily_course_is_found_with_its_size_and_phase() -> None:
    season = active(decide(simulate(14, amplitude=0.8)))
    assert season.kind == "hour_of_day"
    factors = season.factors(MONDAY + np.array([6, 18]) * HOUR_US)
    assert factors[0] / factors[1] == pytest.approx(np.exp(1.6), rel=0.2)


def test_mean_factor_of_the_events_is_1() -> None:
    counts = simulate(14, amplitude=0.8)
    factors = active(decide(counts)).factors(counts.mid_us)
    assert np.average(factors, weights=counts.events) == pytest.approx(1, rel=1e-9)


def test_rate_without_a_season_activates_none() -> None:
    activated = [decide(simulate(days, seed=seed)).season for days in (4, 14, 28) for seed in range(10)]
    assert sum(season is not None for season in activated) <= 1


def test_two_cycles_are_not_enough() -> None:
    state = decide(simulate(2, amplitude=1.0))
    assert state.season is None
    assert [(test.kind, test.cycles, test.p_value) for test in state.tests] == [
        ("hour_of_day", 2, None),
        ("hour_of_week", 0, None),
    ]


def test_level_that_changes_from_day_to_day_is_no_season() -> None:
    counts = simulate(21)
    level = np.repeat(np.random.default_rng(5).lognormal(0, 0.7, 21), 24)
    wandering = np.random.default_rng(6).poisson(3 * level)
    assert decide(CellCounts(mid_us=counts.mid_us, events=counts.events, outliers=wandering)).season is None


def test_burst_at_one_day_is_no_season() -> None:
    counts = simulate(14, dispersion=1.0)
    outliers = counts.outliers.copy()
    outliers[100:104] += 60
    assert decide(CellCounts(mid_us=counts.mid_us, events=counts.events, outliers=outliers)).season is None


def test_other_rate_on_weekends_is_a_weekly_season() -> None:
    season = active(decide(simulate(28, amplitude=0.5, weekend=0.9, dispersion=1.0)))
    assert season.kind == "hour_of_week"
    midweek, weekend = season.factors(MONDAY + np.array([2 * 24 + 12, 5 * 24 + 12]) * HOUR_US)
    assert weekend / midweek == pytest.approx(np.exp(0.9), rel=0.25)


def test_daily_course_alone_is_no_weekly_season() -> None:
    kinds = [active(decide(simulate(28, amplitude=0.8, seed=seed))).kind for seed in range(4)]
    assert kinds.count("hour_of_day") >= 3


def test_few_outliers_shrink_the_course() -> None:
    many = active(decide(simulate(14, amplitude=0.8, mean=30), "hour_of_day"))
    few = active(decide(simulate(14, amplitude=0.8, mean=0.7, dispersion=1.0, seed=1), "hour_of_day"))
    assert few.parameters < many.parameters <= 4
    second = 2  # the second harmonic is chance alone
    assert abs(few.coefficients[second]) < 0.1


def test_hours_are_those_of_the_time_zone_over_a_clock_change() -> None:
    # Europe/Berlin is at UTC+2 from 2026-03-29 on.
    spring = MONDAY + 76 * DAY_US
    days = np.arange(28)
    mid_us = (spring + days[:, None] * DAY_US + np.arange(24) * HOUR_US + HOUR_US // 2).ravel()
    local = mid_us + np.where(mid_us < MONDAY + 83 * DAY_US + HOUR_US, 1, 2) * HOUR_US
    rates = 5 * np.exp(1.2 * np.sin(2 * np.pi * (local % DAY_US) / DAY_US))
    counts = CellCounts(
        mid_us=mid_us, events=np.full(len(mid_us), 600), outliers=np.random.default_rng(2).poisson(rates)
    )
    season = active(decide(counts, "hour_of_day", timezone="Europe/Berlin"))
    winter, summer = season.factors(np.array([spring + 5 * HOUR_US, spring + 20 * DAY_US + 4 * HOUR_US]))
    assert winter == pytest.approx(summer, rel=1e-12)
    assert winter == pytest.approx(np.exp(1.2) / np.i0(1.2), rel=0.1)


def test_active_season_keeps_its_start_and_a_new_kind_begins() -> None:
    counts = simulate(14, amplitude=0.8)
    first = decide(counts)
    later = CellCounts(mid_us=counts.mid_us + DAY_US, events=counts.events, outliers=counts.outliers)
    assert active(decide(later, before=first)).since_us == active(first).since_us
    assert active(decide(later, before=None)).since_us == active(first).since_us + DAY_US


def test_season_is_tested_once_a_local_day_and_after_a_change_of_settings() -> None:
    state = decide(simulate(14), timezone="Europe/Berlin")
    midnight_us = state.day * DAY_US - HOUR_US
    assert not is_season_due(state, "auto", "Europe/Berlin", midnight_us + DAY_US - 1)
    assert is_season_due(state, "auto", "Europe/Berlin", midnight_us + DAY_US)
    assert is_season_due(state, "hour_of_day", "Europe/Berlin", midnight_us + 1)
    assert is_season_due(state, "auto", "UTC", midnight_us + HOUR_US + 1)
    assert is_season_due(None, "auto", "UTC", midnight_us)


@pytest.mark.parametrize("days", [2, 14])
def test_state_survives_storage(days: int) -> None:
    state = decide(simulate(days, amplitude=0.8))
    assert load_season({"season": json.loads(json.dumps(state.to_json()))}) == state
    assert load_season({}) is None


def test_other_days_do_not_matter_and_a_refit_is_equal_to_the_bit() -> None:
    counts = simulate(35, amplitude=0.6)
    newest = slice(-28 * 24, None)
    cut = CellCounts(mid_us=counts.mid_us[newest], events=counts.events[newest], outliers=counts.outliers[newest])
    assert decide(counts, "hour_of_day") == decide(cut, "hour_of_day")


def test_windows_of_a_day_have_no_course_over_the_day() -> None:
    days = np.arange(28)
    counts = CellCounts(
        mid_us=MONDAY + days * DAY_US + DAY_US // 2,
        events=np.full(28, 10_000),
        outliers=np.where(days % 7 >= 5, 90, 20),
    )
    state = decide(counts, size_us=DAY_US)
    assert [test.kind for test in state.tests] == ["hour_of_week"]
    assert active(state).factors(counts.mid_us)[5] > 2 * active(state).factors(counts.mid_us)[4]


def test_hours_without_events_and_outliers_are_allowed() -> None:
    counts = simulate(14, amplitude=0.8)
    hour = np.arange(len(counts.mid_us)) % 24
    night = hour < 8
    events = np.where(night, 0, counts.events)
    season = active(decide(CellCounts(mid_us=counts.mid_us, events=events, outliers=counts.outliers * ~night)))
    assert np.isfinite(season.factors(counts.mid_us)).all()
    none = CellCounts(mid_us=counts.mid_us, events=counts.events, outliers=np.zeros(len(night), np.int64))
    assert decide(none).season is None
    empty = np.empty(0, np.int64)
    state = decide_season(
        CellCounts(mid_us=empty, events=empty, outliers=empty), None, "auto", "UTC", tick_us=MONDAY, size_us=MINUTE_US
    )
    assert [test.cycles for test in state.tests] == [0, 0]
