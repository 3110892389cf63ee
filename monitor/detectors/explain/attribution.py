"""Comparison of each feature of an event with its other features, under a mixture.

Given the other features, feature j of component k is Gaussian with variance 1 / P_jj and mean
x_j - (P (x - mu))_j / P_jj, where P is the precision matrix of the component. The density of the other
features alone is the joint density divided by that conditional. One pass over the precisions therefore gives,
for all j at once, the conditional means, the component with the highest responsibility given the other features, and
the energy with x_j replaced by its conditional mean under that component.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.score.factors import log_constants
from monitor.detectors.score.threads import single_blas_thread

F64 = NDArray[np.float64]
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConditionalValues:
    """Comparison of each value with the other features of its event; all arrays are (n, D).

    Attributes:
        z: The distance of the value from `expected`, in deviations.
        cost: The decrease in energy, in nats, when the value is replaced by `expected`.
        expected: The mean given the other features, of the component with the highest responsibility given them.
    """

    z: F64
    cost: F64
    expected: F64


def compare_with_others(x: F64, weights: F64, means: F64, inverse: F64) -> ConditionalValues:
    """Compare each value of the events with the value that the other features of its event lead to.

    Args:
        x: Events (n, D).
        weights: (K,), with sum 1.
        means: (K, D).
        inverse: (K, D, D), the inverse lower Cholesky factors of the covariances.
    """
    n, d = x.shape
    z, cost, expected = (np.empty((n, d)) for _ in range(3))
    step = max(1, _CHUNK_BYTES // (8 * d * len(weights)))
    log_constant = log_constants(weights, inverse)
    for at in range(0, n, step):
        rows = slice(at, at + step)
        with single_blas_thread:
            z[rows], cost[rows], expected[rows] = _compare_chunk(x[rows], log_constant, means, inverse)
    return ConditionalValues(z=z, cost=cost, expected=expected)


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


def _compare_chunk(x: F64, log_constant: F64, means: F64, inverse: F64) -> tuple[F64, F64, F64]:
    """Return z, cost and expected of each value, each (n, D)."""
    centred = x[None] - means[:, None]
    whitened = centred @ np.swapaxes(inverse, 1, 2)
    scaled_distance = whitened @ inverse
    precision = np.square(inverse).sum(axis=1)[:, None]
    log_joint = log_constant[:, None] - 0.5 * np.square(whitened).sum(2)
    # The energy saved by moving x_j to the conditional mean of component k, and the distance to that mean.
    distance = scaled_distance / precision
    full_gain = 0.5 * scaled_distance * distance
    likeliest = (log_joint[:, :, None] + full_gain - 0.5 * np.log(precision)).argmax(axis=0)[None]
    step = np.take_along_axis(distance, likeliest, axis=0)[0]
    z = step * np.sqrt(precision[likeliest[0], 0, np.arange(x.shape[1])])
    gain = full_gain - 0.5 * precision * np.square(distance - step)
    cost = logsumexp(log_joint[:, :, None] + gain, axis=0) - logsumexp(log_joint, axis=0)[:, None]
    return z, cost, x - step
