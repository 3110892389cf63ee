"""Mean, median and usual range of a feature in a horizon, in its own unit, from the sums of the drift test. Pure.

The windows hold the mean rank of a feature among its training values and the mean squared distance of the rank from the
middle. The ranks of the horizon are taken to have the beta distribution with these two moments. For the training values
it is uniform, and the summary is that of the training profile. Quantiles beyond the outermost training quantiles, the
first and the last 64th, are not known: they are marked as exceeded.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from monitor.statistics.training_profile import N_BINS, Floats, value_at_rank

Float64 = NDArray[np.float64]

_MIN_VARIANCE = 1e-6
_MAX_VARIANCE_SHARE = 0.95
_RANKS = {"low": 0.05, "median": 0.5, "high": 0.95}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSummary:
    """Values of a feature in a horizon, in its unit.

    `low` and `high` are the 5% and the 95% quantile. `mean` is None for the energy. `exceeded` names the quantiles that
    lie beyond the outermost training quantiles, of which the value is given instead.
    """

    mean: float | None
    median: float
    low: float
    high: float
    exceeded: tuple[str, ...]


def summarise_ranks(mean_rank: float, squared_distance: float, edges: Floats, centre: float | None) -> ValueSummary:
    """Return the summary of the values with these rank moments.

    Args:
        mean_rank: Mean rank among the training values, 0 to 1.
        squared_distance: Mean squared distance of the rank from the middle.
        edges: The 63 training quantiles of the feature, ascending.
        centre: The training mean, which the mean starts from; None for a quantity without one.
    """
    a, b = _beta_parameters(mean_rank, squared_distance)
    ranks = {name: float(special.betaincinv(a, b, rank)) for name, rank in _RANKS.items()}
    quantiles = {name: value_at_rank(rank, edges) for name, rank in ranks.items()}
    return ValueSummary(
        mean=None if centre is None else centre + _mean_shift(a, b, edges),
        **quantiles,
        exceeded=tuple(name for name, rank in ranks.items() if not 1 <= rank * N_BINS <= N_BINS - 1),
    )


def _beta_parameters(mean_rank: float, squared_distance: float) -> tuple[float, float]:
    """Return the parameters of the beta distribution with these moments."""
    mean = min(max(mean_rank, 1e-3), 1 - 1e-3)
    largest = mean * (1 - mean)
    variance = min(max(squared_distance - (mean - 0.5) ** 2, _MIN_VARIANCE), _MAX_VARIANCE_SHARE * largest)
    size = largest / variance - 1
    return mean * size, (1 - mean) * size


def _mean_shift(a: float, b: float, edges: Floats) -> float:
    """Return the mean of the training values with beta distributed ranks, less that with uniform ranks."""
    values = edges.astype(np.float64)
    middles = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])
    shares = np.diff(special.betainc(a, b, np.arange(N_BINS + 1) / N_BINS))
    return float((shares - 1 / N_BINS) @ middles)
