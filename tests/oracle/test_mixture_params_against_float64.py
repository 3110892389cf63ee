"""Oracle test: gmm_params and gmm_energy against scipy's multivariate normal in float64."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from monitor.detectors.gmm_functions import gmm_energy, gmm_params

RELATIVE = {np.float32: 1e-4, np.float64: 1e-10}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def expected_energy(z, phi, mu, cov, eps=0.0):
    """Return the energies by one scipy normal per component."""
    z, mu, cov = (np.asarray(a, dtype=np.float64) for a in (z, mu, cov))
    eye = eps * np.eye(z.shape[1])
    logs = [
        np.log(p) + np.atleast_1d(multivariate_normal(m, c + eye, allow_singular=False).logpdf(z))
        for p, m, c in zip(np.asarray(phi, dtype=np.float64), mu, cov, strict=True)
    ]
    return -logsumexp(np.stack(logs, axis=1), axis=1)


def expected_params(z, gamma):
    """Return weights, means and covariances by the definition, one component at a time, in float64."""
    z, gamma = z.astype(np.float64), gamma.astype(np.float64)
    phi = gamma.mean(0)
    mu = np.stack([np.average(z, axis=0, weights=g) for g in gamma.T])
    cov = np.stack([np.cov(z.T, aweights=g, bias=True).reshape(2 * z.shape[1:]) for g in gamma.T])
    return phi, mu, cov


def make_samples(rng, n, D, K, dtype=np.float64):
    z = rng.normal(size=(n, D)) * rng.uniform(0.5, 2.0, D) + rng.normal(size=D)
    gamma = rng.dirichlet(np.ones(K), size=n)
    return z.astype(dtype), gamma.astype(dtype)


def random_mixture(rng, D, K, condition=10.0, offset=0.0):
    """Return weights, means, covariances of the given condition number, factors and log determinants."""
    phi = rng.dirichlet(np.full(K, 5.0))
    mu = rng.normal(size=(K, D)) + offset
    cov = np.empty((K, D, D))
    for k in range(K):
        q, _ = np.linalg.qr(rng.normal(size=(D, D)))
        cov[k] = (q * np.geomspace(1.0, 1.0 / condition, D)) @ q.T
        cov[k] = (cov[k] + cov[k].T) / 2
    L = np.linalg.cholesky(cov)
    log_det = 2 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(1)
    return phi, mu, cov, L, log_det


@DTYPES
@pytest.mark.parametrize(("n", "D", "K"), [(500, 1, 1), (500, 8, 4), (2000, 32, 8), (3000, 3, 64), (600, 512, 2)])
def test_parameters_equal_their_definition(dtype, n, D, K):
    z, gamma = make_samples(np.random.default_rng(1), n, D, K, dtype)
    phi, mu, cov, L, log_det = gmm_params(z, gamma)
    expected = expected_params(z, gamma)
    tolerance = {np.float32: 2e-6, np.float64: 1e-11}[dtype]
    for result, definition in zip((phi, mu, cov), expected, strict=True):
        assert result.dtype == dtype
        np.testing.assert_allclose(result, definition, rtol=tolerance, atol=tolerance)
    ridged = expected[2] + 1e-6 * np.eye(D)
    np.testing.assert_allclose(L @ L.swapaxes(1, 2), ridged, rtol=tolerance, atol=5 * tolerance)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(ridged)[1], rtol=tolerance, atol=5 * tolerance)


@DTYPES
@pytest.mark.parametrize(("D", "K"), [(1, 1), (2, 3), (8, 4), (32, 8), (128, 16), (512, 2), (4, 64)])
def test_energies_equal_the_oracle_on_ordinary_data(dtype, D, K):
    rng = np.random.default_rng(2)
    phi, mu, cov, L, log_det = random_mixture(rng, D, K)
    z = (rng.normal(size=(257, D)) * 1.5).astype(dtype)
    energy, _ = gmm_energy(z, phi, mu, cov, L, log_det, return_mean=False)
    assert energy.dtype == dtype
    np.testing.assert_allclose(energy, expected_energy(z, phi, mu, cov), rtol=RELATIVE[dtype])


@DTYPES
def test_energies_equal_the_oracle_through_both_functions(dtype):
    rng = np.random.default_rng(3)
    z, gamma = make_samples(rng, 5000, 8, 4, dtype)
    parameters = gmm_params(z, gamma)
    energy, _ = gmm_energy(z, *parameters, return_mean=False)
    expected = expected_energy(z, *expected_params(z, gamma), eps=1e-6)
    np.testing.assert_allclose(energy, expected, rtol=RELATIVE[dtype])


@DTYPES
def test_an_offset_of_ten_thousand_deviations_costs_no_accuracy(dtype):
    rng = np.random.default_rng(4)
    phi, mu, cov, L, log_det = random_mixture(rng, 8, 4, offset=1e4)
    z = (rng.normal(size=(400, 8)) + 1e4).astype(dtype)
    energy, _ = gmm_energy(z, phi, mu, cov, L, log_det, return_mean=False)
    np.testing.assert_allclose(energy, expected_energy(z, phi, mu, cov), rtol=RELATIVE[dtype])


@DTYPES
def test_covariances_are_accurate_at_an_offset_of_ten_thousand_deviations(dtype):
    rng = np.random.default_rng(5)
    z, gamma = make_samples(rng, 4000, 5, 3)
    z = (z + 1e4).astype(dtype)
    cov = gmm_params(z, gamma.astype(dtype))[2]
    expected = expected_params(z, gamma.astype(dtype))[2]
    np.testing.assert_allclose(cov, expected, rtol={np.float32: 1e-5, np.float64: 1e-7}[dtype], atol=1e-7)


@DTYPES
@pytest.mark.parametrize("condition", [1e6, 1e8])
def test_ill_conditioned_covariances_are_accurate_with_float64_factors(dtype, condition):
    rng = np.random.default_rng(6)
    phi, mu, cov, L, log_det = random_mixture(rng, 16, 3, condition=condition)
    z = (mu[0] + rng.normal(size=(300, 16)) @ L[0].T).astype(dtype)
    energy, _ = gmm_energy(z, phi, mu, cov, L, log_det, return_mean=False)
    expected = expected_energy(z, phi, mu, L @ L.swapaxes(1, 2))
    np.testing.assert_allclose(energy, expected, rtol=max(RELATIVE[dtype], 1e-16 * condition))


@DTYPES
def test_energies_of_far_samples_are_finite_accurate_and_ordered(dtype):
    rng = np.random.default_rng(7)
    phi, mu, cov, L, log_det = random_mixture(rng, 6, 4)
    direction = rng.normal(size=6)
    z = (np.geomspace(10, 1e6, 40)[:, None] * direction).astype(dtype)
    energy, _ = gmm_energy(z, phi, mu, cov, L, log_det, return_mean=False)
    assert np.isfinite(energy).all()
    assert (np.diff(energy) > 0).all()
    np.testing.assert_allclose(energy, expected_energy(z, phi, mu, cov), rtol=RELATIVE[dtype])


@DTYPES
def test_a_single_sample_has_an_energy(dtype):
    rng = np.random.default_rng(8)
    phi, mu, cov, L, log_det = random_mixture(rng, 3, 2)
    z = rng.normal(size=(1, 3)).astype(dtype)
    energy, _ = gmm_energy(z, phi, mu, cov, L, log_det, return_mean=False)
    np.testing.assert_allclose(energy, expected_energy(z, phi, mu, cov), rtol=RELATIVE[dtype])


def test_gradients_equal_finite_differences():
    rng = np.random.default_rng(9)
    z, logits = (torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((7, 3), (7, 2)))

    def objective(z, logits):
        energy, cov_diag = gmm_energy(z, *gmm_params(z, torch.softmax(logits, 1), eps=1e-3))
        return energy, cov_diag

    assert torch.autograd.gradcheck(objective, (z, logits))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@DTYPES
def test_energies_equal_the_oracle_on_a_gpu(dtype):
    rng = np.random.default_rng(10)
    z, gamma = make_samples(rng, 5000, 8, 4, dtype)
    on_device = [torch.as_tensor(a, device="cuda") for a in (z, gamma)]
    energy, _ = gmm_energy(on_device[0], *gmm_params(*on_device), return_mean=False)
    expected = expected_energy(z, *expected_params(z, gamma), eps=1e-6)
    np.testing.assert_allclose(energy.cpu(), expected, rtol=RELATIVE[dtype])
