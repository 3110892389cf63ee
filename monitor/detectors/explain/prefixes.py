"""Additive contributions of the features to the energies of a Gaussian mixture. Pure functions.

The contribution of a feature is its Shapley value of the marginal energy -log p(x_S) of a set S of features: the mean,
over orders of the features, of the change in energy when the feature joins those before it. Within one order the
contributions sum to the energy of the event, hence so do the means. The leading blocks of one Cholesky factor per order
and component give the marginal energies of all prefixes of the order at once.

Up to 7 features the mean over all orders is exact. It needs the energies of all 2^D sets of features, and these are the
prefixes of few orders: those of the symmetric chains of Greene and Kleitman (1976), 35 for 7 features. For more
features, the mean over 32 orders is an estimate.
"""

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

_MAX_FEATURES_FOR_ALL_SETS = 7
_N_ORDERS = 32  # the largest error of a feature is 2% of the excess energy, for 8 to 30 features
_N_ORDERS_OF_LARGE_MIXTURES = 8
_SEED = 0
_MAX_ORDER_BYTES = 32 << 20
_MAX_KEPT_BYTES = 4 << 20
_CHUNK_BYTES = 2 << 20


def choose_orders(n_components: int, n_features: int) -> Int64:
    """Return the orders of the features, (P, D).

    Up to 7 features every set of features is a prefix of one of them. Otherwise there are 32 with a fixed seed, in
    pairs of an order and its reverse (antithetic), or 8 if the whitening matrices of 32 would need more than 32 MiB.
    """
    if n_features <= _MAX_FEATURES_FOR_ALL_SETS:
        return _chain_orders(n_features)
    fits = _N_ORDERS * n_components * n_features**2 * 8 <= _MAX_ORDER_BYTES
    rng = np.random.default_rng(_SEED)
    pairs = (_N_ORDERS if fits else _N_ORDERS_OF_LARGE_MIXTURES) // 2
    forward = np.stack([rng.permutation(n_features) for _ in range(pairs)])
    return np.concatenate([forward, forward[:, ::-1]]).astype(np.int64)


def _chain_orders(d: int) -> Int64:
    """Return orders of d features whose prefixes are all sets of them: one order for each symmetric chain.

    Reading the features from left to right, an absent feature is an opening bracket and a present one closes it. The
    sets of one chain have the same matched brackets, and its smallest set has no unmatched closing one.
    """
    orders = []
    for code in range(1 << d):
        present = [j for j in range(d) if code >> j & 1]
        open_brackets: list[int] = []
        matched: list[int] = []
        for j in range(d):
            if j not in present:
                open_brackets.append(j)
            elif open_brackets:
                matched.append(open_brackets.pop())
            else:
                break
        else:
            orders.append([*present, *open_brackets, *matched])
    return np.array(orders, dtype=np.int64).reshape(len(orders), d)


