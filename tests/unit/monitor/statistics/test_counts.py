"""The dispersion of the count model: no single window determines it, and it grows without jumps."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from monitor.incidents.spike import spike_count_threshold
from monitor.statistics.counts import MAX_RAISE, CountModel, fit_count_model

COUNTS = st.integers(30, 80).flatmap(lambda windows: npst.arrays(np.int64, windows, elements=st.integers(0, 8)))


def learn(x: np.ndarray, n: int = 40) -> CountModel:
    return fit_count_model(400, 40_000, x, np.full(len(x), n))


@settings(deadline=None, max_examples=30)
@given(COUNTS, st.integers(0, 32))
def test_no_single_window_raises_the_dispersion_beyond_that_of_the_second_highest(x: np.ndarray, more: int) -> None:
    burst = x.copy()
    burst[int(np.argmax(x))] += more
    x[int(np.argmax(x))] = np.sort(x)[-2]
    assert learn(burst).dispersion == learn(x).dispersion


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 200), st.integers(30, 60), st.integers(5, 40))
def test_burst_that_no_test_found_leaves_the_count_threshold_within_two(seed: int, windows: int, burst: int) -> None:
    x = np.random.default_rng(seed).poisson(0.4, windows)
    with_burst = np.append(x, burst)
    without = spike_count_threshold(learn(np.append(x, x.max())), 40, 1e-5).count
    assert spike_count_threshold(learn(with_burst), 40, 1e-5).count <= without + 2


def test_window_that_a_test_found_counts_in_full_once_it_is_normal() -> None:
    x = np.zeros(60, np.int64)
    x[::3] = 1
    x[10] = 12
    found = np.arange(60) == 10
    n = np.full(60, 12)
    assert fit_count_model(0, 0, x, n, found=found).dispersion > 5
    assert fit_count_model(0, 0, x, n).dispersion == 1


def test_dispersion_grows_without_jumps_from_one() -> None:
    """Two windows share what is moved between them, so that the dispersion grows in small steps."""
    events = np.full(60, 10_000)
    x = np.full(60, 1_000)
    found = []
    for moved in range(300):
        spread = x.copy()
        spread[:30] += moved
        spread[30:] -= moved
        found.append(fit_count_model(0, 0, spread, events).dispersion)
    assert found[0] == 1
    assert found[-1] > 10
    assert (np.diff(np.log(found)) < 0.15).all()


def test_raise_of_few_windows_is_bounded() -> None:
    x = np.zeros(30, np.int64)
    x[:2] = 6
    mean = x.mean()
    pearson = ((x - mean) ** 2 / mean).sum() / 29
    assert learn(x).dispersion <= (1 + MAX_RAISE) * pearson + 1e-9
