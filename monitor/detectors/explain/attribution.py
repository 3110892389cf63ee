"""Exact contribution of each feature to the energy of an event under a mixture.

Given the other features, feature j of component k is Gaussian with variance 1 / P_jj and mean
x_j - (P (x - mu))_j / P_jj, where P is the precision matrix of the component. The density of the other
features alone is the joint density divided by that conditional. One pass over the precisions therefore gives,
for all j at once, the conditional mean and variance of the mixture and the energy with x_j replaced by the mean.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.score.factors import log_constants
from monitor.detectors.score.threads import single_blas_thread

F64 = NDArray[np.float64]
_CHUNK_BYTES = 8 << 20
_RANGE_DEVIATIONS = 2.0


def explain_mixture(x: F64, weights: F64, means: F64, inverse: F64, features: tuple[str, ...]) -> Explanation:
    """Explain the energy of each row of `x` under the mixture.

    Args:
        x: Events (n, D).
        weights: (K,), with sum 1.
        means: (K, D).
        inverse: (K, D, D), the inverse lower Cholesky factors of the covariances.
        features: The D feature names.
    """
    n, d = x.shape
    columns = {name: np.empty((n, d)) for name in ("z", "cost", "expected", "deviation")}
    step = max(1, _CHUNK_BYTES // (8 * d * len(weights)))
    log_constant = log_constants(weights, inverse)
    for at in range(0, n, step):
        rows = slice(at, at + step)
        with single_blas_thread:
            parts = _explain_chunk(x[rows], log_constant, means, inverse)
        for name, part in zip(("z", "cost", "expected", "deviation"), parts, strict=True):
            columns[name][rows] = part
    half_range = _RANGE_DEVIATIONS * columns["deviation"]
    return Explanation(
        features=features,
        value=x,
        z=columns["z"],
        cost=columns["cost"],
        expected=columns["expected"],
        low=columns["expected"] - half_range,
        high=columns["expected"] + half_range,
    )


def log_joint(x: FloatArray, weights: F64, means: F64, inverse: F64) -> F64:
    """Return log phi_k + log N(x | k) of each event and component, (n, K)."""
    constant = log_constants(weights, inverse)
    result = np.empty((len(x), len(constant)))
    for at in range(0, len(x), 4096):
        centred = x[at : at + 4096].astype(np.float64)[None] - means[:, None]
        with single_blas_thread:
            whitened = centred @ np.swapaxes(inverse, 1, 2)
        result[at : at + 4096] = (constant[:, None] - 0.5 * np.square(whitened).sum(2)).T
    return result


def _explain_chunk(x: F64, log_constant: F64, means: F64, inverse: F64) -> tuple[F64, F64, F64, F64]:
    centred = x[None] - means[:, None]
    whitened = centred @ np.swapaxes(inverse, 1, 2)
    scaled_distance = whitened @ inverse
    precision = np.square(inverse).sum(axis=1)[:, None]
    log_joint = log_constant[:, None] - 0.5 * np.square(whitened).sum(2)
    # The energy saved by moving x_j to the conditional mean of component k, and the distance to that mean.
    distance = scaled_distance / precision
    full_gain = 0.5 * scaled_distance * distance
    log_marginal = log_joint[:, :, None] + full_gain - 0.5 * np.log(precision)
    share = np.exp(log_marginal - logsumexp(log_marginal, axis=0))
    step = (share * distance).sum(axis=0)
    variance = (share * (1.0 / precision + np.square(distance - step))).sum(axis=0)
    deviation = np.sqrt(variance)
    gain = full_gain - 0.5 * precision * np.square(distance - step)
    replaced = logsumexp(log_joint[:, :, None] + gain, axis=0)
    cost = replaced - logsumexp(log_joint, axis=0)[:, None]
    return step / deviation, cost, x - step, deviation
