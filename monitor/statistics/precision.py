"""The choice between float32 and float64 for the features of a model. Pure functions.

float32 has 24 significant bits. A column of 1e9 + N(0, 1) is constant in it, and the difference of two columns of
1e6 whose difference varies by 0.001 is noise. Most columns lose nothing: their rounding errors are far below the
distances between events, and float32 rows are scored at twice the speed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_ROWS = 10_000
_MAX_CELLS = 1 << 22
"""Maximum number of values of the sample, so that the choice takes less than a second for wide events."""

_N_GAPS = 64
"""Number of quantile distances of a column. A Gaussian has distances of at least 0.04 standard deviations."""

_MAX_ROUNDING = 0.05
"""Maximum rounding error as a share of the distance between neighbouring quantiles: 0.2% of a Gaussian's deviation."""

_RIDGE = 1e-6
"""Ridge of the correlation matrix. Mixtures add one of the same size to their covariances."""

_MAX_JOINT_ROUNDING = 0.01
"""Maximum rounding error of an event in standard deviations, given the linear relations of its columns."""

_MAX_JOINT_COLUMNS = 512
"""Maximum number of columns for the test of their relations, which takes time in proportion to its cube."""

F64 = NDArray[np.float64]


def needs_float64(rows: NDArray[np.floating[Any]]) -> bool:
    """Return True if rounding to float32 would hide differences between events, (n, D).

    A column needs float64 when the rounding errors of its values are not small in comparison with the distances between
    them, anywhere in the column: two tight groups far apart count too. Columns together need it when the rounding
    errors are not small in comparison with the deviation of an event from their linear relations. Repeated values and
    values that float32 represents have no rounding error. NaN is ignored.
    """
    if rows.dtype == np.float32 or not len(rows):
        return False
    sample = _sample(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        rounding = np.abs(sample - sample.astype(np.float32))
    if not np.nansum(rounding) > 0:
        return False
    if any(_hides_gaps(column, errors) for column, errors in zip(sample.T, rounding.T, strict=True)):
        return True
    return _hides_relations(sample, rounding)


def _sample(rows: NDArray[np.floating[Any]]) -> F64:
    """Return at most `_MAX_ROWS` evenly spaced rows in float64."""
    most = min(_MAX_ROWS, max(_MAX_CELLS // rows.shape[1], 1_000))
    index = np.arange(len(rows)) if len(rows) <= most else np.linspace(0, len(rows) - 1, most).astype(np.int64)
    return rows[index].astype(np.float64)


def _hides_gaps(column: F64, rounding: F64) -> bool:
    """Return True if rounding errors are not small in comparison with the distances between neighbouring quantiles."""
    present = np.flatnonzero(~np.isnan(column))
    if len(present) < 2:
        return False
    order = present[np.argsort(column[present])]
    edges = np.unique(np.arange(_N_GAPS + 1) * (len(order) - 1) // _N_GAPS)
    gaps = np.diff(column[order[edges]])
    largest = np.maximum.reduceat(rounding[order], edges[:-1])
    return bool((largest > _MAX_ROUNDING * gaps)[gaps > 0].any())


def _hides_relations(sample: F64, rounding: F64) -> bool:
    """Return True if rounding errors are not small in comparison with deviations from the columns' linear relations."""
    complete = ~np.isnan(sample).any(axis=1)
    rows, errors = sample[complete], rounding[complete]
    d = rows.shape[1]
    if not 2 <= d <= _MAX_JOINT_COLUMNS or len(rows) <= d:
        return False
    deviation = rows.std(axis=0)
    varying = np.ptp(rows, axis=0) > 0
    standardised = (rows[:, varying] - rows[:, varying].mean(axis=0)) / deviation[varying]
    correlation = standardised.T @ standardised / len(rows) + _RIDGE * np.eye(int(varying.sum()))
    if not np.isfinite(correlation).all():
        return False
    # The errors of the columns are independent of each other: their variances add up.
    precision = np.linalg.inv(correlation).diagonal()
    typical = np.square(errors[:, varying] / deviation[varying]).mean(axis=0)
    return bool(typical @ precision > _MAX_JOINT_ROUNDING**2)
