"""Tests of the selection of the number of components and of the shrinkage."""

import numpy as np
import pytest

from monitor.detectors import GaussianMixture


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 150])
def test_auto_does_not_overfit_few_rows_of_many_columns(n):
    rng = np.random.default_rng(0)
    x, held_out = rng.normal(size=(n, 12)), rng.normal(size=(2000, 12))
    auto, one = GaussianMixture("auto").fit(x), GaussianMixture(1).fit(x)
    assert auto.score(held_out) > one.score(held_out) - 0.5


def test_too_few_rows_to_hold_out_give_one_component():
    x = np.random.default_rng(0).normal(size=(19, 2))
    assert len(GaussianMixture("auto").fit(x).weights_) == 1


@pytest.mark.slow
def test_components_with_a_small_gain_are_not_selected():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 6000)
    offset = 0.8 * rng.integers(-1, 2, 6000)
    x = rng.normal(size=(6000, 4)) * 0.4 + 12.0 * labels[:, None]
    x[:, 0] += offset
    gm = GaussianMixture("auto").fit(x)
    criterion = gm.report_.criterion
    assert max(criterion, key=criterion.get) > 3
    assert len(gm.weights_) == 3


@pytest.mark.slow
def test_report_has_the_held_out_likelihood_by_number_of_components():
    x = np.random.default_rng(0).normal(size=(200, 3))
    gm = GaussianMixture("auto").fit(x)
    assert set(gm.report_.criterion) >= {1, 2, 3}
    assert gm.report_.components_asked is None


@pytest.mark.slow
def test_explicit_n_components_reduces_shrinkage_that_costs_likelihood():
    rng = np.random.default_rng(5)
    means = rng.normal(size=(4, 16)) * 1.5
    roots = rng.normal(size=(4, 16, 16)) / 4 + 0.3 * np.eye(16)
    labels = rng.integers(0, 4, 30_000)
    x = means[labels] + np.einsum("nij,nj->ni", roots[labels], rng.normal(size=(30_000, 16)))
    explicit = GaussianMixture(4).fit(x[:24_000])
    unshrunk = GaussianMixture(4, shrinkage=0.0).fit(x[:24_000])
    pooled = GaussianMixture("auto").fit(x[:24_000])
    assert explicit.score(x[24_000:]) > unshrunk.score(x[24_000:]) - 0.01
    assert pooled.report_.alike_rows == 10.0
    assert explicit.report_.alike_rows < 10.0


def test_explicit_n_components_keeps_shrinkage_that_costs_no_likelihood():
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.normal(size=(60, 6)), rng.normal(size=(60, 6)) + 8.0])
    assert GaussianMixture(2).fit(x).report_.alike_rows == 6.0


@pytest.mark.slow
def test_duplicates_give_fewer_components_for_the_same_gain():
    rng = np.random.default_rng(0)
    x = 3.0 * rng.normal(size=(6, 5))[rng.integers(0, 6, 3000)] + rng.normal(size=(3000, 5))
    distinct = GaussianMixture("auto").fit(x)
    repeated = GaussianMixture("auto").fit(np.repeat(x[:1500], 2, axis=0))
    weighted = GaussianMixture("auto").fit(x[:1500], sample_weight=np.full(1500, 2))
    assert len(distinct.weights_) >= 4
    assert len(repeated.weights_) == len(weighted.weights_) <= 3


@pytest.mark.parametrize(
    "weights", [np.r_[1e6, np.ones(299)], np.r_[np.ones(299), 1e6], np.r_[9e4, np.ones(299)] + 0.5]
)
@pytest.mark.parametrize("components", ["auto", 3])
def test_fit_with_one_dominant_weight_has_finite_energies_and_criteria(weights, components):
    x = np.random.default_rng(0).normal(size=(300, 3))
    gm = GaussianMixture(components).fit(x, sample_weight=weights)
    assert np.isfinite(gm.energy(x)).all()
    assert all(np.isfinite(mean) for mean in gm.report_.criterion.values())
