"""The range of outlier counts that clean windows have: a band for charts. Pure functions."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from monitor.statistics.counts import POISSON_BELOW

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BAND = (0.05, 0.95)
"""The quantiles of the expected band."""


def count_quantile(means: Floats, ratios: Floats, level: float) -> Counts:
    """Return the smallest count that a clean window does not exceed with probability `level`, for each window.

    The counts are negative binomial, or Poisson where the variance ratio is 1, as in `monitor.statistics.counts`. With
    the sum of the means and the ratio for the sum of the events, it is the quantile of several windows together.

    Args:
        means: Mean number of outliers of a clean window, (n,).
        ratios: Variance over mean, (n,), at least 1.
        level: A probability between 0 and 1.
    """
    low = np.full(len(means), -1, np.int64)
    high = np.ceil(means + 12 * np.sqrt(np.maximum(means * ratios, 1.0)) + 12 * ratios).astype(np.int64)
    while (open_ := high - low > 1).any():
        middle = (low + high) // 2
        enough = _survival(middle, means, ratios) <= 1 - level
        high = np.where(open_ & enough, middle, high)
        low = np.where(open_ & ~enough, middle, low)
    counts: Counts = high
    return counts


def _survival(counts: Counts, means: Floats, ratios: Floats) -> Floats:
    """Return the probability of more than `counts` outliers, (n,)."""
    excess = ratios - 1
    poisson = excess < POISSON_BELOW
    safe = np.where(poisson, 1.0, excess)
    size = np.maximum(means, 1e-12)
    negative_binomial = special.betainc(counts + 1.0, size / safe, 1 - 1 / (1 + safe))
    return np.asarray(np.where(poisson, special.gammainc(counts + 1.0, size), negative_binomial), np.float64)
