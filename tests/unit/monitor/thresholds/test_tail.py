"""The generalised Pareto tail: its fit, its quantiles and their interval."""

import numpy as np
import pytest
from scipy import stats

from monitor.thresholds.tail import MAX_SHAPE, MIN_PEAKS, fit_tail, min_energies


def descending(distribution: object, n: int, seed: int) -> np.ndarray:
    drawn = distribution.rvs(n, random_state=seed)  # type: ignore[attr-defined]
    return np.sort(drawn)[::-1]


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2, 0.4])
def test_shape_and_scale_have_maximum_likelihood(shape: float) -> None:
    energies = descending(stats.genpareto(shape, scale=3), 50_000, 1)
    tail = fit_tail(energies[:5_000], 50_000)
    assert tail is not None
    expected_shape, _, expected_scale = stats.genpareto.fit(tail.excesses, floc=0)
    assert tail.shape == pytest.approx(expected_shape, abs=2e-3)
    assert tail.scale == pytest.approx(expected_scale, rel=2e-3)


def test_quantile_is_that_of_the_fitted_distribution() -> None:
    tail = fit_tail(descending(stats.gamma(8), 20_000, 2), 20_000)
    assert tail is not None
    distribution = stats.genpareto(tail.shape, scale=tail.scale)
    assert tail.quantile(1e-5) == pytest.approx(tail.level + distribution.isf(1e-5 / tail.share))


def test_tail_has_its_share_at_its_level() -> None:
    tail = fit_tail(descending(stats.gamma(8), 20_000, 3), 20_000)
    assert tail is not None
    assert (tail.share, len(tail.excesses)) == (0.02, 400)
    assert tail.quantile(tail.share) == tail.level


@pytest.mark.slow
@pytest.mark.parametrize("n", [2_000, 20_000])
@pytest.mark.parametrize("distribution", [stats.gamma(8), stats.expon(), stats.pareto(3)])
def test_interval_contains_the_exact_quantile_about_nine_times_in_ten(distribution: object, n: int) -> None:
    exact, hits, draws = distribution.isf(1e-4), 0, 80  # type: ignore[attr-defined]
    for seed in range(draws):
        tail = fit_tail(descending(distribution, n, seed)[:3_000], n)
        assert tail is not None
        low, high = tail.interval(1e-4, level=0.9, dispersion=1.0)
        hits += low <= exact <= high
    assert 0.78 <= hits / draws <= 1


def test_dispersion_widens_the_interval() -> None:
    tail = fit_tail(descending(stats.gamma(8), 20_000, 4), 20_000)
    assert tail is not None
    low, high = tail.interval(1e-4, level=0.9, dispersion=1.0)
    wide_low, wide_high = tail.interval(1e-4, level=0.9, dispersion=4.0)
    assert wide_low < low < tail.quantile(1e-4) < high < wide_high


def test_shape_is_capped_and_marked() -> None:
    tail = fit_tail(descending(stats.pareto(0.7), 20_000, 5), 20_000)
    assert tail is not None
    assert tail.shape == MAX_SHAPE
    assert tail.is_shape_capped


def test_burst_at_the_end_of_the_tail_keeps_the_quantile_bounded() -> None:
    energies = descending(stats.gamma(8), 20_000, 6)
    energies[:20] = 1e6
    tail = fit_tail(energies, 20_000)
    assert tail is not None
    assert tail.shape == MAX_SHAPE
    assert tail.quantile(1e-4) < 1e5


def test_ties_at_the_level_give_finite_quantiles() -> None:
    energies = np.sort(np.concatenate([np.full(900, 5.0), 5 + stats.expon.rvs(size=100, random_state=7)]))[::-1]
    tail = fit_tail(energies, 1_000)
    assert tail is not None
    assert np.isfinite([tail.quantile(1e-5), *tail.interval(1e-5, level=0.9, dispersion=1.0)]).all()


def test_quantile_of_equal_energies_is_their_value() -> None:
    tail = fit_tail(np.full(5_000, 7.0), 5_000)
    assert tail is not None
    assert tail.quantile(1e-6) == pytest.approx(7)
    assert np.isfinite(tail.interval(1e-6, level=0.9, dispersion=1.0)).all()


def test_tail_needs_a_hundred_peaks() -> None:
    assert min_energies() == 1_000
    energies = descending(stats.gamma(8), 1_000, 8)
    assert fit_tail(energies[:300], 1_000) is not None
    assert fit_tail(energies[:300], 999) is None
    assert fit_tail(energies[:MIN_PEAKS], 1_000) is None
