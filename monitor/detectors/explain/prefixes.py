"""Additive contributions of the features to the energies of a Gaussian mixture. Pure functions.

The contribution of a feature is its Shapley value of the marginal energy -log p(x_S) of a set S of features: the mean,
over orders of the features, of the change in energy when the feature joins those before it. Within one order the
contributions sum to the energy of the event, hence so do the means. The leading blocks of one Cholesky factor per order
and component give the marginal energies of all prefixes of the order at once.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from monitor.detectors.explain.attribution import log_joint
from monitor.detectors.score.factors import LOG_2PI
from monitor.detectors.score.threads import single_blas_thread, single_torch_thread

F64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_MAX_FEATURES_FOR_ALL_ORDERS = 5
_N_ORDERS = 32  # the largest error of a feature is 2% of the excess energy, for 8 to 30 features
_N_ORDERS_OF_LARGE_MIXTURES = 8
_SEED = 0
_MAX_KEPT_BYTES = 32 << 20
_CHUNK_BYTES = 8 << 20


def choose_orders(n_components: int, n_features: int) -> Int64:
    """Return the orders of the features, (P, D): all up to 5 features, otherwise 32 or 8 with a fixed seed.

    Random orders come in pairs of an order and its reverse (antithetic). There are 8 if 32 would need more than 32 MiB.
    """
    if n_features <= _MAX_FEATURES_FOR_ALL_ORDERS:
        return np.array(list(itertools.permutations(range(n_features))), dtype=np.int64)
    fits = _N_ORDERS * n_components * n_features**2 * 8 <= _MAX_KEPT_BYTES
    rng = np.random.default_rng(_SEED)
    pairs = (_N_ORDERS if fits else _N_ORDERS_OF_LARGE_MIXTURES) // 2
    forward = np.stack([rng.permutation(n_features) for _ in range(pairs)])
    return np.concatenate([forward, forward[:, ::-1]]).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixFactors:
    """Factors of a mixture for the energies of all prefixes of the orders.

    Attributes:
        weights: The component weights, (K,).
        means: The means, (K, D).
        lower: The lower Cholesky factors of the covariances, (K, D, D).
        inverse: Their inverses, (K, D, D).
        orders: The orders of the features, (P, D).
        kept: The whitening matrices of all orders, (K, P, D, D); None where they need more than 32 MiB. They are then
            computed for one order at a time.
    """

    weights: F64
    means: F64
    lower: F64
    inverse: F64
    orders: Int64
    kept: F64 | None

    def whitening(self, at: slice) -> F64:
        """Return the whitening matrices of some orders, (K, P, D, D)."""
        return self.kept[:, at] if self.kept is not None else _whiten_orders(self.lower, self.orders[at])


def make_prefix_factors(weights: F64, means: F64, lower: F64, inverse: F64) -> PrefixFactors:
    """Build the factors of a mixture; the arguments are those of `PrefixFactors`, and the weights (K,)."""
    orders = choose_orders(*means.shape)
    keep = len(orders) * lower.nbytes <= _MAX_KEPT_BYTES
    return PrefixFactors(
        weights=weights,
        means=means,
        lower=lower,
        inverse=inverse,
        orders=orders,
        kept=_whiten_orders(lower, orders) if keep else None,
    )


def additive_contributions(x: F64, factors: PrefixFactors) -> F64:
    """Return the contribution of each feature to the energy of each event, (n, D), in nats.

    The contributions of an event sum to its energy.

    Args:
        x: Events (n, D), finite.
        factors: The factors of the mixture.
    """
    n, d = x.shape
    n_orders = len(factors.orders)
    together = n_orders if factors.kept is not None else 1
    rows = max(1, _CHUNK_BYTES // (8 * together * d * len(factors.means)))
    result = np.zeros((n, d))
    energies = -logsumexp(log_joint(x, factors.weights, factors.means, factors.inverse), axis=1)
    for order in range(0, n_orders, together):
        orders = slice(order, order + together)
        whitening = factors.whitening(orders)
        for at in range(0, n, rows):
            part = slice(at, at + rows)
            result[part] += _sum_over_orders(x[part], energies[part], factors, orders, whitening)
    return result / n_orders


def _sum_over_orders(x: F64, full: F64, factors: PrefixFactors, at: slice, whitening: F64) -> F64:
    """Return the sum of the contributions over some orders, (n, D); `full` are the energies of the events, (n,)."""
    k, n_orders, d, _ = whitening.shape
    centred = np.swapaxes(x[None] - factors.means[:, None], 1, 2)
    diagonal = np.diagonal(_in_order(whitening, factors.orders[at]), axis1=2, axis2=3)
    with single_blas_thread, np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        terms = (whitening.reshape(k, n_orders * d, d) @ centred).reshape(k, n_orders, d, len(x))
        np.square(terms, out=terms)
        terms *= -0.5
        terms += (np.log(diagonal) - 0.5 * LOG_2PI)[..., None]
        np.cumsum(terms, axis=2, out=terms)
        terms += np.log(factors.weights)[:, None, None, None]
        largest = terms.max(axis=0)
        terms -= largest
        energies = -(largest + np.log(np.exp(terms, out=terms).sum(axis=0)))
        # The last prefix is the whole event: the same energy in every order, also where factors differ by rounding.
        energies[:, -1] = full
        steps = np.diff(energies, axis=1, prepend=0.0)
    ranks = np.argsort(factors.orders[at], axis=1)
    by_feature: F64 = np.take_along_axis(steps, ranks[:, :, None], axis=1).sum(axis=0).T
    return by_feature


def _in_order(whitening: F64, orders: Int64) -> F64:
    """Return the whitening matrices with their columns in the order of their rows, lower triangular."""
    return np.take_along_axis(whitening, orders[None, :, None, :], axis=3)


def _whiten_orders(lower: F64, orders: Int64) -> F64:
    """Return the matrices that whiten the features in each order, (K, P, D, D), with columns in the usual order.

    The factor of the permuted covariance is the transposed R of a QR decomposition of the permuted rows of `lower`.
    Forming the covariance would square the condition number.
    """
    permuted = lower[:, orders]
    upper = np.linalg.qr(np.swapaxes(permuted, 2, 3), mode="r")
    signs = np.where(np.diagonal(upper, axis1=2, axis2=3) < 0, -1.0, 1.0)
    factors = torch.from_numpy(np.ascontiguousarray(np.swapaxes(upper * signs[..., None], 2, 3)))
    eye = torch.eye(lower.shape[1], dtype=torch.float64).expand_as(factors)
    with single_torch_thread():
        inverse: F64 = torch.linalg.solve_triangular(factors, eye, upper=False).numpy()
    ranks = np.argsort(orders, axis=1)
    whitening: F64 = np.take_along_axis(inverse, ranks[None, :, None, :], axis=3)
    return whitening


def baseline_rows(n_components: int, n_features: int) -> int:
    """Return the number of rows for the mean contributions of a typical event, 50 to 1,000.

    Fewer rows are used for large mixtures, so that the computation takes about a second at most.
    """
    operations = len(choose_orders(n_components, n_features)) * n_components * n_features**2
    return min(max(math.floor(2e9 / operations), 50), 1000)
