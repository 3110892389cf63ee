"""Features that move together: they are shown on one line, with the sum of their contributions. Pure functions."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

F64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_MIN_CORRELATION = 0.8


def find_lines(lower: F64) -> Int64:
    """Return the line of each feature within each component, (K, D): the smallest index of the features on it.

    Two features whose correlation within the component exceeds 0.8, in absolute value, are on one line. The
    contributions of two near copies are large, of opposite sign, and only their sum has a meaning. The correlation over
    all components does not count: it also joins features that only have their modes in common.

    Args:
        lower: The lower Cholesky factors of the covariances, (K, D, D).
    """
    rows = lower / np.sqrt(np.square(lower).sum(axis=2, keepdims=True))
    lines = np.empty(lower.shape[:2], dtype=np.int64)
    for component, unit in enumerate(rows):
        _, labels = connected_components(np.abs(unit @ unit.T) > _MIN_CORRELATION, directed=False)
        first = np.unique(labels, return_index=True)[1]
        lines[component] = first[labels]
    return lines
