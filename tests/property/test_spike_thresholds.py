"""Spike count thresholds are the smallest within the budget, and monotone in their arguments."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.incidents.spike import judge_count, spike_count_threshold
from monitor.statistics.counts import CountModel, fit_count_model, p_value

COUNT_MODELS = st.builds(
    CountModel,
    rate=st.floats(1e-6, 0.3),
    calibration_n=st.integers(10, 10**9),
    dispersion=st.one_of(st.just(1.0), st.floats(1, 200)),
    windows=st.integers(0, 10_000),
    state=st.just("learned"),
)
ALPHAS = st.floats(1e-9, 0.4)
EVENTS = st.integers(0, 10**6)


@given(COUNT_MODELS, EVENTS, ALPHAS, st.integers(0, 3000))
def test_window_fires_exactly_if_its_p_value_is_within_the_budget(
    count_model: CountModel, n: int, alpha: float, x: int
) -> None:
    verdict = judge_count(count_model, n, x, alpha=alpha)
    assert verdict.fires == (x > verdict.count_threshold)
    if n:
        assert verdict.fires == (p_value(count_model, n, x) <= alpha)


@given(COUNT_MODELS, EVENTS, ALPHAS, ALPHAS)
def test_smaller_budget_never_lowers_the_threshold(count_model: CountModel, n: int, one: float, other: float) -> None:
    assert (
        spike_count_threshold(count_model, n, min(one, other)).count
        >= spike_count_threshold(count_model, n, max(one, other)).count
    )


@given(COUNT_MODELS, EVENTS, EVENTS, st.floats(1e-9, 1e-2))
def test_more_events_never_lower_the_threshold(count_model: CountModel, one: int, other: int, alpha: float) -> None:
    assert (
        spike_count_threshold(count_model, max(one, other), alpha).count
        >= spike_count_threshold(count_model, min(one, other), alpha).count
    )


@given(COUNT_MODELS, EVENTS, st.integers(0, 10**6))
def test_p_values_are_probabilities_and_fall_with_the_count(count_model: CountModel, n: int, x: int) -> None:
    assert 1 >= p_value(count_model, n, x) >= p_value(count_model, n, x + 1) >= 0
    assert p_value(count_model, n, 0) == 1


@given(COUNT_MODELS, EVENTS, ALPHAS, st.integers(0, 3000), st.integers(0, 100), st.floats(0, 1))
def test_minimum_floors_never_make_a_window_fire(
    count_model: CountModel, n: int, alpha: float, x: int, min_outliers: int, min_ratio: float
) -> None:
    floored = judge_count(count_model, n, x, alpha=alpha, min_outliers=min_outliers, min_ratio=min_ratio)
    assert not floored.fires or judge_count(count_model, n, x, alpha=alpha).fires
    if floored.fires:
        assert x >= min_outliers
        assert x >= min_ratio * n - 1e-6


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 1000)), min_size=1, max_size=60), st.integers(0, 50))
def test_fitted_count_model_is_finite_for_any_counts(counts: list[tuple[int, int]], above: int) -> None:
    x = np.array([min(a, b) for a, b in counts])
    n = np.array([b for _, b in counts])
    count_model = fit_count_model(above, 1000, x, n)
    assert 0 < count_model.rate <= 1
    assert 1 <= count_model.dispersion < np.inf
    assert spike_count_threshold(count_model, 1000, 1e-5).attainable <= 1e-5
