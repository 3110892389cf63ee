"""Detectors: the parameters of a mixture that somebody gives, checked, and its covariances as factors."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors.fit.em import CovarianceType
from monitor.detectors.fit.settings import check_covariance_type

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureValues:
    """Weights (K), means (K, D) and lower Cholesky factors.

    The factors are (K, D, D), (1, D, D) when tied, and the deviations (K, D) when diagonal or spherical.
    """

    weights: F64
    means: F64
    cholesky: F64


def check_mixture(
    weights: Any, means: Any, covariances: Any, kind: CovarianceType, names: tuple[str, ...] | None = None
) -> MixtureValues:
    """Return the values of a mixture, shaped as GaussianMixture's attributes are.

    Raises:
        ModelError: shapes that do not fit, or covariances that are not positive definite.
    """
    check_covariance_type(kind)
    try:
        phi, mu = np.array(weights, dtype=np.float64), np.array(means, dtype=np.float64)
        sigma = np.array(covariances, dtype=np.float64)
    except (TypeError, ValueError) as reason:
        raise ModelError(f"weights, means and covariances must be arrays of numbers: {reason}") from reason
    if phi.ndim != 1 or mu.ndim != 2 or len(phi) != len(mu) or not mu.size:
        raise ModelError(f"weights {phi.shape} and means {mu.shape} must be (K,) and (K, D), with a component at least")
    k, d = mu.shape
    shape = {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[kind]
    if sigma.shape != shape or (names is not None and len(names) != d):
        raise ModelError(f"{kind} covariances must have shape {shape}, not {sigma.shape}")
    finite = np.isfinite(mu).all() and np.isfinite(sigma).all()
    if not (phi >= 0).all() or not abs(phi.sum() - 1) < 1e-6 or not finite:
        raise ModelError("weights must be shares that sum to one, and means and covariances must be finite")
    if sigma.ndim > 1 and kind in ("full", "tied") and not _is_symmetric(sigma):
        raise ModelError("covariances must be symmetric; give (S + S.T) / 2 where rounding has made them differ")
    return MixtureValues(weights=phi, means=mu, cholesky=_factorise_covariances(sigma, kind, d))


def covariances_from_cholesky(cholesky: F64, kind: CovarianceType) -> F64:
    """Return covariances, shaped as scikit-learn shapes them, of the factors as GaussianMixture keeps them."""
    if kind in ("diag", "spherical"):
        variances: F64 = np.square(cholesky)
        return variances[:, 0] if kind == "spherical" else variances
    product: F64 = cholesky @ np.swapaxes(cholesky, 1, 2)
    return product[0] if kind == "tied" else product


def expand_cholesky(cholesky: F64, k: int) -> F64:
    """Return one triangle (D, D) for each of k components."""
    if cholesky.ndim == 3:
        return np.array(np.broadcast_to(cholesky, (k, *cholesky.shape[1:])))
    return cholesky[:, :, None] * np.eye(cholesky.shape[1])


def are_lower_triangular(lower: F64) -> bool:
    """Return whether each matrix is lower triangular with a positive diagonal."""
    return bool((np.diagonal(lower, axis1=1, axis2=2) > 0).all() and not np.triu(lower, 1).any())


def _is_symmetric(covariances: F64) -> bool:
    apart = np.abs(covariances - np.swapaxes(covariances, -1, -2)).max(initial=0.0)
    return bool(apart <= 1e-3 * np.abs(covariances).max(initial=0.0))


def _factorise_covariances(covariances: F64, kind: CovarianceType, d: int) -> F64:
    """Return the factors as GaussianMixture keeps them, of covariances as it shows them."""
    if kind in ("diag", "spherical"):
        variances = covariances if kind == "diag" else np.repeat(covariances[:, None], d, axis=1)
        if not (variances > 0).all():
            raise ModelError("variances must be positive; add a small number to those that are zero")
        deviations: F64 = np.sqrt(variances)
        return deviations
    try:
        factors: F64 = np.linalg.cholesky(covariances[None] if kind == "tied" else covariances).astype(float)
    except np.linalg.LinAlgError as reason:
        raise ModelError(
            "a covariance is not positive definite; add a small number to its diagonal, or fit again"
        ) from reason
    return factors
