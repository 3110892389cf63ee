"""Drift over whole cycles: the moving base, told once, settled, and told again."""

from dataclasses import replace

import numpy as np
import pytest

from config.time_format import DAY_US, HOUR_US
from monitor.incidents.drift_alarms import AlarmUpdate, Ending, advance_cycle_alarm, raised_factor
from monitor.incidents.drift_cycles import KEPT_CYCLES, CycleTest, judge_cycle, prepare_cycles
from monitor.incidents.drift_days import Cycle, DriftDay, decode_day, encode_day, ends_cycle, list_cycles
from monitor.incidents.drift_horizons import Horizon, HorizonResult
from monitor.incidents.drift_state import DriftState
from monitor.statistics.day_correlation import DayCorrelation
from monitor.statistics.drift_means import DriftStatistics
from monitor.statistics.training_profile import TrainingProfile, build_feature_profile, quantile_edges

EVENTS = 2_000
TRAINING = np.random.default_rng(5).standard_normal((5_000, 2)).astype(np.float32)
STATISTICS = DriftStatistics(
    features=("load", "heat"),
    shape=(3, 0, 1),
    profile=TrainingProfile(features=build_feature_profile(TRAINING), energy_edges=quantile_edges(TRAINING[:, 0])),
)
LOAD, PAIR = 0, 6
NOISE = 0.01


def cycle(number: int, load: float = 0.0, *, events: int = EVENTS, hours: int = 24, pair: float = 0.0) -> Cycle:
    """Return a day whose mean rank of the load is moved, with noise of a hundredth of a rank."""
    rng = np.random.default_rng([number, 3])
    means = rng.standard_normal(7) * NOISE * [128, 128, 128, 16384, 16384, 16384, 256]
    means += [128 * load, 0, 0, 1365, 1365, 1365, 256 * pair]
    sums = np.rint(events * means).astype(np.int64)
    horizon = Horizon(start_us=number * DAY_US, events=events, outliers=0, has_spike=False, sums=sums)
    return Cycle(horizon=horizon, end_us=(number + 1) * DAY_US, hours=hours)


def judge(cycles: list[Cycle], state: DriftState | None = None) -> tuple[CycleTest, HorizonResult]:
    state = state or DriftState()
    test = prepare_cycles(cycles, DAY_US, STATISTICS)
    assert isinstance(test, CycleTest), test
    result = judge_cycle(
        test,
        DAY_US,
        state.shrunk,
        STATISTICS,
        alpha=0.25 / 7,
        min_effect=0.1,
        exceedance=0.005,
        raised=raised_factor(state, DAY_US),
    )
    return test, result


def live(loads: list[float]) -> list[AlarmUpdate]:
    """Return the update of each cycle from the tenth on."""
    cycles, state, updates = [cycle(number, load) for number, load in enumerate(loads)], DriftState(), []
    for end in range(10, len(cycles) + 1):
        test, result = judge(cycles[:end], state)
        updates.append(advance_cycle_alarm(state, result, test))
        state = updates[-1].state
    return updates


def test_first_verdict_follows_nine_whole_cycles() -> None:
    cycles = [cycle(number) for number in range(10)]
    assert prepare_cycles(cycles[:9], DAY_US, STATISTICS) == "9 of the 10 whole days that a verdict needs"
    assert not judge(cycles)[1].verdict.drifted


def test_lasting_change_is_told_once_settles_and_becomes_the_base() -> None:
    updates = live([0.0] * 13 + [0.3] * 12)
    assert [len(each.told) for each in updates] == [0] * 4 + [1] + [0] * 11
    assert [each.endings for each in updates] == [[]] * 5 + [[Ending.REBASED]] + [[]] * 10
    drifting = [DAY_US in each.state.alarms for each in updates]
    assert drifting == [False] * 4 + [True] * 3 + [False] * 9, "the median has moved by then"
    assert not any(each.state.is_open for each in updates[5:])


def test_change_of_a_single_cycle_is_over_with_the_next_one() -> None:
    updates = live([0.0] * 13 + [0.3] + [0.0] * 4)
    assert [len(each.told) for each in updates] == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert updates[5].endings == [Ending.OVER]
    assert not updates[5].state.alarms


def test_further_change_of_a_settled_drift_is_told_again() -> None:
    updates = live([0.0] * 13 + [0.15, 0.15, 0.45, 0.45])
    assert [len(each.told) for each in updates[4:]] == [1, 0, 1, 0]
    assert [each.state.is_open for each in updates[4:]] == [True, False, True, False]


