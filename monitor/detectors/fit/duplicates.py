"""Detection of duplicate rows, which a fit processes only once.

Events of categories, flags and rounded numbers have many duplicates: six of seven rows are duplicates among the
396,743 attacks of KDD Cup 99 (10%). A pass over the distinct rows, with the number of duplicates as weight, has the
same moments.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.inputs.scaling import row_chunks

F64 = NDArray[np.float64]

# With a larger fraction of distinct rows, grouping costs more than the passes save.
MAX_DISTINCT_SHARE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class DistinctRows:
    """Groups of equal rows.

    Attributes:
        first_index: The first row of each group.
        order: The indices of all rows, sorted by group.
        group_starts: The position in `order` at which each group begins.
    """

    first_index: NDArray[np.int64]
    order: NDArray[np.int64]
    group_starts: NDArray[np.int64]

    def sum_weights(self, weights: F64) -> F64:
        """Return the total weight of each group."""
        total: F64 = np.add.reduceat(weights[self.order], self.group_starts)
        return total


def group_duplicates(values: FloatArray, max_distinct_share: float = MAX_DISTINCT_SHARE) -> DistinctRows | None:
    """Group equal rows; None if the fraction of distinct rows is above `max_distinct_share`."""
    n = len(values)
    if n < 2:
        return None
    hashes = _row_hashes(values)
    order = np.argsort(hashes, kind="stable")
    sorted_hashes = hashes[order]
    is_first = np.ones(n, dtype=bool)
    np.not_equal(sorted_hashes[1:], sorted_hashes[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    if len(starts) > max_distinct_share * n:
        return None
    representative = order[starts][np.cumsum(is_first) - 1]
    for part in row_chunks(n, values.shape[1]):
        if not np.array_equal(values[order[part]], values[representative[part]]):
            return None  # hash collision: once in about 10^9 fits of 10^5 rows
    return DistinctRows(first_index=order[starts], order=order, group_starts=starts)


def _row_hashes(values: FloatArray) -> NDArray[np.uint64]:
    """Return a hash of each row: the sum of its 32-bit words times fixed odd numbers, modulo 2^64.

    The words of whole numbers have zeros in their lower halves, which a product preserves. Therefore the upper half
    is mixed into the lower half.
    """
    words = values.shape[1] * values.itemsize // 4
    factors = np.random.default_rng(0).integers(0, 1 << 63, words, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.empty(len(values), dtype=np.uint64)
    for part in row_chunks(len(values), values.shape[1]):
        bits = np.ascontiguousarray(values[part]).view(np.uint32)
        hashes[part] = ((bits ^ (bits >> np.uint32(16))) * factors).sum(axis=1, dtype=np.uint64)
    return hashes
