"""Energies on CUDA equal those on the CPU for every detector, batch size and matmul precision."""

import numpy as np
import pytest
import torch

from monitor.detectors import AEGMM, VAEGMM, ClassConditionalGaussian, GaussianMixture, load_detector

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(3000, 20)) @ RNG.normal(size=(20, 20)) + 4.0 * RNG.integers(0, 3, 3000)[:, None]) * 3 + 100
DETECTORS = [GaussianMixture, ClassConditionalGaussian, VAEGMM, AEGMM]


def fit_detector(kind):
    if kind is ClassConditionalGaussian:
        return kind().fit(X, np.arange(len(X)) % 3)
    return kind(3).fit(X) if kind is GaussianMixture else kind().fit(X, epochs=1, verbose=False)


@pytest.fixture(params=["highest", "high"])
def matmul_precision(request):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gpu_energies_equal_cpu_energies(kind, dtype, matmul_precision):
    on_cpu = fit_detector(kind)
    on_gpu = load_detector(on_cpu.to_bytes(), device="cuda")
    exact = on_cpu.energy(X.astype(dtype).astype(np.float64))
    bound = 1e-4 if dtype == np.float32 else 1e-9
    assert (np.abs(on_gpu.energy(X.astype(dtype)) - exact) <= bound * np.maximum(np.abs(exact), 1)).all()


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gpu_energies_are_identical_to_the_bit_in_any_batch(kind, dtype):
    on_gpu = load_detector(fit_detector(kind).to_bytes(), device="cuda")
    x = X.astype(dtype)
    whole = on_gpu.energy(x)
    for size in (1, 7, 256, 1025):
        selection = np.random.default_rng(size).permutation(len(x))[:size]
        assert np.array_equal(on_gpu.energy(x[selection]), whole[selection])


@pytest.mark.parametrize("kind", [VAEGMM, AEGMM])
def test_networks_train_on_cuda(kind):
    detector = kind(device="cuda").fit(torch.from_numpy(X).cuda(), epochs=2, verbose=False)
    assert np.isfinite(detector.energy(X)).all()