def test_alarm_raises_the_threshold_which_falls_back_at_the_promised_rate() -> None:
    updates = live([0.0] * 13 + [0.3] + [0.0] * 40)
    raised = [each.state.raised.get(DAY_US, 0.0) for each in updates]
    assert raised[3:5] == [0.0, 0.3]
    assert raised[-1] == 0.0, "0.3 falls by a 28th of itself a day"
    falls = np.diff(raised[4:20])
    assert falls == pytest.approx(np.full(15, -0.3 * 0.25 / 7))


def test_large_change_hides_the_next_one_less_than_it_would_unshrunk() -> None:
    cycles = [cycle(number, load) for number, load in enumerate([0.0] * 20 + [0.4] + [0.0] * 6 + [0.15])]
    _, first = judge(cycles[:21])
    shrunk = DriftState(shrunk={20 * DAY_US: first.verdict.z_threshold / abs(first.verdict.z[LOAD])})
    assert judge(cycles, shrunk)[1].verdict.drifted == (LOAD,)
    assert judge(cycles)[1].verdict.drifted == ()


def test_usual_changes_between_workdays_and_weekends_are_no_drift() -> None:
    loads = [0.2 if number % 7 >= 5 else 0.0 for number in range(42)]
    assert sum(len(each.told) for each in live(loads)) <= 1


def test_cycle_with_a_long_pause_is_not_compared() -> None:
    cycles = [cycle(number) for number in range(12)] + [cycle(12, 0.4, hours=12)]
    assert prepare_cycles(cycles, DAY_US, STATISTICS) == "the last cycle has too few hours or events for a comparison"
    cycles = [cycle(number) for number in range(6)] + [cycle(6, 0.4, events=100)]
    cycles += [cycle(number) for number in range(7, 12)]
    test = prepare_cycles(cycles, DAY_US, STATISTICS)
    assert isinstance(test, CycleTest)
    assert [each.horizon.start_us // DAY_US for each in test.cycles] == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]


def test_pairs_are_reported_and_not_tested() -> None:
    _, result = judge([cycle(number) for number in range(12)] + [cycle(12, pair=0.5)])
    assert result.verdict.drifted == ()
    assert abs(result.verdict.z[PAIR]) > result.verdict.z_threshold


def test_only_the_last_cycles_are_compared() -> None:
    cycles = [cycle(number, 0.4) for number in range(10)] + [cycle(number) for number in range(10, 50)]
    test = prepare_cycles(cycles, DAY_US, STATISTICS)
    assert isinstance(test, CycleTest)
    assert len(test.cycles) == KEPT_CYCLES


def test_day_survives_its_encoding_bit_for_bit() -> None:
    pair = DayCorrelation(hours=23, correlations=np.array([1 / 3, -0.1]))
    day = DriftDay(cycle=cycle(3), shape=(3, 0, 1), correlation=pair)
    again = decode_day(encode_day(day))
    assert again.cycle.horizon.sums.tobytes() == day.cycle.horizon.sums.tobytes()
    assert again.correlation is not None
    assert again.correlation.correlations.tobytes() == pair.correlations.tobytes()
    assert (again.shape, again.cycle.end_us, again.cycle.hours, again.correlation.hours) == (
        (3, 0, 1),
        4 * DAY_US,
        24,
        23,
    )
    assert decode_day(encode_day(replace(day, correlation=None))).correlation is None


def test_weeks_are_sums_of_days_from_monday_to_sunday() -> None:
    days = [DriftDay(cycle=cycle(number), shape=(3, 0, 1), correlation=None) for number in range(4, 4 + 21)]
    weeks = list_cycles(days, 7 * DAY_US, "UTC")  # 5 January 1970 was a Monday
    assert [(each.horizon.start_us // DAY_US, each.end_us // DAY_US, each.hours) for each in weeks] == [
        (4, 11, 168),
        (11, 18, 168),
        (18, 25, 168),
    ]
    first = np.sum([day.cycle.horizon.sums for day in days[:7]], axis=0)
    assert weeks[0].horizon.sums.tolist() == first.tolist()


def test_cycles_end_at_local_midnight() -> None:
    berlin, midnight_us = "Europe/Berlin", 23 * HOUR_US  # of 2 January 1970, a Friday
    assert ends_cycle(midnight_us, DAY_US, berlin)
    assert not ends_cycle(DAY_US, DAY_US, berlin)
    assert [ends_cycle(midnight_us + days * DAY_US, 7 * DAY_US, berlin) for days in range(4)] == [False] * 3 + [True]
