"""Columns that consist of tight groups far apart: the scale of their groups. Pure functions.

The standard deviation of such a column describes the distance between the groups. A bound on variances that is relative
to it can be wider than the groups: 0 V and 9,999 V with noise of 0.01 V have a deviation of 5,000 V.
"""

import numpy as np

from monitor.detectors.inputs.checks import FloatArray
from monitor.detectors.inputs.scaling import F64

_N_GAPS = 64
_MIN_RATIO = 1e3
"""Minimum ratio of the distances between groups to those within. Skewed and heavy-tailed columns have no such step."""

_GAPS_PER_DEVIATION = 16
"""A group of half the rows has about 32 gaps; the smallest is 0.08 of its standard deviation."""


def group_variances(columns: FloatArray) -> F64:
    """Return the variance of the tightest group of each column, (D,); infinity for columns that are not such groups.

    Args:
        columns: The rows, (n, D).
    """
    variances = np.full(columns.shape[1], np.inf)
    if len(columns) <= _N_GAPS:
        return variances
    # The extremes are left out: single values far away are not a group.
    edges = np.arange(1, _N_GAPS) * (len(columns) - 1) // _N_GAPS
    for j, column in enumerate(columns.T):
        gaps = np.sort(np.diff(np.sort(column)[edges]))
        gaps = gaps[gaps > 0]
        if len(gaps) < _N_GAPS // 2:
            continue  # mostly repeated values, whose groups have no width
        half = len(gaps) // 2
        if (gaps[half + 1 :] / gaps[half:-1]).max(initial=0.0) >= _MIN_RATIO:
            variances[j] = (_GAPS_PER_DEVIATION * gaps[0]) ** 2
    return variances
