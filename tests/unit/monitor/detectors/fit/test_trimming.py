"""A share of the training events is strange: they are left out, whatever they and the others are like."""

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


def with_gross_outliers(x: np.ndarray, far: float = 1e3) -> np.ndarray:
    rng = np.random.default_rng(2)
    x = x.copy()
    x[rng.permutation(len(x))[: len(x) // 20]] = far * rng.normal(size=(len(x) // 20, x.shape[1]))
    return x


@pytest.mark.parametrize("contamination", [0.05, 0.49])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("kind", ["normal", "duplicates", "one-hot", "constant"])
def test_gross_outliers_are_left_out_of_a_fit_on_anything(kind, k, contamination):
    x = with_gross_outliers(make_inliers(kind))
    gm = GaussianMixture(k, contamination=contamination, n_init=1).fit(x)
    energies = gm.energy(x)
    assert np.isfinite(energies).all()
    assert gm.report_.rows_trimmed <= contamination * N + 1
    strange = np.abs(x - make_inliers(kind)).max(axis=1) > 50
    assert energies[strange].min() > np.quantile(energies[~strange], 0.9)


def test_the_number_of_components_is_found_among_gross_outliers():
    rng = np.random.default_rng(0)
    x = with_gross_outliers(rng.normal(size=(N, 4)) + 9.0 * rng.integers(0, 2, N)[:, None])
    gm = GaussianMixture("auto", contamination=0.06).fit(x)
    assert np.sort(gm.means_.mean(axis=1)).round() == pytest.approx([0.0, 9.0])


@pytest.mark.parametrize("far", [1e3, 1e8])
def test_outliers_leave_the_mixture_as_it_is_without_them(far):
    fresh = np.random.default_rng(3).normal(size=(N, 4))
    clean = GaussianMixture(1).fit(make_inliers("normal"))
    trimmed = GaussianMixture(1, contamination=0.06).fit(with_gross_outliers(make_inliers("normal"), far))
    assert trimmed.score(fresh) > clean.score(fresh) - 0.05


def test_rows_without_weight_are_not_counted_as_the_strange_share():
    x = np.r_[np.zeros((900, 1)), np.random.default_rng(0).normal(size=(100, 1)) + 5.0]
    gm = GaussianMixture(1, contamination=0.1).fit(x, sample_weight=np.r_[np.zeros(900), np.ones(100)])
    assert gm.means_[0, 0] == pytest.approx(5.0, abs=0.3)


def test_weights_count_by_their_proportions_however_many_rows():
    x = np.random.default_rng(0).normal(size=(21_000, 2))
    plain, light = GaussianMixture(2).fit(x), GaussianMixture(2).fit(x, sample_weight=np.full(21_000, 1e-6))
    assert np.allclose(plain.means_, light.means_, atol=1e-3)
