"""Tests of fits on contaminated events, which leave the outliers out."""

import numpy as np
import pytest

from monitor.detectors import GaussianMixture

N = 2000


def make_inliers(kind: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    if kind == "duplicates":
        return rng.normal(size=(10, 4))[rng.integers(0, 10, N)]
    if kind == "one-hot":
        return np.concatenate([np.eye(3)[rng.integers(0, 3, N)], rng.normal(size=(N, 1))], axis=1)
    if kind == "constant":
        return np.tile([1.0, 2.0, 3.0, 4.0], (N, 1))
    return rng.normal(size=(N, 4))


def with_gross_outliers(x: np.ndarray, scale: float = 1e3) -> np.ndarray:
    rng = np.random.default_rng(2)
    x = x.copy()
    x[rng.permutation(len(x))[: len(x) // 20]] = scale * rng.normal(size=(len(x) // 20, x.shape[1]))
    return x


@pytest.mark.parametrize("contamination", [0.05, 0.49])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("kind", ["normal", "duplicates", "one-hot", "constant"])
def test_gross_outliers_are_trimmed_for_every_kind_of_inliers(kind, k, contamination):
    x = with_gross_outliers(make_inliers(kind))
    gm = GaussianMixture(k, contamination=contamination, n_init=1).fit(x)
    energies = gm.energy(x)
    assert np.isfinite(energies).all()
    assert gm.report_.rows_trimmed <= contamination * N + 1
    is_outlier = np.abs(x - make_inliers(kind)).max(axis=1) > 50
    assert energies[is_outlier].min() > np.quantile(energies[~is_outlier], 0.9)


@pytest.mark.slow
def test_auto_finds_the_number_of_components_despite_gross_outliers():
    rng = np.random.default_rng(0)
    x = with_gross_outliers(rng.normal(size=(N, 4)) + 9.0 * rng.integers(0, 2, N)[:, None])
    gm = GaussianMixture("auto", contamination=0.06).fit(x)
    assert np.sort(gm.means_.mean(axis=1)).round() == pytest.approx([0.0, 9.0])


@pytest.mark.parametrize("scale", [1e3, 1e8])
def test_trimmed_fit_scores_as_a_fit_without_outliers(scale):
    held_out = np.random.default_rng(3).normal(size=(N, 4))
    clean = GaussianMixture(1).fit(make_inliers("normal"))
    trimmed = GaussianMixture(1, contamination=0.06).fit(with_gross_outliers(make_inliers("normal"), scale))
    assert trimmed.score(held_out) > clean.score(held_out) - 0.05


def test_rows_with_zero_weight_do_not_count_as_contamination():
    x = np.r_[np.zeros((900, 1)), np.random.default_rng(0).normal(size=(100, 1)) + 5.0]
    gm = GaussianMixture(1, contamination=0.1).fit(x, sample_weight=np.r_[np.zeros(900), np.ones(100)])
    assert gm.means_[0, 0] == pytest.approx(5.0, abs=0.3)


def test_fractional_weights_are_relative():
    x = np.random.default_rng(0).normal(size=(21_000, 2))
    unweighted, weighted = GaussianMixture(2).fit(x), GaussianMixture(2).fit(x, sample_weight=np.full(21_000, 1e-6))
    assert np.allclose(unweighted.means_, weighted.means_, atol=1e-3)
