"""Comparison with the other features against a direct computation: conditional distribution, replacement, new score."""

import time

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from monitor.detectors import GaussianMixture
from monitor.detectors.explain.lines import find_lines


@pytest.fixture(scope="module")
def mixture():
    rng = np.random.default_rng(4)
    parts = [rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4)) + shift for shift in (0.0, 3.0, -4.0)]
    return GaussianMixture(3, random_state=0).fit(np.concatenate(parts))


@pytest.fixture(scope="module")
def mixture_with_near_copies():
    """Return a mixture whose features 0 and 1 move together in one of its two components."""
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(400, 4)), rng.normal(size=(400, 4)) + 6
    first[:, 1] = first[:, 0] + 0.2 * first[:, 1]
    return GaussianMixture(2, random_state=0).fit(np.concatenate([first, second]))


@pytest.fixture(scope="module")
def events():
    return np.random.default_rng(5).normal(size=(20, 4)) * 4


def conditional(mixture, event, j):
    """Return responsibilities, means and deviations of feature j given those that do not move together with it."""
    component = mixture.predict(event[None])[0]
    together = find_lines(np.linalg.cholesky(mixture.covariances_)[component][None])[0]
    others = np.flatnonzero(together != together[j])
    logs, means, variances = [], [], []
    for w, m, c in zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True):
        if not len(others):
            logs, means, variances = [*logs, np.log(w)], [*means, m[j]], [*variances, c[j, j]]
            continue
        inner = c[np.ix_(others, others)]
        gain = np.linalg.solve(inner, c[others, j])
        logs.append(np.log(w) + multivariate_normal(m[others], inner).logpdf(event[others]))
        means.append(m[j] + gain @ (event[others] - m[others]))
        variances.append(c[j, j] - gain @ c[others, j])
    return np.exp(logs - logsumexp(logs)), np.array(means), np.sqrt(variances)


def test_expected_value_and_z_are_those_of_the_likeliest_component_given_the_features_of_other_lines(
    mixture, mixture_with_near_copies, events
):
    for model in (mixture, mixture_with_near_copies):
        explanation = model.explain(events)
        for i, event in enumerate(events):
            for j in range(4):
                shares, means, deviations = conditional(model, event, j)
                likeliest = shares.argmax()
                assert np.isclose(explanation.expected[i, j], means[likeliest])
                assert np.isclose(explanation.z[i, j], (event[j] - means[likeliest]) / deviations[likeliest])
    assert (mixture_with_near_copies.explain(events).line[:, 1] == 0).any()


def test_two_components_with_a_responsibility_above_a_fifth_have_two_expected_values():
    mixture = GaussianMixture.from_parameters(
        [0.5, 0.3, 0.2], [[0.0, 10], [0, 30], [90, 50]], np.tile(np.eye(2), (3, 1, 1))
    )
    explanation = mixture.explain(np.array([[0.5, 20.0], [90.0, 20.0]]))
    assert explanation.expected[:, 1].tolist() == [10.0, 50.0]
    np.testing.assert_array_equal(explanation.alternatives[:, 1], [[30.0, np.nan, np.nan], [np.nan] * 3])
    row = explanation.line_rows()[0][0]
    assert (row["feature"], row["expected"], row["alternatives"]) == ("x1", 10.0, (30.0,))


def test_an_expected_value_within_two_deviations_of_another_is_not_repeated():
    mixture = GaussianMixture.from_parameters([0.5, 0.5], [[0.0, 10], [0, 11]], np.tile(np.eye(2), (2, 1, 1)))
    assert np.isnan(mixture.explain(np.array([[0.0, 60.0]])).alternatives).all()


def test_near_copies_are_expected_from_the_features_outside_of_their_line():
    rng = np.random.default_rng(0)
    delay = rng.normal(20, 5, 4000)
    train = np.column_stack([delay, delay + rng.normal(0, 0.5, 4000), rng.normal(size=4000)])
    explanation = GaussianMixture(1).fit(train).calibrate(train).explain(np.array([[853.0, 851.0, 0.0]]))
    assert explanation.line[0].tolist() == [0, 0, 2]
    np.testing.assert_allclose(explanation.expected[0, :2], 20, atol=1)
    assert explanation.z[0, 0] > 100


def test_cost_is_the_energy_saved_by_replacing_the_value(mixture, mixture_with_near_copies, events):
    for model in (mixture, mixture_with_near_copies):
        explanation = model.explain(events)
        for j in range(4):
            replaced = events.copy()
            replaced[:, j] = explanation.expected[:, j]
            assert np.allclose(explanation.cost[:, j], model.energy(events) - model.energy(replaced))


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
    assert set(rows[0][0]) == {
        "feature",
        "value",
        "z",
        "cost",
        "expected",
        "low",
        "high",
        "contribution",
        "alternatives",
        "field",
        "role",
    }


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
