"""The thresholds that the cells of a grid share are those that each cell computes alone."""

from dataclasses import replace

from monitor.backtest.shared_cache import SharedCache
from monitor.control_plane.control_plane import ThresholdCalculator
from monitor.statistics.counts import CountModel
from tests.unit.monitor.thresholds.test_tick import DAY, EVENTS, FIRST, MINUTE, REFERENCE, RULES, energies, look_back_of

CLEAN = [window * MINUTE for window in range(200)]


def count_model_of(calculator: ThresholdCalculator, per_week: float) -> CountModel:
    return calculator.compute_threshold(
        FIRST,
        look_back_of(energies()),
        CLEAN,
        REFERENCE,
        replace(RULES, per_week=per_week),
        tick_us=DAY,
        valid_from_us=DAY + MINUTE,
        most_events=EVENTS,
        season=None,
    )[1]


def test_a_count_model_of_few_windows_is_learned_only_under_a_large_budget() -> None:
    shared = SharedCache()
    states = [count_model_of(shared, per_week).state for per_week in (1.0, 100.0, 2.0, 200.0)]
    assert states == ["provisional", "learned", "provisional", "learned"]
    assert count_model_of(shared, 1.0) == count_model_of(ThresholdCalculator(), 1.0)
