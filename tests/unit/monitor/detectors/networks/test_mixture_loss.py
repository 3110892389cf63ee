"""Loss of a training step and its gradient against the public GMM functions."""

import pytest
import torch

from config.errors import ModelError
from monitor.detectors.gmm_functions import gmm_energy, gmm_params
from monitor.detectors.networks.mixture_loss import mixture_loss


def batch(n=40, D=4, K=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, D, generator=generator, dtype=dtype, requires_grad=True)
    gamma = torch.rand(n, K, generator=generator, dtype=dtype).requires_grad_()
    return z, gamma


def test_values_equal_gmm_energy_of_gmm_params():
    z, gamma = batch()
    expected = gmm_energy(z, *gmm_params(z, gamma))
    energy, cov_diag, phi = mixture_loss(z, gamma)
    torch.testing.assert_close((energy, cov_diag), expected)
    torch.testing.assert_close(phi, gmm_params(z, gamma)[0])


def test_gradient_equals_automatic_differentiation():
    z, gamma = batch()
    found = torch.autograd.grad(sum(mixture_loss(z, gamma)[:2]), (z, gamma))
    expected = torch.autograd.grad(sum(gmm_energy(z, *gmm_params(z, gamma))), (z, gamma))
    torch.testing.assert_close(found, expected)


def test_gradient_equals_finite_differences():
    assert torch.autograd.gradcheck(lambda z, g: mixture_loss(z, g, 1e-3)[:2], batch(n=8, K=2))


@pytest.mark.parametrize("share", [0.0, 1e-300, 1e-12])
def test_vanishing_component_has_finite_values_and_gradients(share):
    z, gamma = batch(dtype=torch.float32)
    faint = torch.cat([gamma[:, :2], torch.full_like(gamma[:, :1], share)], dim=1)
    energy, cov_diag, _ = mixture_loss(z, faint)
    gradients = torch.autograd.grad(energy + cov_diag, (z, gamma))
    assert torch.isfinite(energy)
    assert torch.isfinite(cov_diag)
    assert all(torch.isfinite(g).all() for g in gradients)


def test_nan_in_the_input_is_a_model_error():
    z, gamma = batch()
    with torch.no_grad():
        z[3, 1] = torch.nan
    with pytest.raises(ModelError):
        mixture_loss(z, gamma)
