"""A key that is nearly always an outlier is expected after thirty steady windows; others are not."""

import json

import numpy as np
import pytest

from config.time_format import DAY_US, HOUR_US
from monitor.incidents.habitual_keys import (
    MAX_TRACKED,
    KeyCounts,
    KeyHabits,
    changed_rows,
    expect_habitual,
    is_learned,
    learn_habits,
)
from storage.control.records import HabitualKeyRow

T0 = 1_767_225_600_000_000
RATE = 0.01


def run(
    windows: list[KeyCounts], habits: KeyHabits | None = None, start: int = 0, adopt_after_us: int = DAY_US
) -> tuple[KeyHabits, list[HabitualKeyRow]]:
    """Learn hourly windows one after the other, with the state stored as JSON in between; return the changed rows."""
    habits, rows = habits or KeyHabits(), []
    for i, counts in enumerate(windows, start):
        before = KeyHabits.from_json(json.loads(json.dumps(habits.to_json())))
        end_us = T0 + (i + 1) * HOUR_US
        habits = learn_habits(
            before,
            counts,
            window_start_us=end_us - HOUR_US,
            window_end_us=end_us,
            clean_rate=RATE,
            adopt_after_us=adopt_after_us,
        )
        rows += changed_rows(before, habits, end_us)
    return habits, rows


def test_key_that_is_always_an_outlier_is_habitual_after_30_windows() -> None:
    habits, rows = run([{"HA": (1, 1)}] * 29)
    assert (habits.habitual, rows) == ({}, [])
    habits, rows = run([{"HA": (1, 1)}], habits, 29)
    assert habits.habitual["HA"].rate == pytest.approx((30 + RATE) / 31)
    since_us = T0 + 30 * HOUR_US
    assert [(row.key, row.windows, row.since_us, row.until_us) for row in rows] == [
        ("HA", 30, since_us, since_us + 28 * DAY_US)
    ]
    assert habits.valid_at(since_us - 1) == {}
    assert list(habits.valid_at(since_us)) == ["HA"]


def test_fault_of_one_key_is_no_habit_before_a_lasting_change_is_adopted() -> None:
    habits, rows = run([{"broken": (20, 20)}] * 47, adopt_after_us=2 * DAY_US)
    assert (habits.habitual, rows) == ({}, [])
    assert list(run([{"broken": (20, 20)}], habits, 47, adopt_after_us=2 * DAY_US)[0].habitual) == ["broken"]


def test_ordinary_and_unsteady_keys_are_not_habitual() -> None:
    rng = np.random.default_rng(0)
    windows: list[KeyCounts] = [
        {
            "ordinary": (50, int(rng.binomial(50, RATE))),
            "burst": (20, 20 if i % 10 == 0 else 0),
            "steady": (20, int(rng.binomial(20, 0.4))),
        }
        for i in range(60)
    ]
    assert list(run(windows)[0].habitual) == ["steady"]


def test_key_that_behaves_again_is_no_longer_habitual() -> None:
    habits, _ = run([{"HA": (5, 5)}] * 40)
    habits, rows = run([{"HA": (5, 0)}] * 60, habits, 40)
    assert habits.habitual == {}
    assert len(rows) == 1
    assert rows[0].since_us == T0 + 30 * HOUR_US
    assert rows[0].until_us < T0 + 100 * HOUR_US


def test_habit_ends_after_28_days_and_counts_anew() -> None:
    habits, rows = run([{"HA": (1, 1)}] * (30 + 28 * 24 + 31))
    assert [row.until_us - row.since_us for row in rows] == [28 * DAY_US, 28 * DAY_US, 28 * DAY_US]
    assert len({row.since_us for row in rows}) == 2
    assert habits.habitual["HA"].since_us > T0 + 28 * DAY_US


def test_tracked_keys_are_bounded_and_the_frequent_ones_stay() -> None:
    windows: list[KeyCounts] = [{"HA": (1, 1), **{f"{i}-{j}": (1, 1) for j in range(50)}} for i in range(40)]
    habits, _ = run(windows)
    assert len(habits.tracked) == MAX_TRACKED
    assert list(habits.habitual) == ["HA"]
    assert len(json.dumps(habits.to_json())) < 20_000


def test_expected_rate_is_the_sum_over_the_habitual_keys() -> None:
    habitual = run([{"HA": (4, 4), "B": (10, 5)}] * 30)[0].valid_at(T0 + 40 * HOUR_US)
    rates = {key: each.rate for key, each in habitual.items()}
    counts = {"HA": (40, 40), "B": (10, 5), "C": (50, 1)}
    expected = 50 * RATE + 40 * rates["HA"] + 10 * rates["B"]
    assert expect_habitual(RATE, 100, habitual, counts) * 100 == pytest.approx(expected)
    assert expect_habitual(RATE, 100, habitual, {"C": (50, 1)}) == RATE


def test_windows_of_many_events_are_learned_from_one_in_several() -> None:
    learned = [is_learned(T0 + i * HOUR_US, T0 + (i + 1) * HOUR_US, 5_000) for i in range(30)]
    assert sum(learned) == 10
    assert is_learned(T0, T0 + HOUR_US, 2_000)
    assert not is_learned(T0, T0 + HOUR_US, 0)
