"""Additive contributions against a direct computation over all orders of the features, and their sum."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from monitor.detectors import GaussianMixture
from monitor.detectors.explain.mixture_explainer import typical_contributions
from monitor.detectors.explain.prefixes import (
    additive_contributions,
    baseline_rows,
    choose_orders,
    make_prefix_factors,
)


def random_mixture(k, d, seed=0):
    rng = np.random.default_rng(seed)
    lower = np.tril(rng.normal(size=(k, d, d)))
    lower[:, np.arange(d), np.arange(d)] = rng.uniform(0.3, 2.0, (k, d))
    weights = rng.uniform(0.2, 1.0, k)
    return weights / weights.sum(), rng.normal(size=(k, d)) * 3, lower


def make_factors(weights, means, lower):
    return make_prefix_factors(weights, means, lower, np.linalg.inv(lower))


def energy_of(event, features, weights, means, covariances):
    """Return the marginal energy of some features of an event."""
    if not features:
        return 0.0
    at = list(features)
    logs = [
        np.log(w) + multivariate_normal(m[at], c[np.ix_(at, at)]).logpdf(event[at])
        for w, m, c in zip(weights, means, covariances, strict=True)
    ]
    return -logsumexp(logs)


def marginal_energies(event, weights, means, covariances):
    """Return the marginal energy of every set of features of an event."""
    sets = [s for r in range(len(event) + 1) for s in itertools.combinations(range(len(event)), r)]
    return {frozenset(s): energy_of(event, s, weights, means, covariances) for s in sets}


def brute_force(event, weights, means, covariances):
    """Return the mean change in energy over all orders, with the energy of each set computed once."""
    d = len(event)
    marginal = marginal_energies(event, weights, means, covariances)
    orders = list(itertools.permutations(range(d)))
    total = np.zeros(d)
    for order in orders:
        for i, j in enumerate(order):
            total[j] += marginal[frozenset(order[: i + 1])] - marginal[frozenset(order[:i])]
    return total / len(orders)


def shapley_values(event, weights, means, covariances):
    """Return the weighted mean change in energy over all sets without the feature (Shapley 1953)."""
    d = len(event)
    marginal = marginal_energies(event, weights, means, covariances)
    values = np.zeros(d)
    for members, before in marginal.items():
        for j in set(range(d)) - members:
            values[j] += (marginal[members | {j}] - before) / (d * math.comb(d - 1, len(members)))
    return values


@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 1), (1, 3), (2, 4), (3, 5), (2, 6)])
def test_contributions_equal_the_mean_over_all_orders(k, d):
    weights, means, lower = random_mixture(k, d)
    events = np.random.default_rng(1).normal(size=(3, d)) * 5
    found = additive_contributions(events, make_factors(weights, means, lower))
    covariances = lower @ np.swapaxes(lower, 1, 2)
    expected = [brute_force(event, weights, means, covariances) for event in events]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_prefixes_of_the_orders_are_all_sets_up_to_seven_features():
    for d in range(1, 8):
        orders = choose_orders(1, d)
        assert len(orders) == math.comb(d, d // 2)
        sets = {frozenset(order[:size]) for order in orders.tolist() for size in range(1, d + 1)}
        assert len(sets) == 2**d - 1


def test_contributions_of_eight_features_are_near_the_mean_over_all_orders():
    weights, means, lower = random_mixture(3, 8)
    events = np.random.default_rng(1).normal(size=(3, 8)) * 5
    found = additive_contributions(events, make_factors(weights, means, lower))
    covariances = lower @ np.swapaxes(lower, 1, 2)
    expected = np.array([shapley_values(event, weights, means, covariances) for event in events])
    assert np.abs(found - expected).max() < 0.12 * expected.sum(axis=1).max()


@pytest.mark.parametrize(("k", "d"), [(1, 2), (4, 5), (4, 7), (4, 8), (8, 32)])
def test_contributions_sum_to_the_energy_above_the_typical_energy(k, d):
    weights, means, lower = random_mixture(k, d)
    mixture = GaussianMixture.from_parameters(weights, means, lower @ np.swapaxes(lower, 1, 2))
    events = np.random.default_rng(1).normal(size=(20, d)) * 20
    explanation = mixture.explain(events)
    sums = explanation.contribution.sum(axis=1) + explanation.typical_energy
    np.testing.assert_allclose(sums, mixture.energy(events), rtol=1e-9)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_collinear_and_constant_features_keep_the_sum(covariance_type):
    rng = np.random.default_rng(2)
    base = rng.normal(size=(400, 1))
    train = np.concatenate([1e9 + base, 2 * base, np.full((400, 1), 7.0), rng.normal(size=(400, 1))], axis=1)
    mixture = GaussianMixture(2, covariance_type=covariance_type, n_init=1).fit(train)
    events = train[:5] + np.array([5.0, 0.0, 0.0, 9.0])
    explanation = mixture.explain(events)
    sums = explanation.contribution.sum(axis=1) + explanation.typical_energy
    np.testing.assert_allclose(sums, mixture.energy(events), rtol=1e-9)
    if covariance_type == "full":
        # The two copies have large contributions; they are on one line.
        assert explanation.line[0].tolist() == [0, 0, 2, 3]
        assert {reason.feature for reason in explanation.lines(0)[0].reasons} == {"x0", "x1"}


def test_differences_from_a_typical_event_do_not_depend_on_units():
    weights, means, lower = random_mixture(3, 6)
    units = np.array([1e-3, 1.0, 60.0, 1e6, 2.54, 1000.0])
    events = np.random.default_rng(1).normal(size=(50, 6)) * 5
    plain, scaled = (
        make_factors(weights, means, lower),
        make_factors(weights, means * units, lower * units[:, None]),
    )
    expected = additive_contributions(events, plain) - typical_contributions(events, plain)
    found = additive_contributions(events * units, scaled) - typical_contributions(events * units, scaled)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


def test_changed_feature_has_most_of_the_excess_energy():
    rng = np.random.default_rng(0)
    train = rng.multivariate_normal(np.zeros(3), [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]], 2000)
    mixture = GaussianMixture(1).fit(train).calibrate(train)
    explanation = mixture.explain(np.array([[0.0, 0.0, 12.0]]))
    line = explanation.lines(0)[0]
    assert line.reasons[0].feature == "x2"
    assert line.share > 0.95
    assert explanation.low[0, 2] == pytest.approx(np.quantile(train[:, 2], 0.05), abs=0.05)
    assert explanation.high[0, 2] == pytest.approx(np.quantile(train[:, 2], 0.95), abs=0.05)


def test_a_gross_training_event_does_not_move_the_typical_energy():
    train = np.random.default_rng(0).normal(size=(500, 2))
    factors = make_factors(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    gross = np.concatenate([train, [[1e6, 1e6]]])
    np.testing.assert_allclose(typical_contributions(gross, factors), typical_contributions(train, factors), atol=0.02)


def test_random_orders_are_reproducible_and_antithetic():
    orders = choose_orders(4, 9)
    np.testing.assert_array_equal(orders, choose_orders(4, 9))
    np.testing.assert_array_equal(orders[16:], orders[:16, ::-1])


def test_large_mixtures_have_fewer_orders_within_the_bound_on_memory():
    assert choose_orders(16, 128).shape == (8, 128)
    weights, means, lower = random_mixture(2, 600)
    factors = make_factors(weights, means, np.eye(600)[None] + 0.01 * lower)
    assert factors.kept is None
    assert factors.whitening(slice(0, 1)).shape == (2, 1, 600, 600)
    assert baseline_rows(16, 128) < 1000


def test_orders_computed_one_at_a_time_give_the_same_contributions():
    weights, means, lower = random_mixture(3, 8)
    kept = make_factors(weights, means, lower)
    events = np.random.default_rng(1).normal(size=(4, 8)) * 5
    alone = replace(kept, kept=None)
    np.testing.assert_allclose(
        additive_contributions(events, alone), additive_contributions(events, kept), rtol=1e-12, atol=1e-12
    )


def test_a_component_without_weight_has_no_influence():
    _, means, lower = random_mixture(2, 3)
    events = np.random.default_rng(1).normal(size=(4, 3)) * 5
    only = make_factors(np.array([1.0]), means[:1], lower[:1])
    both = make_factors(np.array([1.0, 0.0]), means, lower)
    np.testing.assert_allclose(additive_contributions(events, both), additive_contributions(events, only))
