"""The generalised Pareto tail: its fit, its quantiles and their interval."""

import numpy as np
import pytest
from scipy import stats

from monitor.thresholds.tail import MAX_SHAPE, MIN_PEAKS, fit_tail, min_energies


def descending(law: object, n: int, seed: int) -> np.ndarray:
    drawn = law.rvs(n, random_state=seed)  # type: ignore[attr-defined]
    return np.sort(drawn)[::-1]


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2, 0.4])
def test_shape_and_scale_are_the_most_likely_ones(shape: float) -> None:
    energies = descending(stats.genpareto(shape, scale=3), 50_000, 1)
    tail = fit_tail(energies[:5_000], 50_000)
    assert tail is not None
    expected_shape, _, expected_scale = stats.genpareto.fit(tail.excesses, floc=0)
    assert tail.shape == pytest.approx(expected_shape, abs=2e-3)
    assert tail.scale == pytest.approx(expected_scale, rel=2e-3)


def test_a_quantile_is_the_one_of_the_fitted_law() -> None:
    tail = fit_tail(descending(stats.gamma(8), 20_000, 2), 20_000)
    assert tail is not None
    law = stats.genpareto(tail.shape, scale=tail.scale)
    assert tail.quantile(1e-5) == pytest.approx(tail.level + law.isf(1e-5 / tail.share))


def test_at_its_own_level_the_tail_has_its_own_share() -> None:
    tail = fit_tail(descending(stats.gamma(8), 20_000, 3), 20_000)
    assert tail is not None
    assert (tail.share, len(tail.excesses)) == (0.02, 400)
    assert tail.quantile(tail.share) == tail.level


@pytest.mark.parametrize("n", [2_000, 20_000])
@pytest.mark.parametrize("law", [stats.gamma(8), stats.expon(), stats.pareto(3)])
def test_the_interval_holds_the_exact_quantile_about_nine_times_in_ten(law: object, n: int) -> None:
    exact, held, times = law.isf(1e-4), 0, 80  # type: ignore[attr-defined]
    for seed in range(times):
        tail = fit_tail(descending(law, n, seed)[:3_000], n)
        assert tail is not None
        low, high = tail.interval(1e-4, level=0.9, dispersion=1.0)
        held += low <= exact <= high
    assert 0.78 <= held / times <= 1


def test_dispersion_widens_the_interval() -> None:
    tail = fit_tail(descending(stats.gamma(8), 20_000, 4), 20_000)
    assert tail is not None
    low, high = tail.interval(1e-4, level=0.9, dispersion=1.0)
    wide_low, wide_high = tail.interval(1e-4, level=0.9, dispersion=4.0)
    assert wide_low < low < tail.quantile(1e-4) < high < wide_high


def test_the_shape_is_capped_and_says_so() -> None:
    tail = fit_tail(descending(stats.pareto(0.7), 20_000, 5), 20_000)
    assert tail is not None
    assert tail.shape == MAX_SHAPE
    assert tail.is_shape_capped


def test_bursts_at_the_end_of_the_tail_do_not_take_the_limit_away() -> None:
    energies = descending(stats.gamma(8), 20_000, 6)
    energies[:20] = 1e6
    tail = fit_tail(energies, 20_000)
    assert tail is not None
    assert tail.shape == MAX_SHAPE
    assert tail.quantile(1e-4) < 1e5


def test_ties_at_the_level_are_no_excesses() -> None:
    energies = np.sort(np.concatenate([np.full(900, 5.0), 5 + stats.expon.rvs(size=100, random_state=7)]))[::-1]
    tail = fit_tail(energies, 1_000)
    assert tail is not None
    assert np.isfinite([tail.quantile(1e-5), *tail.interval(1e-5, level=0.9, dispersion=1.0)]).all()


def test_equal_energies_have_a_limit_at_themselves() -> None:
    tail = fit_tail(np.full(5_000, 7.0), 5_000)
    assert tail is not None
    assert tail.quantile(1e-6) == pytest.approx(7)
    assert np.isfinite(tail.interval(1e-6, level=0.9, dispersion=1.0)).all()


def test_fewer_than_a_hundred_peaks_are_no_tail() -> None:
    assert min_energies() == 1_000
    energies = descending(stats.gamma(8), 1_000, 8)
    assert fit_tail(energies[:300], 1_000) is not None
    assert fit_tail(energies[:300], 999) is None
    assert fit_tail(energies[:MIN_PEAKS], 1_000) is None
