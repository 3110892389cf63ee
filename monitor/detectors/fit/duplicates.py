"""Detectors: rows that repeat, which a fit need not look at twice.

Events of categories, flags and rounded numbers repeat: of the 396,743 attacks in KDD Cup 99 (10%) six of seven rows
equal another. A pass over each row once, with the number of its equals for its weight, finds the same moments.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.inputs.scaling import row_chunks

F64 = NDArray[np.float64]

# With a greater share of distinct rows, folding costs more than the passes save.
MAX_DISTINCT_SHARE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class DistinctRows:
    """Where each distinct row comes first, and the rows in groups of equals."""

    first_index: NDArray[np.int64]
    order: NDArray[np.int64]
    group_starts: NDArray[np.int64]

    def sum_weights(self, weights: F64) -> F64:
        """Return the weight of each group."""
        total: F64 = np.add.reduceat(weights[self.order], self.group_starts)
        return total


def group_duplicates(values: FloatArray, most: float = MAX_DISTINCT_SHARE) -> DistinctRows | None:
    """Return the distinct rows; None where they are more than a share of `most` of all rows."""
    n = len(values)
    if n < 2:
        return None
    keys = _row_hashes(values)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = np.ones(n, dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    if len(starts) > most * n:
        return None
    leader = order[starts][np.cumsum(new) - 1]
    for part in row_chunks(n, values.shape[1]):
        if not np.array_equal(values[order[part]], values[leader[part]]):
            return None  # two different rows have one key: once in about 10^9 fits of 10^5 rows
    return DistinctRows(first_index=order[starts], order=order, group_starts=starts)


def _row_hashes(values: FloatArray) -> NDArray[np.uint64]:
    """Return a number for each row, the same for equal rows: its words times fixed odd numbers, modulo 2^64.

    Whole numbers have only zeros in the lower half of a word, which a product would keep: the upper half is
    mixed in.
    """
    words = values.shape[1] * values.itemsize // 4
    factors = np.random.default_rng(0).integers(0, 1 << 63, words, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    keys = np.empty(len(values), dtype=np.uint64)
    for part in row_chunks(len(values), values.shape[1]):
        bits = np.ascontiguousarray(values[part]).view(np.uint32)
        keys[part] = ((bits ^ (bits >> np.uint32(16))) * factors).sum(axis=1, dtype=np.uint64)
    return keys
