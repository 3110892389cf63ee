"""Tests of gmm_params and gmm_energy: empty components, far samples, invalid arguments and memory."""

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from config.errors import ModelError
from monitor.detectors.gmm_functions import gmm_energy, gmm_params


def make_empty_component(dtype=torch.float64, n=50, D=3):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(n, D, generator=generator, dtype=dtype)
    gamma = torch.zeros(n, 3, dtype=dtype)
    gamma[:, 0], gamma[:, 2] = 0.25, 0.75
    return z, gamma


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_component_gets_weight_zero_and_finite_parameters(dtype):
    results = gmm_params(*make_empty_component(dtype))
    assert results[0].tolist() == [0.25, 0.0, 0.75]
    assert all(torch.isfinite(r).all() for r in results)


def test_an_empty_component_does_not_change_the_energy():
    z, gamma = make_empty_component()
    with_empty = gmm_energy(z, *gmm_params(z, gamma), return_mean=False)
    without = gmm_energy(z, *gmm_params(z, gamma[:, [0, 2]]), return_mean=False)
    torch.testing.assert_close(with_empty[0], without[0])
    torch.testing.assert_close(with_empty[1], without[1])


def test_gradients_are_finite_with_an_empty_component():
    z, gamma = make_empty_component()
    z.requires_grad_()
    gamma.requires_grad_()
    energy, cov_diag = gmm_energy(z, *gmm_params(z, gamma))
    (energy + cov_diag).backward()
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(gamma.grad).all()


def test_gradients_are_finite_with_a_component_of_one_sample():
    z, gamma = make_empty_component(torch.float32)
    gamma[0, 1] = 1.0
    gamma.requires_grad_()
    energy, cov_diag = gmm_energy(z, *gmm_params(z, gamma))
    (energy + cov_diag).backward()
    assert torch.isfinite(energy)
    assert torch.isfinite(cov_diag)
    assert torch.isfinite(gamma.grad).all()


