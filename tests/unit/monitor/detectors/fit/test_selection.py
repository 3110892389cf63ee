"""How many components "auto" takes, and what it is told by few rows or discrete ones."""

import numpy as np
import pytest

from monitor.detectors import GaussianMixture


@pytest.mark.parametrize("n", [60, 150])
def test_few_rows_of_many_columns_are_not_cut_into_narrow_crowds(n):
    rng = np.random.default_rng(0)
    x, fresh = rng.normal(size=(n, 12)), rng.normal(size=(2000, 12))
    auto, one = GaussianMixture("auto").fit(x), GaussianMixture(1).fit(x)
    assert auto.score(fresh) > one.score(fresh) - 0.5


def test_fewer_rows_than_can_be_held_out_are_one_component():
    x = np.random.default_rng(0).normal(size=(19, 2))
    assert len(GaussianMixture("auto").fit(x).weights_) == 1


def test_components_that_sharpen_the_density_only_a_little_are_not_taken():
    rng = np.random.default_rng(1)
    place = rng.integers(0, 3, 6000)
    near = 0.8 * rng.integers(-1, 2, 6000)
    x = rng.normal(size=(6000, 4)) * 0.4 + 12.0 * place[:, None]
    x[:, 0] += near
    gm = GaussianMixture("auto").fit(x)
    criterion = gm.report_.criterion
    assert max(criterion, key=criterion.get) > 3
    assert len(gm.weights_) == 3


def test_the_report_gives_the_held_out_likelihood_by_number_of_components():
    x = np.random.default_rng(0).normal(size=(200, 3))
    gm = GaussianMixture("auto").fit(x)
    assert set(gm.report_.criterion) >= {1, 2, 3}
    assert gm.report_.components_asked is None


def test_a_number_that_is_asked_for_is_as_likely_as_without_made_up_rows():
    rng = np.random.default_rng(5)
    means = rng.normal(size=(4, 16)) * 1.5
    roots = rng.normal(size=(4, 16, 16)) / 4 + 0.3 * np.eye(16)
    place = rng.integers(0, 4, 30_000)
    x = means[place] + np.einsum("nij,nj->ni", roots[place], rng.normal(size=(30_000, 16)))
    asked = GaussianMixture(4).fit(x[:24_000])
    plain = GaussianMixture(4, shrinkage=0.0).fit(x[:24_000])
    pooled = GaussianMixture("auto").fit(x[:24_000])
    assert asked.score(x[24_000:]) > plain.score(x[24_000:]) - 0.01
    assert pooled.report_.alike_rows == 10.0
    assert asked.report_.alike_rows < 10.0


def test_made_up_rows_that_cost_no_likelihood_are_kept_for_a_number_that_is_asked_for():
    rng = np.random.default_rng(6)
    x = np.concatenate([rng.normal(size=(60, 6)), rng.normal(size=(60, 6)) + 8.0])
    assert GaussianMixture(2).fit(x).report_.alike_rows == 6.0


def test_rows_that_repeat_earn_fewer_components_for_the_same_gain():
    rng = np.random.default_rng(0)
    x = 3.0 * rng.normal(size=(6, 5))[rng.integers(0, 6, 3000)] + rng.normal(size=(3000, 5))
    once = GaussianMixture("auto").fit(x)
    twice = GaussianMixture("auto").fit(np.repeat(x[:1500], 2, axis=0))
    counted = GaussianMixture("auto").fit(x[:1500], sample_weight=np.full(1500, 2))
    assert len(once.weights_) >= 4
    assert len(twice.weights_) == len(counted.weights_) <= 3


@pytest.mark.parametrize(
    "weights", [np.r_[1e6, np.ones(299)], np.r_[np.ones(299), 1e6], np.r_[9e4, np.ones(299)] + 0.5]
)
@pytest.mark.parametrize("components", ["auto", 3])
def test_a_row_that_outweighs_the_rest_leaves_something_to_hold_out(weights, components):
    x = np.random.default_rng(0).normal(size=(300, 3))
    gm = GaussianMixture(components).fit(x, sample_weight=weights)
    assert np.isfinite(gm.energy(x)).all()
    assert all(np.isfinite(mean) for mean in gm.report_.criterion.values())
