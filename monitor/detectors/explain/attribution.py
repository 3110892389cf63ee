"""Detectors: what each feature of an event adds to its energy under a mixture, exactly.

Given the other features, feature j of component k is Gaussian with variance 1 / P_jj and mean
x_j - (P (x - mu))_j / P_jj, where P is the component's precision; and the density of the other features
alone is the joint density over that conditional. So one pass over the precisions gives, for all j at
once, the mixture's conditional mean and variance and the energy after replacing x_j by that mean.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.score.threads import single_blas_thread

F64 = NDArray[np.float64]
_CHUNK_BYTES = 8 << 20
_RANGE_DEVIATIONS = 2.0


def explain_mixture(x: F64, weights: F64, means: F64, inverse: F64, features: tuple[str, ...]) -> Explanation:
    """Return the explanation of each row of `x` under the mixture.

    Args:
        x: Events (n, D).
        weights: (K,) that sum to one.
        means: (K, D).
        inverse: (K, D, D), the inverse lower Cholesky factors of the covariances.
        features: D names.
    """
    n, d = x.shape
    columns = {name: np.empty((n, d)) for name in ("z", "cost", "expected", "deviation")}
    step = max(1, _CHUNK_BYTES // (8 * d * len(weights)))
    log_constant = log_constants(weights, inverse)
    for at in range(0, n, step):
        place = slice(at, at + step)
        with single_blas_thread:
            parts = _explain_chunk(x[place], log_constant, means, inverse)
        for name, part in zip(("z", "cost", "expected", "deviation"), parts, strict=True):
            columns[name][place] = part
    reach = _RANGE_DEVIATIONS * columns["deviation"]
    return Explanation(
        features=features,
        value=x,
        z=columns["z"],
        cost=columns["cost"],
        expected=columns["expected"],
        low=columns["expected"] - reach,
        high=columns["expected"] + reach,
    )


def log_constants(weights: F64, inverse: F64) -> F64:
    """Return log phi_k - (D log 2 pi + log det Sigma_k) / 2 of each component."""
    d = inverse.shape[1]
    half_log_det = -np.log(np.diagonal(inverse, axis1=1, axis2=2)).sum(1)
    with np.errstate(divide="ignore"):
        constants: F64 = np.log(weights) - 0.5 * d * np.log(2 * np.pi) - half_log_det
    return constants


def log_joint(x: FloatArray, weights: F64, means: F64, inverse: F64) -> F64:
    """Return log phi_k + log N(x | k) of each event and component, (n, K)."""
    constant = log_constants(weights, inverse)
    result = np.empty((len(x), len(constant)))
    for at in range(0, len(x), 4096):
        away = x[at : at + 4096].astype(np.float64)[None] - means[:, None]
        with single_blas_thread:
            white = away @ np.swapaxes(inverse, 1, 2)
        result[at : at + 4096] = (constant[:, None] - 0.5 * np.square(white).sum(2)).T
    return result


def _explain_chunk(x: F64, log_constant: F64, means: F64, inverse: F64) -> tuple[F64, F64, F64, F64]:
    away = x[None] - means[:, None]
    white = away @ np.swapaxes(inverse, 1, 2)
    pull = white @ inverse
    precision = np.square(inverse).sum(axis=1)[:, None]
    log_joint = log_constant[:, None] - 0.5 * np.square(white).sum(2)
    # What replacing x_j by component k's own conditional mean would gain, and where that mean lies.
    gap = pull / precision
    full_gain = 0.5 * pull * gap
    without = log_joint[:, :, None] + full_gain - 0.5 * np.log(precision)
    share = np.exp(without - logsumexp(without, axis=0))
    step = (share * gap).sum(axis=0)
    variance = (share * (1.0 / precision + np.square(gap - step))).sum(axis=0)
    deviation = np.sqrt(variance)
    gain = full_gain - 0.5 * precision * np.square(gap - step)
    replaced = logsumexp(log_joint[:, :, None] + gain, axis=0)
    cost = replaced - logsumexp(log_joint, axis=0)[:, None]
    return step / deviation, cost, x - step, deviation