def _make_coefficients(orders: Int64) -> F64:
    """Return the coefficient of the energy of each prefix in the contribution of each feature, (P, D, D).

    The second axis is the size of the prefix less 1, the third one the feature. If every set is a prefix, the
    coefficients are those of the Shapley value, and a set counts once. Otherwise they are those of the mean over the
    orders.
    """
    n_orders, d = orders.shape
    if d > _MAX_FEATURES_FOR_ALL_SETS:
        ranks = np.argsort(orders, axis=1)
        sizes = np.arange(d)[None, :, None]
        coefficients: F64 = (sizes == ranks[:, None]).astype(np.float64) - (sizes == ranks[:, None] - 1)
        coefficients /= n_orders
        return coefficients
    coefficients = np.zeros((n_orders, d, d))
    seen: set[frozenset[int]] = set()
    for p, order in enumerate(orders.tolist()):
        for size in range(1, d + 1):
            members = frozenset(order[:size])
            if members in seen:
                continue
            seen.add(members)
            inside = 1 / (d * math.comb(d - 1, size - 1))
            coefficients[p, size - 1] = -1 / (d * math.comb(d - 1, size)) if size < d else 0.0
            coefficients[p, size - 1, order[:size]] = inside
    return coefficients


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixFactors:
    """Factors of a mixture for the energies of all prefixes of the orders.

    Attributes:
        weights: The component weights, (K,).
        means: The means, (K, D).
        lower: The lower Cholesky factors of the covariances, (K, D, D).
        inverse: Their inverses, (K, D, D).
        orders: The orders of the features, (P, D).
        coefficients: The coefficients of the energies of the prefixes in the contributions, (P, D, D).
        kept: The whitening matrices of all orders, (K, P, D, D); None where they need more than 4 MiB. They are then
            computed for one order at a time.
    """

    weights: F64
    means: F64
    lower: F64
    inverse: F64
    orders: Int64
    coefficients: F64
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
        coefficients=_make_coefficients(orders),
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
        coefficients = factors.coefficients[orders].reshape(-1, d)
        for at in range(0, n, rows):
            part = slice(at, at + rows)
            prefixes = _energies_of_prefixes(x[part], energies[part], factors, orders, whitening)
            with single_blas_thread:
                result[part] += prefixes.reshape(-1, prefixes.shape[-1]).T @ coefficients
    return result


def _energies_of_prefixes(x: F64, full: F64, factors: PrefixFactors, at: slice, whitening: F64) -> F64:
    """Return the marginal energies of the prefixes of some orders, (P, D, n).

    `full` are the energies of the events, (n,).
    """
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
        energies: F64 = -(largest + np.log(np.exp(terms, out=terms).sum(axis=0)))
        # The last prefix is the whole event: the same energy in every order, also where factors differ by rounding.
        energies[:, -1] = full
    return energies


def _in_order(whitening: F64, orders: Int64) -> F64:
    """Return the whitening matrices with their columns in the order of their rows, lower triangular."""
    return np.take_along_axis(whitening, orders[None, :, None, :], axis=3)


def _whiten_orders(lower: F64, orders: Int64) -> F64:
    """Return the matrices that whiten the features in each order, (K, P, D, D), with columns in the usual order.

    The factor of the permuted covariance is the transposed R of a QR decomposition of the permuted rows of `lower`.
    Forming the covariance would square the condition number. Components are computed one at a time, to save memory.
    """
    k, d = lower.shape[:2]
    whitening = np.empty((k, *orders.shape, d))
    eye = torch.eye(d, dtype=torch.float64)
    ranks = np.argsort(orders, axis=1)[:, None, :]
    for component in range(k):
        factors = factorise_in_order(lower[component], orders)
        with single_torch_thread():
            inverse = torch.linalg.solve_triangular(torch.from_numpy(factors), eye.expand(factors.shape), upper=False)
        whitening[component] = np.take_along_axis(inverse.numpy(), ranks, axis=2)
    return whitening


def factorise_in_order(lower: F64, orders: Int64) -> F64:
    """Return the lower Cholesky factors of the covariance with its features in each order, (P, D, D).

    Args:
        lower: The lower Cholesky factor in the usual order, (D, D).
        orders: The orders, (P, D).
    """
    with single_blas_thread:
        upper = np.linalg.qr(np.swapaxes(lower[orders], 1, 2), mode="r")
    signs = np.where(np.diagonal(upper, axis1=1, axis2=2) < 0, -1.0, 1.0)
    return np.ascontiguousarray(np.swapaxes(upper * signs[..., None], 1, 2))


def baseline_rows(n_components: int, n_features: int) -> int:
    """Return the number of rows for the mean contributions of a typical event, 50 to 1,000.

    Fewer rows are used for large mixtures, so that the computation takes about a second at most.
    """
    operations = len(choose_orders(n_components, n_features)) * n_components * n_features**2
    return min(max(math.floor(2e9 / operations), 50), 1000)
