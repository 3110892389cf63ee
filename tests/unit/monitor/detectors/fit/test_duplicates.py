"""Rows that equal each other are looked at once, and count as often as they come."""

import numpy as np
import pytest

from monitor.detectors import GaussianMixture
from monitor.detectors.fit.duplicates import group_duplicates


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_distinct_rows_are_those_of_a_sort(dtype):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, (4000, 5)).astype(dtype)
    found = group_duplicates(values)
    rows, counts = np.unique(values, axis=0, return_counts=True)
    assert found is not None
    order = np.lexsort(values[found.first_index].T[::-1])
    np.testing.assert_array_equal(values[found.first_index][order], rows)
    np.testing.assert_array_equal(found.sum_weights(np.ones(4000))[order], counts)


def test_flags_of_one_bit_do_not_share_a_key():
    values = np.unpackbits(np.arange(4096, dtype=">u2").view(np.uint8).reshape(-1, 2), axis=1).astype(np.float64)
    assert len(group_duplicates(np.repeat(values, 2, axis=0)).first_index) == 4096


def test_rows_that_hardly_repeat_are_left_as_they_are():
    values = np.random.default_rng(0).normal(size=(1000, 3))
    values[:100] = values[100:200]
    assert group_duplicates(values) is None
    assert group_duplicates(values[:1]) is None


def test_a_fit_on_more_rows_than_the_sample_is_the_same_whether_the_equal_ones_are_folded():
    rng = np.random.default_rng(3)
    few = np.concatenate([rng.normal(size=(1500, 4)), rng.normal(size=(1500, 4)) @ rng.normal(size=(4, 4)) + 6.0])
    counts = rng.integers(1, 30, len(few))
    repeated = np.repeat(few, counts, axis=0)
    rng.shuffle(repeated)
    assert len(repeated) > 20_000
    settings = {"shrinkage": 0.0, "tol": 1e-9, "max_iter": 500}
    folded = GaussianMixture(2, **settings).fit(repeated)
    apart = GaussianMixture(2, **settings).fit(repeated + rng.normal(size=repeated.shape) * 1e-9)
    order, other = np.argsort(folded.means_[:, 0]), np.argsort(apart.means_[:, 0])
    np.testing.assert_allclose(folded.weights_[order], apart.weights_[other], atol=1e-5)
    np.testing.assert_allclose(folded.means_[order], apart.means_[other], atol=1e-4)
    np.testing.assert_allclose(folded.covariances_[order], apart.covariances_[other], atol=1e-4)


def test_weights_of_equal_rows_add_up_when_they_are_folded():
    rng = np.random.default_rng(4)
    few = rng.normal(size=(3000, 3))
    repeated = np.repeat(few, 8, axis=0)
    weights = rng.uniform(0.1, 2.0, len(repeated))
    folded = GaussianMixture(1).fit(repeated, sample_weight=weights)
    np.testing.assert_allclose(folded.means_[0], np.average(repeated, axis=0, weights=weights), atol=1e-5)
    np.testing.assert_allclose(folded.covariances_[0], np.cov(repeated.T, aweights=weights, ddof=0), atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"n_components": 3}, {"n_components": "auto"}, {"n_components": 3, "shrinkage": 0.0}]
)
def test_weights_that_are_whole_numbers_are_as_many_rows(settings):
    rng = np.random.default_rng(1000)
    place = rng.integers(0, 3, 600)
    roots = rng.normal(size=(3, 4, 4))
    x = 4.0 * rng.normal(size=(3, 4))[place] + np.einsum("nij,nj->ni", roots[place], rng.normal(size=(600, 4)))
    counts = rng.integers(0, 4, 600)
    weighted = GaussianMixture(**settings).fit(x, sample_weight=counts)
    repeated = GaussianMixture(**settings).fit(np.repeat(x, counts, axis=0))
    np.testing.assert_allclose(weighted.energy(x), repeated.energy(x), atol=1e-3)
