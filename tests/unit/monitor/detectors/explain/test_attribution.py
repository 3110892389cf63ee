"""Comparison with the other features against a direct computation: conditional distribution, replacement, new score."""

import time

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from monitor.detectors import GaussianMixture


@pytest.fixture(scope="module")
def mixture():
    rng = np.random.default_rng(4)
    parts = [rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4)) + shift for shift in (0.0, 3.0, -4.0)]
    return GaussianMixture(3, random_state=0).fit(np.concatenate(parts))


@pytest.fixture(scope="module")
def events():
    return np.random.default_rng(5).normal(size=(20, 4)) * 4


def conditional(mixture, event, j):
    """Return mean and deviation of feature j given the others, under the component that is likeliest given them."""
    others = [i for i in range(len(event)) if i != j]
    logs, means, variances = [], [], []
    for w, m, c in zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True):
        inner = c[np.ix_(others, others)]
        gain = np.linalg.solve(inner, c[others, j])
        logs.append(np.log(w) + multivariate_normal(m[others], inner).logpdf(event[others]))
        means.append(m[j] + gain @ (event[others] - m[others]))
        variances.append(c[j, j] - gain @ c[others, j])
    likeliest = int(np.argmax(logs))
    return means[likeliest], np.sqrt(variances[likeliest])


def test_expected_value_and_z_are_those_of_the_likeliest_component_given_the_other_features(mixture, events):
    explanation = mixture.explain(events)
    for i, event in enumerate(events):
        for j in range(4):
            mean, deviation = conditional(mixture, event, j)
            assert np.isclose(explanation.expected[i, j], mean)
            assert np.isclose(explanation.z[i, j], (event[j] - mean) / deviation)


def test_cost_is_the_energy_saved_by_replacing_the_value(mixture, events):
    explanation = mixture.explain(events)
    for j in range(4):
        replaced = events.copy()
        replaced[:, j] = explanation.expected[:, j]
        assert np.allclose(explanation.cost[:, j], mixture.energy(events) - mixture.energy(replaced))


def test_changed_feature_of_an_ordinary_event_has_the_largest_contribution():
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal([100.0, 5.0], [[4.0, 1.8], [1.8, 1.0]], 3000)
    gm = GaussianMixture(1).fit(x)
    event = np.array([[100.0, 15.0]])
    first = gm.explain(event).reasons(0)[0]
    assert first.feature == "x1"
    assert abs(first.expected - 5.0) < 0.1
    assert first.low < 5.0 < first.high < first.value


def test_rows_are_plain_values_with_the_largest_contribution_first(mixture, events):
    rows = mixture.explain(events).rows(top=2)
    assert len(rows) == 20
    assert all(len(row) == 2 and row[0]["contribution"] >= row[1]["contribution"] for row in rows)
    assert set(rows[0][0]) == {"feature", "value", "z", "cost", "expected", "low", "high", "contribution"}


def test_far_events_are_explained_without_overflow(mixture):
    explanation = mixture.explain(np.full((1, 4), 1e6))
    for values in (explanation.z, explanation.cost, explanation.expected, explanation.contribution):
        assert np.isfinite(values).all()


@pytest.mark.slow
def test_burst_of_events_is_explained_in_vectorised_chunks():
    rng = np.random.default_rng(0)
    gm = GaussianMixture(8, n_init=1, max_iter=5, shrinkage=0).fit(rng.normal(size=(4000, 32)))
    started_s = time.process_time()
    gm.explain(rng.normal(size=(10_000, 32)))
    assert time.process_time() - started_s < 10
