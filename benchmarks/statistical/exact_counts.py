"""Exact distribution of the number of outliers in a window of autocorrelated events, by dynamic programming.

The energies are an increasing function of a Gaussian AR(1) process, so that only its exceedances of one level matter.
The state is integrated over Gauss-Legendre nodes on panels that meet at the level, where the integrand is
discontinuous.
"""

import numpy as np
from scipy import stats

REACH = 8.5


def counts(n: int, exceedance: float, rho: float, largest: int) -> np.ndarray:
    """Return P(count = 0..largest), (largest + 1,); the last entry includes all larger counts."""
    if rho == 0:
        binomial = stats.binom(n, exceedance)
        mass = binomial.pmf(np.arange(largest + 1))
        mass[-1] = binomial.sf(largest - 1)
        return mass
    nodes, weights, is_above = _nodes(float(stats.norm.isf(exceedance)))
    deviation = np.sqrt(1 - rho * rho)
    kernel = stats.norm.pdf((nodes[None, :] - rho * nodes[:, None]) / deviation) / deviation * weights[None, :]
    below_count = int((~is_above).sum())
    table = np.zeros((largest + 1, len(nodes)))
    stationary = stats.norm.pdf(nodes) * weights
    table[0, :below_count] = stationary[:below_count]
    table[1, below_count:] = stationary[below_count:]
    for _ in range(n - 1):
        propagated = table @ kernel
        table[:, :below_count] = propagated[:, :below_count]
        table[1:, below_count:] = propagated[:-1, below_count:]
        table[0, below_count:] = 0
        table[-1, below_count:] += propagated[-1, below_count:]
    return table.sum(axis=1)


def _nodes(level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nodes and weights on panels, and a mask of the nodes above the level."""
    panels = [(-REACH, (level - REACH) / 2, 24), ((level - REACH) / 2, level, 40), (level, REACH, 32)]
    nodes, weights = [], []
    for low, high, order in panels:
        x, w = np.polynomial.legendre.leggauss(order)
        nodes.append((high - low) / 2 * x + (high + low) / 2)
        weights.append((high - low) / 2 * w)
    all_nodes = np.concatenate(nodes)
    return all_nodes, np.concatenate(weights), all_nodes > level


class TailTable:
    """log P(count > c) of a window with n events, interpolated between exact distributions."""

    def __init__(self, n: int, nominal: float, rho: float, largest: int, *, points: int) -> None:
        self.n, self.rho, self.largest = n, rho, largest
        self.rates = nominal * np.exp(np.linspace(np.log(0.02), np.log(8), points))
        tails = [counts(n, float(rate), rho, largest)[::-1].cumsum()[::-1] for rate in self.rates]
        self.log_tails = np.log(np.maximum(np.array(tails), 1e-300))

    def beyond(self, count: int, rate: float) -> float:
        """Return P(count of a window > count) at an exceedance, by interpolation of logarithms."""
        if self.rho == 0:
            return float(stats.binom.sf(count, self.n, rate))
        if count + 1 >= self.largest:
            count = self.largest - 1
        return float(np.exp(np.interp(np.log(rate), np.log(self.rates), self.log_tails[:, count + 1])))
