"""The magnitude test: realised over promised false-alarm probability of the largest energy, and its power.

A law is fitted to m energies; the limit at p = 1 / (R m) is compared with the exact survival function. R is the number
of events in four promised periods over m: a head of two days of a slow metric has R 14, a look-back of a day R 28.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import signal, stats

from benchmarks.statistical import table
from monitor.statistics.part import Float64
from monitor.thresholds.tail_law import TailLaw, fit_tail_law, merge_tails

CELLS = ((600, 14), (600, 1_000), (10_000, 28), (10_000, 300))
EVENTS_ABOVE_NATS = (20.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyLaw:
    """A law of energies: its quantile function, survival function and median."""

    name: str
    quantile: Callable[[Float64], Float64]
    survival: Callable[[float], float]

    def draw(self, rng: np.random.Generator, n: int, rho: float) -> Float64:
        """Return n energies; with rho they are those of a Gaussian autoregression of first order."""
        normal = rng.standard_normal(n)
        if rho:
            normal[1:] *= np.sqrt(1 - rho**2)
            normal = signal.lfilter([1.0], [1.0, -rho], normal)
        return self.quantile(stats.norm.sf(normal))


def _gamma(shape: float) -> EnergyLaw:
    law = stats.gamma(shape)
    return EnergyLaw(name=f"gamma {shape:g}", quantile=law.isf, survival=lambda e: float(law.sf(e)))


def _student(degrees: float) -> EnergyLaw:
    """Return the energies of a Gaussian model of one feature that follows Student's law."""
    law = stats.t(degrees)
    return EnergyLaw(
        name=f"Student t{degrees:g}",
        quantile=lambda u: law.isf(u / 2) ** 2 / 2,
        survival=lambda e: float(2 * law.sf(np.sqrt(2 * e))),
    )


def _rare_mode() -> EnergyLaw:
    """Return gamma energies of which 1% lie 10 nats higher."""
    law, grid = stats.gamma(4), np.linspace(0, 120, 400_001)
    survival = 0.99 * law.sf(grid) + 0.01 * law.sf(grid - 10)
    return EnergyLaw(
        name="1% 10 nats higher",
        quantile=lambda u: np.interp(-u, -survival, grid),
        survival=lambda e: float(0.99 * law.sf(e) + 0.01 * law.sf(e - 10)),
    )


def _bounded() -> EnergyLaw:
    law = stats.beta(2, 5, scale=20)
    return EnergyLaw(name="bounded", quantile=law.isf, survival=lambda e: float(law.sf(e)))


LAWS = (_gamma(4), _gamma(0.5), _student(10), _student(5), _rare_mode(), _bounded())


def measure(law: EnergyLaw, m: int, r: int, rho: float, draws: int, seed: int) -> tuple[list[float], list[float]]:
    """Return realised / promised of each draw, and the limit above the median of each draw."""
    rng = np.random.default_rng([seed, m, r, round(10 * rho)])
    p, dispersion = 1 / (r * m), 1.0 if not rho else 5.0
    factors, limits = [], []
    for _ in range(draws):
        energies = law.draw(rng, m, rho).astype(np.float32)
        limit = fit(energies, dispersion).energy_at(p)
        factors.append(law.survival(limit) / p)
        limits.append(limit - float(np.median(energies)))
    return factors, limits


def fit(energies: np.ndarray, dispersion: float) -> TailLaw:
    """Return the tail law of energies."""
    median = float(np.median(energies))
    sample = merge_tails(energies, -np.inf, len(energies), energies[:0], 0.0, (median, 0.0))
    law = fit_tail_law(sample, dispersion=dispersion)
    assert law is not None, "every cell has enough energies"
    return law


def _cells(*, quick: bool) -> Iterator[tuple[int, int, float]]:
    for m, r in CELLS[::2] if quick else CELLS:
        for rho in (0.0,) if quick else (0.0, 0.9):
            yield m, r, rho


def show(*, quick: bool, seed: int) -> None:
    """Print realised / promised of all laws by sample, and the power."""
    draws = 20 if quick else 60
    rows: list[list[object]] = []
    for m, r, rho in _cells(quick=quick):
        means, within, powers = [], [], []
        for law in LAWS:
            factors, limits = measure(law, m, r, rho, draws, seed)
            means.append(float(np.mean(factors)))
            within.append(float(np.mean(np.array(factors) <= 2)))
            powers.append([float(np.mean(np.array(limits) < nats)) for nats in EVENTS_ABOVE_NATS])
        worst = int(np.argmax(means))
        rows.append([m, r, rho, means[worst], LAWS[worst].name, float(np.median(means)), min(within), *powers[0]])
    columns = ("m", "R", "rho", "worst mean", "of the law", "median law", "least share <= 2")
    table.show(
        "MAGNITUDE: realised / promised of the largest energy; power for one event above the median, gamma 4",
        (*columns, *(f"{nats:g} nats" for nats in EVENTS_ABOVE_NATS)),
        rows,
    )
