"""The counts of a season are those of the stored windows, also after a restart, an acceptance and in a burst."""

from collections.abc import Sequence

import numpy as np

from config.stream_rules import StreamRules
from config.time_format import DAY_US, HOUR_US
from monitor.statistics.season import SeasonState
from monitor.thresholds.season_learner import SeasonLearner
from storage.control.thresholds import WindowCounts
from tests.rules import make_rules

MONDAY = 1_767_571_200_000_000
HALF_HOUR = HOUR_US // 2
RULES = make_rules(size_us=HALF_HOUR, season="auto", timezone="UTC", adopt_after_us=DAY_US)


class StoredWindows:
    """Stored windows, with a record of the reads."""

    def __init__(self, windows: Sequence[WindowCounts]) -> None:
        self.windows = list(windows)
        self.read = 0

    def window_counts(self, stream_id: int, after_us: int, before_us: int) -> list[WindowCounts]:
        found = [window for window in self.windows if after_us <= window.window_start_us < before_us]
        self.read += len(found)
        return found


def daily_windows(days: int, amplitude: float = 0.9) -> list[WindowCounts]:
    rng = np.random.default_rng(1)
    starts = MONDAY + np.arange(48 * days) * HALF_HOUR
    means = 4 * np.exp(amplitude * np.sin(2 * np.pi * (starts % DAY_US) / DAY_US))
    return [
        WindowCounts(window_start_us=start, window_end_us=start + HALF_HOUR, events=300, outliers=x)
        for start, x in zip(starts.tolist(), rng.poisson(means).tolist(), strict=True)
    ]


def run_ticks(
    learner: SeasonLearner,
    store: StoredWindows,
    days: Sequence[float],
    rules: StreamRules = RULES,
    acceptances: int = 0,
) -> SeasonState | None:
    state = None
    for day in days:
        state = learner.find_season(store, state, MONDAY + int(day * DAY_US), rules, acceptances)
    return state


def test_none_reads_no_windows() -> None:
    store = StoredWindows(daily_windows(5))
    assert run_ticks(SeasonLearner(1), store, [5], make_rules(season="none")) is None
    assert store.read == 0


def test_season_is_the_same_tick_by_tick_and_after_a_restart() -> None:
    store = StoredWindows(daily_windows(10))
    carried = SeasonLearner(1)
    before = run_ticks(carried, store, np.arange(0.5, 9.1, 0.25).tolist())
    restarted = SeasonLearner(1).find_season(store, before, MONDAY + 10 * DAY_US, RULES, 0)
    assert carried.find_season(store, before, MONDAY + 10 * DAY_US, RULES, 0) == restarted
    assert restarted is not None
    assert restarted.season is not None
    assert restarted.season.kind == "hour_of_day"


def test_each_window_is_read_once() -> None:
    store = StoredWindows(daily_windows(10))
    run_ticks(SeasonLearner(1), store, np.arange(0.5, 10.1, 0.25).tolist())
    assert store.read <= 480


def test_spike_counts_up_to_its_limit() -> None:
    windows = daily_windows(6, amplitude=0)
    spike = WindowCounts(
        window_start_us=windows[100].window_start_us,
        window_end_us=windows[100].window_end_us,
        events=300,
        outliers=290,
        limit=12,
    )
    clipped = WindowCounts(
        window_start_us=spike.window_start_us, window_end_us=spike.window_end_us, events=300, outliers=13
    )
    states = [
        run_ticks(SeasonLearner(1), StoredWindows([*windows[:100], each, *windows[101:]]), [6])
        for each in (spike, clipped)
    ]
    assert states[0] == states[1]


def test_young_slow_rise_is_left_out_until_it_is_adopted_or_accepted() -> None:
    windows = daily_windows(6)
    since_us = MONDAY + 5 * DAY_US + 12 * HOUR_US
    risen = [
        WindowCounts(
            window_start_us=each.window_start_us,
            window_end_us=each.window_end_us,
            events=each.events,
            outliers=each.outliers + 10,
            rise_since_us=since_us,
        )
        if each.window_start_us >= since_us
        else each
        for each in windows
    ]
    kept = [each for each in windows if each.window_start_us < since_us - HOUR_US]
    store = StoredWindows(risen)
    learner = SeasonLearner(1)
    without = run_ticks(SeasonLearner(1), StoredWindows(kept), [6])
    assert run_ticks(learner, store, [6]) == without
    store.windows = [
        WindowCounts(
            window_start_us=each.window_start_us,
            window_end_us=each.window_end_us,
            events=each.events,
            outliers=each.outliers,
        )
        for each in risen
    ]
    assert run_ticks(learner, store, [6], acceptances=1) != without
