"""Tests of the grouping of duplicate rows and of fits on them."""

import numpy as np
import pytest

from monitor.detectors import GaussianMixture
from monitor.detectors.fit.duplicates import group_duplicates


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distinct_rows_and_counts_match_numpy_unique(dtype):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, (4000, 5)).astype(dtype)
    distinct = group_duplicates(values)
    rows, counts = np.unique(values, axis=0, return_counts=True)
    assert distinct is not None
    order = np.lexsort(values[distinct.first_index].T[::-1])
    np.testing.assert_array_equal(values[distinct.first_index][order], rows)
    np.testing.assert_array_equal(distinct.sum_weights(np.ones(4000))[order], counts)


def test_rows_of_binary_flags_have_different_hashes():
    values = np.unpackbits(np.arange(4096, dtype=">u2").view(np.uint8).reshape(-1, 2), axis=1).astype(np.float64)
    assert len(group_duplicates(np.repeat(values, 2, axis=0)).first_index) == 4096


def test_rows_with_few_duplicates_are_not_grouped():
    values = np.random.default_rng(0).normal(size=(1000, 3))
    values[:100] = values[100:200]
    assert group_duplicates(values) is None
    assert group_duplicates(values[:1]) is None


@pytest.mark.slow
def test_fit_on_all_rows_is_the_same_with_and_without_deduplication():
    rng = np.random.default_rng(3)
    base = np.concatenate([rng.normal(size=(1500, 4)), rng.normal(size=(1500, 4)) @ rng.normal(size=(4, 4)) + 6.0])
    counts = rng.integers(1, 30, len(base))
    repeated = np.repeat(base, counts, axis=0)
    rng.shuffle(repeated)
    assert len(repeated) > 20_000
    settings = {"shrinkage": 0.0, "tol": 1e-9, "max_iter": 500}
    deduplicated = GaussianMixture(2, **settings).fit(repeated)
    perturbed = GaussianMixture(2, **settings).fit(repeated + rng.normal(size=repeated.shape) * 1e-9)
    order, other = np.argsort(deduplicated.means_[:, 0]), np.argsort(perturbed.means_[:, 0])
    np.testing.assert_allclose(deduplicated.weights_[order], perturbed.weights_[other], atol=1e-5)
    np.testing.assert_allclose(deduplicated.means_[order], perturbed.means_[other], atol=1e-4)
    np.testing.assert_allclose(deduplicated.covariances_[order], perturbed.covariances_[other], atol=1e-4)


def test_weights_of_duplicates_are_summed():
    rng = np.random.default_rng(4)
    base = rng.normal(size=(3000, 3))
    repeated = np.repeat(base, 8, axis=0)
    weights = rng.uniform(0.1, 2.0, len(repeated))
    deduplicated = GaussianMixture(1).fit(repeated, sample_weight=weights)
    np.testing.assert_allclose(deduplicated.means_[0], np.average(repeated, axis=0, weights=weights), atol=1e-5)
    np.testing.assert_allclose(deduplicated.covariances_[0], np.cov(repeated.T, aweights=weights, ddof=0), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"n_components": 3}, {"n_components": "auto"}, {"n_components": 3, "shrinkage": 0.0}]
)
def test_integer_weights_are_equivalent_to_repeated_rows(settings):
    rng = np.random.default_rng(1000)
    labels = rng.integers(0, 3, 600)
    roots = rng.normal(size=(3, 4, 4))
    x = 4.0 * rng.normal(size=(3, 4))[labels] + np.einsum("nij,nj->ni", roots[labels], rng.normal(size=(600, 4)))
    counts = rng.integers(0, 4, 600)
    weighted = GaussianMixture(**settings).fit(x, sample_weight=counts)
    repeated = GaussianMixture(**settings).fit(np.repeat(x, counts, axis=0))
    np.testing.assert_allclose(weighted.energy(x), repeated.energy(x), atol=1e-3)
