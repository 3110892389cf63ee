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
_CHUNK_BYTES = 1 << 18

MIN_RESPONSIBILITY = 0.2
"""A component with a larger responsibility, given the other features, has an expected value of its own."""

MAX_EXPECTED = 4
"""Maximum number of expected values of one feature: at most four components can exceed that responsibility."""

_MIN_SEPARATION_DEVIATIONS = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class ConditionalValues:
    """Comparison of each value with the other features of its event; all arrays are (n, D).

    Attributes:
        z: The distance of the value from `expected`, in deviations.
        cost: The decrease in energy, in nats, when the value is replaced by `expected`.
        expected: The mean given the other features, of the component with the highest responsibility given them.
        modes: The means of the components with the highest responsibilities, in this order, (n, D, 4).
        mode_deviations: Their deviations, (n, D, 4).
        mode_shares: Their responsibilities given the other features, (n, D, 4); 0 where there is no component.
    """

    z: F64
    cost: F64
    expected: F64
    modes: F64
    mode_deviations: F64
    mode_shares: F64

    def alternatives(self) -> F64:
        """Return further expected values, (n, D, 3): of other components with a responsibility above 0.2.

        A value within two deviations of a previous one is left out, because it is not another value for a reader. The
        rest is NaN.
        """
        shown = self.mode_shares > MIN_RESPONSIBILITY
        shown[..., 0] = True
        for later in range(1, MAX_EXPECTED):
            for former in range(later):
                wide = np.maximum(self.mode_deviations[..., later], self.mode_deviations[..., former])
                distance = np.abs(self.modes[..., later] - self.modes[..., former])
                near = distance <= _MIN_SEPARATION_DEVIATIONS * wide
                shown[..., later] &= ~(near & shown[..., former])
        return np.where(shown, self.modes, np.nan)[..., 1:]


def compare_with_others(x: F64, weights: F64, means: F64, inverse: F64) -> ConditionalValues:
    """Compare each value of the events with the value that the other features of its event lead to.

    Args:
        x: Events (n, D).
        weights: (K,), with sum 1.
        means: (K, D).
        inverse: (K, D, D), the inverse lower Cholesky factors of the covariances.
    """
    n, d = x.shape
    result = ConditionalValues(
        *(np.empty((n, d)) for _ in range(3)),
        *(np.zeros((n, d, MAX_EXPECTED)) for _ in range(3)),
    )
    step = max(1, _CHUNK_BYTES // (8 * d * len(weights)))
    log_constant = log_constants(weights, inverse)
    for at in range(0, n, step):
        with single_blas_thread:
            _compare_chunk(x, slice(at, at + step), log_constant, means, inverse, result)
    return result


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


def _compare_chunk(x: F64, rows: slice, log_constant: F64, means: F64, inverse: F64, result: ConditionalValues) -> None:
    """Write the comparison of some events into the result."""
    x = x[rows]
    centred = x[None] - means[:, None]
    whitened = centred @ np.swapaxes(inverse, 1, 2)
    scaled_distance = whitened @ inverse
    precision = np.square(inverse).sum(axis=1)[:, None]
    log_joint = log_constant[:, None] - 0.5 * np.square(whitened).sum(2)
    # The energy saved by moving x_j to the conditional mean of component k, and the distance to that mean.
    distance = scaled_distance / precision
    full_gain = 0.5 * scaled_distance * distance
    log_others = log_joint[:, :, None] + full_gain - 0.5 * np.log(precision)
    order = np.argsort(-log_others, axis=0, kind="stable")[:MAX_EXPECTED]
    step = np.take_along_axis(distance, order[:1], axis=0)[0]
    columns = np.arange(x.shape[1])
    result.z[rows] = step * np.sqrt(precision[order[0], 0, columns])
    result.expected[rows] = x - step
    shares = np.exp(log_others - logsumexp(log_others, axis=0))
    for position, component in enumerate(order):
        chosen = component[None]
        result.modes[rows, :, position] = x - np.take_along_axis(distance, chosen, axis=0)[0]
        result.mode_deviations[rows, :, position] = 1 / np.sqrt(precision[component, 0, columns])
        result.mode_shares[rows, :, position] = np.take_along_axis(shares, chosen, axis=0)[0]
    gain = full_gain - 0.5 * precision * np.square(distance - step)
    result.cost[rows] = logsumexp(log_joint[:, :, None] + gain, axis=0) - logsumexp(log_joint, axis=0)[:, None]
