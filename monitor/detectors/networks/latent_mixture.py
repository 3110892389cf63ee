"""Mixture over the latent and reconstruction features of an autoencoding detector, estimated after training."""

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
    """Mixture parameters in float64, and the largest standardised length of a training row, `radius`."""

    weights: F64
    means: F64
    covariances: F64
    factors: F64
    radius: float

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the arrays by their names in an artefact."""
        return {
            **{f"mixture.{name}": getattr(self, name) for name in _ARRAY_FIELDS},
            "mixture.radius": np.array([self.radius]),
        }

    def to_density(self, device: str) -> "LatentDensity":
        """Return the mixture prepared for scoring on a device, without components of weight 0."""
        has_weight = self.weights > 0
        weights, means, factors = (
            torch.from_numpy(a[has_weight]).to(device) for a in (self.weights, self.means, self.factors)
        )
        log_det = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1)
        return LatentDensity(
            metric=make_metric(means, factors, torch.float64),
            log_constant=weights.log() - 0.5 * (means.shape[1] * LOG_2PI + log_det),
            radius=self.radius,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDensity:
    """A latent mixture on a device, prepared for scoring."""

    metric: MahalanobisMetric
    log_constant: Tensor
    radius: float

    def energies(self, z: Tensor) -> Tensor:
        """Return the energy of each row of mixture input, (n,), in float64; NaN counts as infinitely far."""
        squared = self.metric.squared_distances(z.double().nan_to_num(nan=_MAX_FLOAT32))
        energy = -torch.logsumexp(self.log_constant - 0.5 * squared, dim=1)
        return energy.clamp(-_MAX_FLOAT32, _MAX_FLOAT32)

    def distance_penalty(self, rows: F64) -> F64:
        """Return D (|x| / R - 1) for standardised rows longer than the training radius R, 0 for others."""
        scale = np.abs(rows).max(
            axis=1, initial=1e-300, keepdims=True
        )  # squares of far values would overflow without the scale
        with np.errstate(over="ignore"):  # infinity is acceptable: energies are clipped
            length = np.sqrt(np.square(rows / scale).sum(axis=1)) * scale[:, 0]
            penalty: F64 = rows.shape[1] * np.maximum(length / self.radius - 1.0, 0.0)
        return penalty


def estimate_latent_mixture(z: Tensor, gamma: Tensor, radius: float) -> LatentMixture:
    """Return the mixture from the responsibilities `gamma`, (n, K), of the mixture inputs `z` in training."""
    weights, means, covariances, factors, _ = (t.cpu().numpy() for t in gmm_params(z.double(), gamma.double()))
    return LatentMixture(weights=weights, means=means, covariances=covariances, factors=factors, radius=radius)


def read_mixture(stored: Artefact, n_gmm: int, width: int) -> LatentMixture:
    """Read the mixture from an artefact.

    Raises:
        ModelError: The arrays are inconsistent or not the parameters of a mixture.
    """
    shapes = {"weights": (n_gmm,), "means": (n_gmm, width)}
    arrays = {
        name: stored.float64_tensor(f"mixture.{name}", *shapes.get(name, (n_gmm, width, width)))
        for name in _ARRAY_FIELDS
    }
    radius = float(stored.float64_tensor("mixture.radius", 1)[0])
    weights = arrays["weights"]
    # The responsibilities of a user's network may add up to one only approximately.
    valid_weights = (weights >= 0).all() and abs(weights.sum() - 1) < _WEIGHT_SUM_TOLERANCE
    if not (radius > 0 and valid_weights and are_lower_triangular(arrays["factors"])):
        raise ModelError(f"the {stored.kind} model's mixture parameters are inconsistent; fit it again")
    return LatentMixture(radius=radius, **arrays)
