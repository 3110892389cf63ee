"""Detectors: the mixture of an autoencoding detector, fixed after training, and its energies far out."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from config.errors import ModelError
from monitor.detectors.artefact import Artefact
from monitor.detectors.gmm_functions import LOG_2PI, MahalanobisMetric, gmm_params, make_metric
from monitor.detectors.mixture_values import are_lower_triangular

F64 = NDArray[np.float64]

_ARRAY_FIELDS = ("weights", "means", "covariances", "factors")
_WEIGHT_SUM_TOLERANCE = 1e-2
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentMixture:
    """Weights, means, covariances and Cholesky factors in float64, and the training's radius."""

    weights: F64
    means: F64
    covariances: F64
    factors: F64
    radius: float

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the arrays by the names that an artefact holds them under."""
        return {
            **{f"mixture.{name}": getattr(self, name) for name in _ARRAY_FIELDS},
            "mixture.radius": np.array([self.radius]),
        }

    def to_density(self, device: str) -> "LatentDensity":
        """Return what scoring needs, on the device; components without weight are left out."""
        live = self.weights > 0
        weights, means, factors = (
            torch.from_numpy(a[live]).to(device) for a in (self.weights, self.means, self.factors)
        )
        log_det = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1)
        return LatentDensity(
            metric=make_metric(means, factors, torch.float64),
            log_constant=weights.log() - 0.5 * (means.shape[1] * LOG_2PI + log_det),
            radius=self.radius,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDensity:
    """A latent mixture on a device, ready to score."""

    metric: MahalanobisMetric
    log_constant: Tensor
    radius: float

    def energies(self, z: Tensor) -> Tensor:
        """Return the energy of each row of mixture input, in float64; NaN counts as infinitely far."""
        squared = self.metric.squared_distances(z.double().nan_to_num(nan=_MAX_FLOAT32))
        energy = -torch.logsumexp(self.log_constant - 0.5 * squared, dim=1)
        return energy.clamp(-_MAX_FLOAT32, _MAX_FLOAT32)

    def distance_penalty(self, rows: F64) -> F64:
        """Return D (|x| / R - 1) for standardised rows beyond the training's radius R, 0 within."""
        scale = np.abs(rows).max(axis=1, initial=1e-300, keepdims=True)  # the square of a far value overflows
        with np.errstate(over="ignore"):  # infinity is as far as a number can say; energies are clipped
            length = np.sqrt(np.square(rows / scale).sum(axis=1)) * scale[:, 0]
            excess: F64 = rows.shape[1] * np.maximum(length / self.radius - 1.0, 0.0)
        return excess


def estimate_latent_mixture(z: Tensor, gamma: Tensor, radius: float) -> LatentMixture:
    """Return the mixture that the responsibilities of the whole training set give."""
    weights, means, covariances, factors, _ = (t.cpu().numpy() for t in gmm_params(z.double(), gamma.double()))
    return LatentMixture(weights=weights, means=means, covariances=covariances, factors=factors, radius=radius)


def read_mixture(stored: Artefact, n_gmm: int, width: int) -> LatentMixture:
    """Return the mixture that an artefact holds.

    Raises:
        ModelError: Its arrays do not fit together.
    """
    shapes = {"weights": (n_gmm,), "means": (n_gmm, width)}
    arrays = {
        name: stored.float64_tensor(f"mixture.{name}", *shapes.get(name, (n_gmm, width, width)))
        for name in _ARRAY_FIELDS
    }
    radius = float(stored.float64_tensor("mixture.radius", 1)[0])
    weights = arrays["weights"]
    # Networks of the user's may give shares that add up to one only nearly.
    shares = (weights >= 0).all() and abs(weights.sum() - 1) < _WEIGHT_SUM_TOLERANCE
    if not (radius > 0 and shares and are_lower_triangular(arrays["factors"])):
        raise ModelError(f"the {stored.kind} model's mixture contradicts itself; fit it again")
    return LatentMixture(radius=radius, **arrays)
