"""Parameters of a Gaussian mixture: validation, and covariances as Cholesky factors."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError

F64 = NDArray[np.float64]
CovarianceType = Literal["full", "tied", "diag", "spherical"]

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureValues:
    """Weights (K,), means (K, D) and lower Cholesky factors of the covariances.

    The factors have shape (K, D, D), or (1, D, D) for tied covariances. For diagonal and spherical covariances
    they are the standard deviations, (K, D).
    """

    weights: F64
    means: F64
    cholesky: F64


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureState:
    """The state of a fitted Gaussian mixture, in the units of the columns.

    Attributes:
        values: Weights, means and Cholesky factors.
        covariance_type: The form of the covariances.
        feature_names: The column names of the training events, or None if they had none.
        converged: Whether EM reached its tolerance.
        n_iter: The number of EM passes over all rows.
        lower_bound: The last mean log-likelihood, in nats.
    """

    values: MixtureValues
    covariance_type: CovarianceType
    feature_names: tuple[str, ...] | None
    converged: bool = True
    n_iter: int = 0
    lower_bound: float = 0.0


def check_covariance_type(kind: object) -> None:
    """Raise a ModelError unless `kind` is one of `COVARIANCE_TYPES`."""
    if kind not in COVARIANCE_TYPES:
        raise ModelError(f"covariance_type must be one of {', '.join(COVARIANCE_TYPES)}, not {kind!r}")


def check_mixture(
    weights: Any, means: Any, covariances: Any, kind: CovarianceType, names: tuple[str, ...] | None = None
) -> MixtureValues:
    """Check parameters of the shapes of GaussianMixture's attributes, and factorise the covariances.

    Raises:
        ModelError: The shapes do not match, or a covariance is not positive definite.
    """
    check_covariance_type(kind)
    try:
        phi, mu = np.array(weights, dtype=np.float64), np.array(means, dtype=np.float64)
        sigma = np.array(covariances, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(f"weights, means and covariances must be arrays of numbers: {error}") from error
    if phi.ndim != 1 or mu.ndim != 2 or len(phi) != len(mu) or not mu.size:
        raise ModelError(f"weights {phi.shape} and means {mu.shape} must be (K,) and (K, D), with K and D at least 1")
    k, d = mu.shape
    shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[kind]
    if sigma.shape != shape or (names is not None and len(names) != d):
        raise ModelError(f"{kind} covariances must have shape {shape}, not {sigma.shape}")
    finite = np.isfinite(mu).all() and np.isfinite(sigma).all()
    if not (phi >= 0).all() or not abs(phi.sum() - 1) < 1e-6 or not finite:
        raise ModelError(
            "weights must be non-negative and sum to one, and means and covariances must be finite numbers"
        )
    if sigma.ndim > 1 and kind in ("full", "tied") and not _is_symmetric(sigma):
        raise ModelError("covariances must be symmetric; pass (S + S.T) / 2 if they differ by rounding errors")
    return MixtureValues(weights=phi, means=mu, cholesky=_factorise_covariances(sigma, kind, d))


def covariances_from_cholesky(cholesky: F64, kind: CovarianceType) -> F64:
    """Return the covariances, in scikit-learn's shapes, from the factors of `MixtureValues`."""
    if kind in ("diag", "spherical"):
        variances: F64 = np.square(cholesky)
        return variances[:, 0] if kind == "spherical" else variances
    product: F64 = cholesky @ np.swapaxes(cholesky, 1, 2)
    return product[0] if kind == "tied" else product


def expand_cholesky(cholesky: F64, k: int) -> F64:
    """Return one lower triangular matrix for each of k components, (k, D, D)."""
    if cholesky.ndim == 3:
        return np.array(np.broadcast_to(cholesky, (k, *cholesky.shape[1:])))
    return cholesky[:, :, None] * np.eye(cholesky.shape[1])


def are_lower_triangular(lower: F64) -> bool:
    """Return True if every matrix is lower triangular with a positive diagonal."""
    return bool((np.diagonal(lower, axis1=1, axis2=2) > 0).all() and not np.triu(lower, 1).any())


def _is_symmetric(covariances: F64) -> bool:
    difference = np.abs(covariances - np.swapaxes(covariances, -1, -2)).max(initial=0.0)
    return bool(difference <= 1e-3 * np.abs(covariances).max(initial=0.0))


def _factorise_covariances(covariances: F64, kind: CovarianceType, d: int) -> F64:
    """Return the factors of `MixtureValues` from covariances in scikit-learn's shapes."""
    if kind in ("diag", "spherical"):
        variances = covariances if kind == "diag" else np.repeat(covariances[:, None], d, axis=1)
        if not (variances > 0).all():
            raise ModelError("variances must be positive; add a small number to those that are zero")
        deviations: F64 = np.sqrt(variances)
        return deviations
    try:
        factors: F64 = np.linalg.cholesky(covariances[None] if kind == "tied" else covariances).astype(float)
    except np.linalg.LinAlgError as error:
        raise ModelError(
            "a covariance is not positive definite; add a small number to its diagonal, or fit again"
        ) from error
    return factors
