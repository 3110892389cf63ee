"""The code path of a GPU, with emulated CUDA tensors: no operation mixes devices, and numbers equal those of the CPU.

Speed, and the rounding of the GPU's kernels, are measured on a GPU by `make gpu`.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from config.streams import ModelSettings
from monitor.detectors import AEGMM, VAEGMM, ClassConditionalGaussian, GaussianMixture, load_detector
from monitor.detectors.fit.process_group import ProcessGroup
from monitor.detectors.gmm_functions import gmm_energy, gmm_params
from monitor.detectors.mixture_values import CovarianceType
from monitor.models.fitting import fit_model
from monitor.models.scoring import Scorer, load_model
from monitor.models.training_set import TrainingSet
from storage.control.models import ModelRecord
from tests.emulated_cuda import CudaTensor, emulated_cuda

RNG = np.random.default_rng(0)
D = 5
N = 90
X = RNG.normal(size=(N, D)) @ RNG.normal(size=(D, D)) + 4.0 * RNG.integers(0, 3, N)[:, None] + 100
LABELS = np.arange(len(X)) % 3
FAR = np.full((1, D), 3e30)


@pytest.fixture
def _cuda() -> Iterator[None]:
    with emulated_cuda():
        yield


def fit_mixture(n_components: int, device: str, covariance_type: CovarianceType = "full") -> GaussianMixture:
    return GaussianMixture(
        n_components, covariance_type=covariance_type, n_init=1, max_iter=3, shrinkage=0.0, device=device
    ).fit(X)


def on_cuda(values: Any) -> torch.Tensor:
    return torch.as_tensor(values).to("cuda")


def small_networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "encoder_net": nn.Sequential(nn.Linear(D, 4), nn.Tanh(), nn.Linear(4, 2)),
        "decoder_net": nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, D)),
        "gmm_density_net": nn.Sequential(nn.Linear(4, 2), nn.Softmax(dim=-1)),
    }


FITS: dict[str, Callable[[str], Any]] = {
    "mixture": lambda device: fit_mixture(3, device),
    "one component": lambda device: fit_mixture(1, device),
    "diagonal": lambda device: fit_mixture(2, device, "diag"),
    "tied": lambda device: fit_mixture(2, device, "tied"),
    "classes": lambda device: ClassConditionalGaussian(device=device).fit(X, LABELS),
    "mahalanobis": lambda device: ClassConditionalGaussian(score="mahalanobis", device=device).fit(X, LABELS),
    "aegmm": lambda device: AEGMM(device=device).fit(X, epochs=1, reference_fraction=0.2, verbose=False),
    "vaegmm": lambda device: VAEGMM(device=device).fit(X, epochs=1, reference_fraction=0.2, verbose=False),
    "full covariance": lambda device: VAEGMM(device=device).fit(
        X, epochs=1, cov_elbo={"cov_full": None}, verbose=False
    ),
    "given deviations": lambda device: VAEGMM(device=device).fit(
        X, epochs=1, cov_elbo={"cov_diag": np.full(D, 0.1)}, verbose=False
    ),
    "given networks": lambda device: AEGMM(device=device, **small_networks()).fit(X, epochs=1, verbose=False),
    "images": lambda device: VAEGMM(device=device).fit(X[:, :4].reshape(-1, 1, 2, 2), epochs=1, verbose=False),
}


@pytest.mark.parametrize("name", FITS)
def test_fit_score_and_explanation_on_a_gpu_equal_those_on_the_cpu(name: str) -> None:
    on_cpu = FITS[name]("cpu")
    with emulated_cuda():
        check_equal(on_cpu, FITS[name]("cuda"), name)


def check_equal(on_cpu: Any, on_gpu: Any, name: str) -> None:
    x = X[:40, :4].reshape(-1, 1, 2, 2) if name == "images" else np.concatenate([X[:40], FAR])
    for events in (x, x.astype(np.float32)):
        energies, shares = on_cpu.energies_and_responsibilities(events)
        found, found_shares = on_gpu.energies_and_responsibilities(events)
        assert found.dtype == events.dtype
        np.testing.assert_allclose(found, energies, rtol=1e-4)
        np.testing.assert_array_equal(on_gpu.energy(on_cuda(events)), found)
        if shares is not None:
            np.testing.assert_allclose(found_shares, shares, atol=1e-4)
    np.testing.assert_allclose(on_gpu.explain(x[:3]).cost, on_cpu.explain(x[:3]).cost, rtol=1e-6, atol=1e-9)
    assert isinstance(copy.deepcopy(on_gpu).energy(x[:3]), np.ndarray)


@pytest.mark.parametrize("name", [name for name in FITS if name != "given networks"])
@pytest.mark.usefixtures("_cuda")
def test_model_moves_between_devices_in_its_file(name: str) -> None:
    fitted = FITS[name]("cuda")
    x = X[:9, :4].reshape(-1, 1, 2, 2) if name == "images" else X[:9]
    again = load_detector(fitted.to_bytes(), device="cuda")
    np.testing.assert_array_equal(again.energy(x), fitted.energy(x))
    np.testing.assert_allclose(load_detector(fitted.to_bytes()).energy(x), fitted.energy(x), rtol=1e-9)


@pytest.mark.usefixtures("_cuda")
def test_tensors_on_a_gpu_are_taken_everywhere() -> None:
    weights, labels = on_cuda(np.ones(len(X))), on_cuda(LABELS)
    settings = {"n_init": 1, "max_iter": 3, "shrinkage": 0.0}
    mixture = GaussianMixture(2, device="cuda", **settings).fit(on_cuda(X), sample_weight=weights)
    mixture.calibrate(on_cuda(X), folds=2)
    assert np.isfinite([mixture.score(on_cuda(X)), mixture.bic(on_cuda(X)), mixture.aic(on_cuda(X))]).all()
    assert mixture.predict(on_cuda(X)).shape == (len(X),)
    assert ClassConditionalGaussian(device="cuda").fit(on_cuda(X), labels).energy(on_cuda(X)).shape == (len(X),)
    loader = [(on_cuda(X[:40]), labels[:40]), (on_cuda(X[40:]), labels[40:])]
    assert ClassConditionalGaussian(device="cuda").fit(loader).energy(X).shape == (len(X),)
    network = VAEGMM(device="cuda").fit(on_cuda(X).float(), epochs=1, verbose=False)
    assert network.score(on_cuda(X), samples=3).shape == (len(X),)
    assert network.infer_threshold(on_cuda(X)) == network.threshold
    assert network.predict(on_cuda(X))["data"]["is_outlier"].sum() == round(0.05 * N + 0.5)


@pytest.mark.usefixtures("_cuda")
def test_feature_model_on_a_gpu_gets_events_there() -> None:
    features = nn.Linear(D, 3).to("cuda")
    detector = ClassConditionalGaussian(features, device="cuda").fit(X, LABELS)
    assert detector.energy(X).shape == (len(X),)
    assert detector.explain(on_cuda(X[:2])).cost.shape == (2, 3)


@pytest.mark.usefixtures("_cuda")
def test_networks_that_are_on_a_gpu_already_are_trained_there() -> None:
    networks = {name: network.to("cuda") for name, network in small_networks().items()}
    detector = AEGMM(device="cuda", **networks).fit(X, epochs=1, verbose=False)
    again = AEGMM.from_artefact(detector.to_artefact(), device="cuda", **networks)
    np.testing.assert_array_equal(again.energy(X[:5]), detector.energy(X[:5]))


@pytest.mark.usefixtures("_cuda")
def test_mixture_functions_stay_on_the_gpu() -> None:
    gamma = np.full((len(X), 2), 0.5)
    parameters = gmm_params(on_cuda(X), gamma)
    assert all(isinstance(each, CudaTensor) for each in parameters)
    energy, _ = gmm_energy(on_cuda(X), *parameters, return_mean=False)
    assert isinstance(energy, CudaTensor)
    np.testing.assert_allclose(energy.cpu().numpy(), gmm_energy(X, *gmm_params(X, gamma), return_mean=False)[0])
    z = on_cuda(X).requires_grad_()
    gmm_energy(z, *gmm_params(z, on_cuda(gamma)))[0].backward()
    assert isinstance(z.grad, CudaTensor)


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_stream_is_scored_and_coded_for_drift(offset: float) -> None:
    names = tuple(f"x{j}" for j in range(D))
    events = X + offset
    training = TrainingSet(features=events, names=names, rejected=0, exhausted=True)
    fitted = fit_model(training, ModelSettings(n_components=2))
    record = ModelRecord(
        id=1,
        version=1,
        kind="gaussian_mixture",
        state="active",
        created_at_us=0,
        valid_from_us=0,
        feature_names=names,
        summary=dict(fitted.new_model.summary),
    )
    artefact = fitted.new_model.artefact
    with emulated_cuda():
        on_gpu = Scorer(lambda _: load_model(record, artefact, "cuda")).measure(events, 1)
    on_cpu = Scorer(lambda _: load_model(record, artefact, "cpu")).measure(events, 1)
    np.testing.assert_allclose(on_gpu.energies, on_cpu.energies, rtol=1e-4)
    assert on_gpu.codes is not None
    assert on_cpu.codes is not None
    np.testing.assert_array_equal(on_gpu.codes.ranks[:, :D], on_cpu.codes.ranks[:, :D])


@pytest.mark.usefixtures("_cuda")
def test_group_of_gpu_processes_sums_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL takes tensors on a GPU only."""

    def all_reduce(tensor: torch.Tensor, op: object = dist.ReduceOp.SUM) -> None:
        assert isinstance(tensor, CudaTensor), "no backend for the device type cpu"
        tensor.add_(tensor.clone())

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(dist, "get_backend_config", lambda: "cuda:nccl")
    group = ProcessGroup(rank=0, size=2)
    assert group.sum_array(np.array([1.5, 2.0])).tolist() == [3.0, 4.0]
    assert group.max_array(np.array([1.0])).tolist() == [2.0]
    assert group.sum_tensor(torch.ones(2)).tolist() == [2.0, 2.0]