def test_all_zero_weights_raise_an_error():
    z, gamma = make_empty_component()
    with pytest.raises(ModelError, match="all weights in phi are zero"):
        gmm_energy(z, *gmm_params(z, gamma * 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_farthest_sample_has_a_finite_energy(dtype):
    z, gamma = make_empty_component(dtype)
    parameters = gmm_params(z, gamma)
    far = torch.full((1, 3), torch.finfo(dtype).max, dtype=dtype)
    energy, _ = gmm_energy(far, *parameters, return_mean=False)
    assert torch.isfinite(energy).all()
    assert energy.item() > 1e20


def test_mean_energy_is_the_mean_of_the_energies():
    z, gamma = make_empty_component()
    parameters = gmm_params(z, gamma)
    mean, _ = gmm_energy(z, *parameters)
    each, _ = gmm_energy(z, *parameters, return_mean=False)
    torch.testing.assert_close(mean, each.mean())


def test_second_result_is_the_sum_of_inverse_variances_without_the_ridge():
    z, gamma = make_empty_component()
    parameters = gmm_params(z, gamma, eps=0.5)
    _, cov_diag = gmm_energy(z, *parameters)
    nonempty = parameters[2][[0, 2]]
    torch.testing.assert_close(cov_diag, (1 / nonempty.diagonal(dim1=1, dim2=2)).sum())


def test_numpy_gives_numpy_and_torch_gives_torch():
    z, gamma = make_empty_component()
    assert all(isinstance(r, np.ndarray) for r in gmm_params(z.numpy(), gamma.numpy()))
    assert all(isinstance(r, torch.Tensor) for r in gmm_params(z, gamma))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_collinear_data_of_any_scale_has_finite_factors(scale):
    rng = np.random.default_rng(1)
    column = rng.normal(size=(200, 1)) * scale
    results = gmm_params(np.hstack([column, 3 * column, -column]), np.ones((200, 1)))
    assert all(np.isfinite(r).all() for r in results)


@pytest.mark.parametrize(
    ("z", "gamma"),
    [
        (np.zeros(4), np.zeros((4, 2))),
        (np.zeros((4, 2)), np.zeros((5, 2))),
        (np.zeros((0, 2)), np.zeros((0, 2))),
        (np.zeros((4, 0)), np.zeros((4, 2))),
        (np.full((4, 2), np.nan), np.ones((4, 1))),
        (np.ones((4, 2)), np.full((4, 1), np.inf)),
    ],
)
def test_invalid_samples_raise_an_error(z, gamma):
    with pytest.raises(ModelError, match="gmm_params"):
        gmm_params(z, gamma)


def test_a_mixture_of_another_width_raises_an_error():
    z, gamma = make_empty_component()
    with pytest.raises(ModelError, match="mu must have shape"):
        gmm_energy(z[:, :2], *gmm_params(z, gamma))


@pytest.mark.slow
def test_largest_allocation_does_not_grow_as_rows_times_components_times_features():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(200_000, 8)).astype(np.float32)
    gamma = np.full((200_000, 4), 0.25, dtype=np.float32)
    largest = peak_tensor_bytes(lambda: gmm_energy(z, *gmm_params(z, gamma), return_mean=False))
    assert largest < 200_000 * 8 * 8  # at most one float64 (n, K) or (n, D) array; n K D D floats would be 205 MB


def peak_tensor_bytes(work):
    """Return the size of the largest array that torch allocates during `work`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    return max(abs(event.self_cpu_memory_usage) / max(event.count, 1) for event in record.key_averages())


@pytest.mark.parametrize("invalid", [np.nan, np.inf])
def test_error_for_nan_or_infinity_names_row_and_column(invalid):
    z, gamma = (t.numpy() for t in make_empty_component())
    parameters = gmm_params(z, gamma)
    damaged = z.copy()
    damaged[7, 2] = invalid
    with pytest.raises(ModelError, match=r"gmm_params: z contains .* \(rows 7; columns 2\)"):
        gmm_params(damaged, gamma)
    with pytest.raises(ModelError, match=r"gmm_energy: z contains .* \(rows 7; columns 2\)"):
        gmm_energy(damaged, *parameters)
    shares = gamma.copy()
    shares[3, 1] = invalid
    with pytest.raises(ModelError, match=r"gmm_params: gamma contains .* \(rows 3; columns 1\)"):
        gmm_params(z, shares)


@pytest.mark.parametrize("index", range(5))
def test_nan_in_a_component_with_weight_raises_an_error(index):
    z, gamma = make_empty_component()
    parameters = list(gmm_params(z, gamma))
    parameters[index] = parameters[index].clone()
    parameters[index][0] = torch.nan
    with pytest.raises(ModelError, match=r"gmm_energy: .*holds NaN"):
        gmm_energy(z, *parameters)


def test_nan_in_a_component_without_weight_is_ignored():
    z, gamma = make_empty_component()
    phi, mu, *rest = gmm_params(z, gamma)
    mu = mu.clone()
    mu[1] = torch.nan
    torch.testing.assert_close(gmm_energy(z, phi, mu, *rest), gmm_energy(z, *gmm_params(z, gamma)))


def test_error_for_overflowing_variances_advises_another_unit():
    z, gamma = make_empty_component(torch.float32)
    with pytest.raises(ModelError, match="change the unit of z"):
        gmm_params(z * 1e30, gamma)


@pytest.mark.parametrize("eps", [-1e-6, np.nan, "a", None])
def test_invalid_eps_raises_an_error(eps):
    with pytest.raises(ModelError, match="eps must be"):
        gmm_params(*make_empty_component(), eps=eps)


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_give_no_warning():
    z, gamma = (t.numpy() for t in make_empty_component())
    for array in (z, gamma):
        array.setflags(write=False)
    energy, _ = gmm_energy(z, *gmm_params(z, gamma))
    assert np.isfinite(energy)
