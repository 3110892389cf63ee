"""Oracle test: energies of GaussianMixture against float64 over the supported range of shapes."""

import numpy as np
import pytest
from scipy.linalg import solve_triangular
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from monitor.detectors import GaussianMixture


def expected_energies(weights, means, covariances, x):
    """Return energies by Cholesky and log-sum-exp in float64, component by component."""
    logs = []
    for w, m, c in zip(weights, means, covariances, strict=True):
        lower = np.linalg.cholesky(c)
        v = solve_triangular(lower, (x - m).T, lower=True)
        log_det = 2 * np.log(np.diag(lower)).sum()
        logs.append(np.log(w) - 0.5 * (len(m) * np.log(2 * np.pi) + log_det + np.square(v).sum(axis=0)))
    return -logsumexp(logs, axis=0)


def make_mixture(d, k, condition=30.0, offset=0.0, seed=0):
    rng = np.random.default_rng(seed)
    covariances = []
    for _ in range(k):
        rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
        covariances.append((rotation * np.logspace(0, -np.log10(condition), d)) @ rotation.T)
    covariances = np.array(covariances)
    covariances = (covariances + covariances.swapaxes(1, 2)) / 2
    return rng.dirichlet(np.full(k, 4.0)), rng.normal(size=(k, d)) * 1.5 + offset, covariances


def assert_energies_agree(weights, means, covariances, x):
    gm = GaussianMixture.from_parameters(weights, means, covariances)
    rows_f32 = x.astype(np.float32)
    for rows, tolerance in ((x.astype(np.float64), 1e-10), (rows_f32, 1e-4)):
        expected = expected_energies(weights, means, covariances, rows.astype(np.float64))
        energies = gm.energy(rows)
        assert energies.dtype == rows.dtype
        assert np.allclose(energies, expected, rtol=tolerance, atol=tolerance)


def draw_events(weights, means, covariances, n, seed=1):
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(weights), n, p=weights)
    lower = np.linalg.cholesky(covariances)
    return means[labels] + np.einsum("nij,nj->ni", lower[labels], rng.normal(size=(n, means.shape[1])))


def test_expected_energies_equal_those_of_scipy():
    w, m, c = make_mixture(5, 3)
    x = draw_events(w, m, c, 50)
    logs = [np.log(a) + multivariate_normal(b, s).logpdf(x) for a, b, s in zip(w, m, c, strict=True)]
    assert np.allclose(expected_energies(w, m, c, x), -logsumexp(logs, axis=0), rtol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 8, 31, 64, 128, 200, 512])
@pytest.mark.parametrize("k", [1, 4])
def test_energies_are_accurate_for_any_number_of_features(d, k):
    p = make_mixture(d, k)
    assert_energies_agree(*p, draw_events(*p, 100))


@pytest.mark.parametrize("k", [2, 16, 64])
def test_energies_are_accurate_for_any_number_of_components(k):
    p = make_mixture(6, k)
    assert_energies_agree(*p, draw_events(*p, 300))


def test_an_offset_of_ten_thousand_deviations_costs_no_accuracy():
    p = make_mixture(8, 4, condition=4.0, offset=1e4)
    assert_energies_agree(*p, draw_events(*p, 300))


@pytest.mark.parametrize("condition", [1e6, 1e8])
def test_energies_are_accurate_for_ill_conditioned_covariances(condition):
    p = make_mixture(8, 4, condition=condition)
    assert_energies_agree(*p, draw_events(*p, 300))


def test_energies_of_far_events_are_finite_accurate_and_ordered():
    w, m, c = make_mixture(8, 4)
    x = m[:1] + np.linalg.cholesky(c[0])[:, 0] * np.linspace(10, 1000, 50)[:, None]
    assert_energies_agree(w, m, c, x)
    gm = GaussianMixture.from_parameters(w, m, c)
    assert (np.diff(gm.energy(x.astype(np.float32))) > 0).all()


def test_a_single_event_is_scored_accurately():
    p = make_mixture(3, 2)
    assert_energies_agree(*p, draw_events(*p, 1))


@pytest.mark.parametrize("kind", ["tied", "diag", "spherical"])
def test_restricted_covariances_have_the_energies_of_their_full_form(kind):
    w, m, c = make_mixture(9, 3)
    small = {"tied": c[0], "diag": c.diagonal(axis1=1, axis2=2).copy(), "spherical": c[:, 0, 0].copy()}[kind]
    full = {
        "tied": np.repeat(c[:1], 3, axis=0),
        "diag": np.stack([np.diag(np.diag(s)) for s in c]),
        "spherical": np.stack([s[0, 0] * np.eye(9) for s in c]),
    }[kind]
    gm = GaussianMixture.from_parameters(w, m, small, covariance_type=kind)
    x = draw_events(w, m, full, 200)
    assert np.allclose(gm.energy(x), expected_energies(w, m, full, x), rtol=1e-10)
    assert np.allclose(gm.energy(x.astype(np.float32)), expected_energies(w, m, full, x), rtol=1e-4, atol=1e-4)
