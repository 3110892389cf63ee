"""The exact law of counts of outliers in a window of autocorrelated events, by dynamic programming.

The energies are a rising function of a Gaussian AR(1) process, so that only its crossings of one level matter. The
state is integrated over Gauss-Legendre nodes on panels that meet at the level, where the integrand jumps.
"""

import numpy as np
from scipy import stats

REACH = 8.5


def counts(n: int, exceedance: float, rho: float, largest: int) -> np.ndarray:
    """Return P(count = 0..largest); the last holds all that is more."""
    if rho == 0:
        law = stats.binom(n, exceedance)
        mass = law.pmf(np.arange(largest + 1))
        mass[-1] = law.sf(largest - 1)
        return mass
    nodes, weights, above = _nodes(float(stats.norm.isf(exceedance)))
    spread = np.sqrt(1 - rho * rho)
    kernel = stats.norm.pdf((nodes[None, :] - rho * nodes[:, None]) / spread) / spread * weights[None, :]
    below_count = int((~above).sum())
    table = np.zeros((largest + 1, len(nodes)))
    start = stats.norm.pdf(nodes) * weights
    table[0, :below_count] = start[:below_count]
    table[1, below_count:] = start[below_count:]
    for _ in range(n - 1):
        moved = table @ kernel
        table[:, :below_count] = moved[:, :below_count]
        table[1:, below_count:] = moved[:-1, below_count:]
        table[0, below_count:] = 0
        table[-1, below_count:] += moved[-1, below_count:]
    return table.sum(axis=1)


def _nodes(level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nodes and weights on panels, and which of them are above the level."""
    panels = [(-REACH, (level - REACH) / 2, 24), ((level - REACH) / 2, level, 40), (level, REACH, 32)]
    nodes, weights = [], []
    for low, high, order in panels:
        x, w = np.polynomial.legendre.leggauss(order)
        nodes.append((high - low) / 2 * x + (high + low) / 2)
        weights.append((high - low) / 2 * w)
    at = np.concatenate(nodes)
    return at, np.concatenate(weights), at > level


class TailTable:
    """log P(count > c) for a window of n events, between exact laws at exceedances around the nominal one."""

    def __init__(self, n: int, nominal: float, rho: float, largest: int, *, points: int) -> None:
        self.n, self.rho, self.largest = n, rho, largest
        self.rates = nominal * np.exp(np.linspace(np.log(0.02), np.log(8), points))
        tails = [counts(n, float(rate), rho, largest)[::-1].cumsum()[::-1] for rate in self.rates]
        self.log_tails = np.log(np.maximum(np.array(tails), 1e-300))

    def beyond(self, count: int, rate: float) -> float:
        """Return P(count of a window > count) at a true exceedance, by interpolation of logarithms."""
        if self.rho == 0:
            return float(stats.binom.sf(count, self.n, rate))
        if count + 1 >= self.largest:
            count = self.largest - 1
        return float(np.exp(np.interp(np.log(rate), np.log(self.rates), self.log_tails[:, count + 1])))
