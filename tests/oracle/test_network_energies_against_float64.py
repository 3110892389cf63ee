"""Energies of VAEGMM and AEGMM against a numpy implementation with scipy's solver, in float64."""

import numpy as np
import pytest
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from monitor.detectors.networks.aegmm import AEGMM
from monitor.detectors.networks.vaegmm import VAEGMM

RELATIVE = {np.float32: 1e-4, np.float64: 1e-10}
BOTH = pytest.mark.parametrize("make", [VAEGMM, AEGMM])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def make_rows(n, D, seed=0, offset=0.0, condition=1.0):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, min(D, 3)))
    mixing = np.random.default_rng(99).normal(size=(min(D, 3), D))
    rows = np.tanh(latent) @ mixing + 0.1 * rng.normal(size=(n, D))
    return rows * np.geomspace(1.0, condition**-0.5, D) + offset


def apply_layers(arrays, part, x, activation, *, last):
    """Apply the linear layers of one network, read from the artefact, in the order of their numbers."""
    numbers = sorted({int(name.split(".")[2]) for name in arrays if name.startswith(f"net.{part}.")})
    for position, number in enumerate(numbers, start=1):
        weight, bias = (arrays[f"net.{part}.{number}.{kind}"].astype(np.float64) for kind in ("weight", "bias"))
        x = x @ weight.T + bias
        if last or position < len(numbers):
            x = activation(x)
    return x


def log_normal(z, mean, factor):
    """Return the log density from the Cholesky factor; the covariance itself would lose half of the digits."""
    whitened = solve_triangular(factor, (z - mean).T, lower=True)
    constant = len(mean) * np.log(2 * np.pi) + 2 * np.log(np.diagonal(factor)).sum()
    return -0.5 * (np.square(whitened).sum(axis=0) + constant)


def reference_energy(detector, rows, noise=None):
    """Return the energy by the formulas, computed only from the arrays of the artefact."""
    arrays = detector.to_artefact().tensors
    variational = isinstance(detector, VAEGMM)
    activation = (lambda t: np.maximum(t, 0.0)) if variational else np.tanh
    x = (rows.astype(np.float64) - arrays["scaling.centre"]) / arrays["scaling.scale"]
    latent = apply_layers(arrays, "encoder", x, activation, last=variational)
    if variational:
        heads = {
            head: latent @ arrays[f"net.{head}.weight"].astype(np.float64).T
            + arrays[f"net.{head}.bias"].astype(np.float64)
            for head in ("mean_head", "log_variance_head")
        }
        latent = heads["mean_head"]
        if noise is not None:
            latent = latent + np.exp(0.5 * heads["log_variance_head"]) * noise
    reconstruction = apply_layers(arrays, "decoder", latent, activation, last=False)
    length, reconstruction_length = np.linalg.norm(x, axis=1), np.linalg.norm(reconstruction, axis=1)
    cosine = (x * reconstruction).sum(1) / np.maximum(length * reconstruction_length, 1e-12)
    distance = np.linalg.norm(reconstruction - x, axis=1) / (np.minimum(length, reconstruction_length) + 1e-12)
    z = np.column_stack([latent, -cosine, np.clip(distance, 0, 100)])
    logs = [
        np.log(weight) + log_normal(z, mean, factor)
        for weight, mean, factor in zip(
            arrays["mixture.weights"], arrays["mixture.means"], arrays["mixture.factors"], strict=True
        )
    ]
    distance_penalty = x.shape[1] * np.maximum(length / arrays["mixture.radius"][0] - 1.0, 0.0)
    return distance_penalty - logsumexp(logs, axis=0)


def fit_quickly(make, rows, **settings):
    return make(**settings).fit(rows, epochs=3, batch_size=64, verbose=False)


@BOTH
@DTYPES
@pytest.mark.parametrize(("D", "n_gmm"), [(1, 1), (6, 2), (33, 4), (512, 2)])
def test_energies_equal_the_formulas(make, dtype, D, n_gmm):
    detector = fit_quickly(make, make_rows(500, D).astype(dtype), n_gmm=n_gmm)
    events = make_rows(300, D, seed=1).astype(dtype)
    np.testing.assert_allclose(detector.energy(events), reference_energy(detector, events), rtol=RELATIVE[dtype])


@BOTH
@DTYPES
@pytest.mark.parametrize(("offset", "condition"), [(1e4, 1.0), (0.0, 1e6), (0.0, 1e8)])
def test_large_offsets_and_unequal_scales_lose_no_precision(make, dtype, offset, condition):
    detector = fit_quickly(make, make_rows(500, 6, offset=offset, condition=condition).astype(dtype))
    events = make_rows(300, 6, seed=1, offset=offset, condition=condition).astype(dtype)
    np.testing.assert_allclose(detector.energy(events), reference_energy(detector, events), rtol=RELATIVE[dtype])


@BOTH
@DTYPES
def test_far_events_and_a_single_event_equal_the_formulas(make, dtype):
    rows = make_rows(500, 6).astype(dtype)
    detector = fit_quickly(make, rows)
    far = (np.geomspace(10, 1e4, 20)[:, None] * rows[0]).astype(dtype)
    np.testing.assert_allclose(detector.energy(far), reference_energy(detector, far), rtol=RELATIVE[dtype])
    np.testing.assert_allclose(detector.energy(rows[:1]), reference_energy(detector, rows[:1]), rtol=RELATIVE[dtype])


def test_score_is_the_mean_over_draws_of_standard_noise():
    rows = make_rows(500, 6)
    detector = fit_quickly(VAEGMM, rows)
    events = make_rows(100, 6, seed=1)
    rng = np.random.default_rng(3)
    draws = np.stack([reference_energy(detector, events, rng.normal(size=2)) for _ in range(500)])
    standard_error = draws.std(axis=0) / np.sqrt(250)
    found = detector.score(events, samples=500)
    assert (np.abs(found - draws.mean(axis=0)) < 5 * standard_error + 1e-9).mean() > 0.98
