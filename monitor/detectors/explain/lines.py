"""Features that move together: they are shown on one line, with the sum of their contributions. Pure functions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import logsumexp

from monitor.detectors.explain.prefixes import PrefixFactors
from monitor.detectors.score.factors import LOG_2PI

F64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_MIN_CORRELATION = 0.8
_MAX_PAIRED = 8
_MIN_PAIR_SHARE = 0.1
_MIN_INTERACTION = 1.5
_CHUNK_ROWS = 64


def find_lines(lower: F64, fields: Sequence[str] | None = None) -> Int64:
    """Return the line of each feature within each component, (K, D): the smallest index of the features on it.

    Two features whose correlation within the component exceeds 0.8, in absolute value, are on one line. The
    contributions of two near copies are large, of opposite sign, and only their sum has a meaning. The correlation over
    all components does not count: it also joins features that only have their modes in common. The features that are
    derived from one field are always on one line.

    Args:
        lower: The lower Cholesky factors of the covariances, (K, D, D).
        fields: The field that each feature is or is derived from. None if each feature is a field.
    """
    rows = lower / np.sqrt(np.square(lower).sum(axis=2, keepdims=True))
    same_field = _share_fields(fields, lower.shape[1])
    lines = np.empty(lower.shape[:2], dtype=np.int64)
    for component, unit in enumerate(rows):
        lines[component] = _number_lines((np.abs(unit @ unit.T) > _MIN_CORRELATION) | same_field)
    return lines


def lines_of_fields(fields: Sequence[str], n: int) -> Int64:
    """Return the lines of n events whose features are joined by their field alone, (n, D)."""
    numbers = _number_lines(_share_fields(fields, len(fields)))
    return np.broadcast_to(numbers, (n, len(numbers)))


def join_unusual_pairs(x: F64, line: Int64, contribution: F64, factors: PrefixFactors) -> Int64:
    """Return the lines with those joined whose features are strange together and not alone, (n, D).

    Between two modes each value may be usual and the pair strange. The contributions then halve one cause. Two features
    are joined if the energy of the pair above the energies of the two alone is at least 1.5 times the contribution
    of each of them (it is twice the contribution if no value is strange alone), and each has a tenth of the excess
    energy. Only the eight largest contributions are compared.

    Args:
        x: Events (n, D).
        line: Their lines by correlation, (n, D).
        contribution: Their contributions in comparison with a typical event, (n, D).
        factors: The factors of the mixture.
    """
    d = x.shape[1]
    joined = np.array(line)
    if d < 2 or len(factors.means) < 1:
        return joined
    chosen = np.argsort(-contribution, axis=1, kind="stable")[:, :_MAX_PAIRED]
    largest = np.take_along_axis(contribution, chosen, axis=1)
    enough = largest >= _MIN_PAIR_SHARE * np.maximum(contribution.sum(axis=1, keepdims=True), 0.0)
    candidates = np.flatnonzero((enough & (largest > 0)).sum(axis=1) > 1)
    for at in range(0, len(candidates), _CHUNK_ROWS):
        rows = candidates[at : at + _CHUNK_ROWS]
        interaction = _pair_energies(np.take_along_axis(x[rows], chosen[rows], axis=1), chosen[rows], factors)
        pair_contribution = np.maximum(largest[rows][:, :, None], largest[rows][:, None, :])
        both = enough[rows][:, :, None] & enough[rows][:, None, :] & (largest[rows] > 0)[:, :, None]
        strange = both & np.swapaxes(both, 1, 2) & (interaction >= _MIN_INTERACTION * pair_contribution)
        for row in np.flatnonzero(strange.any(axis=(1, 2))):
            linked = joined[rows[row]][:, None] == joined[rows[row]][None]
            first, second = np.nonzero(strange[row])
            linked[chosen[rows[row]][first], chosen[rows[row]][second]] = True
            joined[rows[row]] = _number_lines(linked)
    return joined


def _pair_energies(values: F64, features: Int64, factors: PrefixFactors) -> F64:
    """Return the energy of each pair of features above the sum of the energies of the two alone, (n, M, M), in nats.

    Args:
        values: The values of M features of each event, (n, M).
        features: The indices of these features, (n, M).
        factors: The factors of the mixture.
    """
    n, m = values.shape
    alone = np.empty((len(factors.means), n, m))
    pairs = np.empty((len(factors.means), n, m, m))
    with np.errstate(divide="ignore", over="ignore"):
        for k, lower in enumerate(factors.lower):
            rows = lower[features]
            variances = np.square(rows).sum(axis=2)
            deviations = np.sqrt(variances)
            unit = rows / deviations[..., None]
            correlation = np.clip(unit @ np.swapaxes(unit, 1, 2), -1.0, 1.0)
            z = (values - factors.means[k][features]) / deviations
            log_scale = np.log(deviations)
            log_weight = np.log(factors.weights[k])
            alone[k] = log_weight - 0.5 * (np.square(z) + LOG_2PI) - log_scale
            remaining = np.maximum(1 - np.square(correlation), np.finfo(np.float64).eps)
            first, second = z[:, :, None], z[:, None, :]
            squared = np.square(first) + np.square(second - correlation * first) / remaining
            pairs[k] = (
                log_weight
                - 0.5 * (squared + 2 * LOG_2PI + np.log(remaining))
                - log_scale[:, :, None]
                - log_scale[:, None, :]
            )
    single = -logsumexp(alone, axis=0)
    interaction: F64 = -logsumexp(pairs, axis=0) - single[:, :, None] - single[:, None, :]
    interaction[:, np.arange(m), np.arange(m)] = -np.inf
    return interaction


def _share_fields(fields: Sequence[str] | None, d: int) -> Bool:
    """Return whether two features come from one field, (D, D)."""
    if fields is None:
        return np.eye(d, dtype=np.bool_)
    names = np.array(fields, dtype=object)
    return np.asarray(names[:, None] == names[None], dtype=np.bool_)


def _number_lines(linked: Bool) -> Int64:
    """Return the smallest index of the features that are linked with each feature, (D,)."""
    _, labels = connected_components(linked, directed=False)
    first = np.unique(labels, return_index=True)[1].astype(np.int64)
    return np.asarray(first[labels], dtype=np.int64)
