"""Expected values of the features on one line, given the features outside of the line, under a mixture. Pure functions.

Given the other features x_R, the features x_S of component k are Gaussian with mean mu_S + L_SR L_RR^-1 (x_R - mu_R)
and Cholesky factor L_SS, where L is the factor of the covariance with R before S. The responsibilities given x_R use
x_R alone. Two near copies of a quantity predict each other in any event, therefore features on one line are not
expected from each other.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from monitor.detectors.explain.attribution import MAX_EXPECTED, ConditionalValues, compare_with_others, log_joint
from monitor.detectors.explain.prefixes import PrefixFactors, factorise_in_order
from monitor.detectors.score.factors import LOG_2PI
from monitor.detectors.score.threads import single_blas_thread

F64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def compare_with_other_lines(x: F64, line: Int64, factors: PrefixFactors) -> ConditionalValues:
    """Compare each value of the events with the value that the features outside of its line lead to.

    Args:
        x: Events (n, D).
        line: The line of each feature of each event, (n, D): the smallest index of the features on it.
        factors: The factors of the mixture.
    """
    result = compare_with_others(x, factors.weights, factors.means, factors.inverse)
    for members, rows in _group_lines(line):
        own = x[rows]
        logs, centres, deviations = _condition_on_others(own, members, factors)
        with np.errstate(over="ignore", under="ignore"):
            responsibilities = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
        order = np.argsort(-responsibilities, axis=1, kind="stable")[:, :MAX_EXPECTED]
        at = np.arange(len(own))
        first = order[:, 0]
        expected = centres[at, first]
        result.z[np.ix_(rows, members)] = (own[:, members] - expected) / deviations[first]
        result.expected[np.ix_(rows, members)] = expected
        result.cost[np.ix_(rows, members)] = _saved_energies(own, members, expected, factors)
        for position in range(order.shape[1]):
            component = order[:, position]
            shares = np.broadcast_to(responsibilities[at, component][:, None], expected.shape)
            place = (rows[:, None], members[None], position)
            result.modes[place] = centres[at, component]
            result.mode_deviations[place] = deviations[component]
            result.mode_shares[place] = shares
    return result


def _group_lines(line: Int64) -> Iterator[tuple[Int64, Int64]]:
    """Yield the features of each line with several of them, and the events that have this line."""
    partitions, index = np.unique(line, axis=0, return_inverse=True)
    rows_by_members: dict[tuple[int, ...], list[Int64]] = {}
    for number, partition in enumerate(partitions):
        rows = np.flatnonzero(index.ravel() == number)
        for first in np.flatnonzero(np.bincount(partition) > 1):
            members = tuple(np.flatnonzero(partition == first).tolist())
            rows_by_members.setdefault(members, []).append(rows)
    for members, parts in rows_by_members.items():
        yield np.array(members, np.int64), np.sort(np.concatenate(parts))


def _condition_on_others(x: F64, members: Int64, factors: PrefixFactors) -> tuple[F64, F64, F64]:
    """Return the log joint of the other features and each component, (n, K), and the conditional distributions.

    The conditional means are (n, K, S), the conditional deviations (K, S), for the S members.
    """
    others = np.setdiff1d(np.arange(x.shape[1]), members)
    r = len(others)
    order = np.concatenate([others, members])[None]
    logs = np.empty((len(x), len(factors.means)))
    centres = np.empty((len(x), len(factors.means), len(members)))
    deviations = np.empty((len(factors.means), len(members)))
    for k, mean in enumerate(factors.means):
        lower = factorise_in_order(factors.lower[k], order)[0]
        with single_blas_thread, np.errstate(divide="ignore"):
            whitened = (
                solve_triangular(lower[:r, :r], (x[:, others] - mean[others]).T, lower=True).T
                if r
                else np.empty((len(x), 0))
            )
            logs[:, k] = (
                np.log(factors.weights[k])
                - 0.5 * (np.square(whitened).sum(axis=1) + r * LOG_2PI)
                - np.log(np.diagonal(lower)[:r]).sum()
            )
            centres[:, k] = mean[members] + whitened @ lower[r:, :r].T
        deviations[k] = np.sqrt(np.square(lower[r:, r:]).sum(axis=1))
    return logs, centres, deviations


def _saved_energies(x: F64, members: Int64, expected: F64, factors: PrefixFactors) -> F64:
    """Return the decrease in energy when one member alone has its expected value, (n, S)."""
    full = logsumexp(log_joint(x, factors.weights, factors.means, factors.inverse), axis=1)
    saved = np.empty(expected.shape)
    for at, member in enumerate(members):
        replaced = x.copy()
        replaced[:, member] = expected[:, at]
        saved[:, at] = logsumexp(log_joint(replaced, factors.weights, factors.means, factors.inverse), axis=1) - full
    return saved
