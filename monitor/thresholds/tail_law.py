"""The tail law: p-values of single energies, beyond the observed ones too. Pure functions.

A single event is significant under a false-alarm budget only at p-values near one in a million, where no look-back has
an order statistic. The tail of the energies is therefore extrapolated. Energies are quadratic forms of the features: on
the square root of their distance from the median, the tails of many laws have shapes between -0.2 and 0.2, so that a
prior of the shape holds. A most likely fit of few peaks is wrong by factors of hundreds.

    s = sqrt(energy - median),  y = s - level,   level: the k-th largest s of the sample of m energies
    P(Y > y | shape, scale) = (1 + shape y / scale)^(-1 / shape)             generalised Pareto law (Pickands 1975)
    prior                   = N(0.1, 0.15) of the shape within +-0.5, flat in ln(scale)
    posterior               ~ prior x likelihood^(1 / sqrt(D))               D: dispersion of the outlier counts
    S(energy)               = k / m x mean over the posterior of P(Y > y | shape, scale)

The exponent accounts for dependent energies: without it the law is too narrow, with D in place of its root too wide.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np

from monitor.statistics.part import Float32, Float64

MIN_ENERGIES = 500
"""Minimum number of energies for a tail law."""

MIN_PEAKS = 100
MAX_PEAKS = 2_000
PEAK_SHARE = 0.02
MAX_PEAK_SHARE = 0.2
"""The peaks are the 2% largest energies, at least 100 and at most 2,000, and never more than a fifth of all."""

EXCESSES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 25, 32, 40, 50, 70, 100, 200, 500, 1e4])
"""Excesses, in units of their mean, at which the law is stored. ln S is linear between two of them.

It is a convex function, so that an interpolated p-value is never too small.
"""

_SHAPES = np.linspace(-0.5, 0.5, 41)
_LOG_SCALES = np.linspace(-1.4, 1.4, 49)
_PRIOR_MEAN, _PRIOR_DEVIATION = 0.1, 0.15
_EXPONENTIAL_SHAPE = 1e-9
_EXACT_PEAKS, _GROUPS = 100, 100
_DECIMALS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class TailLaw:
    """The law of the largest energies.

    Attributes:
        n: Number m of energies that the law was computed from, those of the reference weighted.
        peaks: Number k of energies above the level, weighted likewise.
        median: Energy in nats from which distances are measured.
        level: Root of the distance of the k-th largest energy.
        unit: Mean excess over the level.
        log_survival: ln S at the level plus each of `EXCESSES` in units, descending.
    """

    n: float
    peaks: float
    median: float
    level: float
    unit: float
    log_survival: tuple[float, ...]

    @property
    def level_energy(self) -> float:
        """Return the energy of the level: the law holds above it."""
        return self.median + self.level**2

    def p_value(self, energy: float) -> float:
        """Return the probability that the energy of a clean event is larger; below the level, that of the level."""
        excess = (float(np.sqrt(max(energy - self.median, 0.0))) - self.level) / self.unit
        return float(np.exp(np.interp(excess, EXCESSES, self.log_survival)))

    def energy_at(self, p: float) -> float:
        """Return the smallest energy with a p-value of at most `p`; infinity if the law does not reach so far."""
        log_p = float(np.log(p)) if p > 0 else -np.inf
        if log_p < self.log_survival[-1]:
            return float("inf")
        excess = float(np.interp(-log_p, -np.array(self.log_survival), EXCESSES))
        return self.median + (self.level + self.unit * excess) ** 2

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that is stored with a threshold."""
        return {
            "m": self.n,
            "k": self.peaks,
            "median": self.median,
            "level": self.level,
            "unit": self.unit,
            "ln_s": list(self.log_survival),
        }

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "TailLaw":
        """Return the law of a JSON object."""
        return TailLaw(
            n=stored["m"],
            peaks=stored["k"],
            median=stored["median"],
            level=stored["level"],
            unit=stored["unit"],
            log_survival=tuple(stored["ln_s"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TailSample:
    """The largest energies of a sample: `energies` in descending order, each of which stands for `counts` energies.

    `total` is the number of all energies, and `median` their median in nats.
    """

    energies: Float64
    counts: Float64
    total: float
    median: float


def merge_tails(
    top: Float32, complete_above: float, n: int, reference: Float32, weight: float, medians: tuple[float, float]
) -> TailSample:
    """Return the sample of live energies, and of reference energies that count `weight` each.

    Args:
        top: The largest live energies, in any order.
        complete_above: The energy above which `top` has all live energies.
        n: Number of all live energies.
        reference: The reference energies, ascending.
        weight: Number of live energies that a reference energy counts as, 0 to 1.
        medians: Medians of the live and of the reference energies.
    """
    live = top[top.astype(np.float64) > complete_above].astype(np.float64)
    m = len(reference) if weight > 0 else 0
    largest = reference[np.searchsorted(reference.astype(np.float64), complete_above, side="right") :] if m else top[:0]
    energies = np.concatenate([live, largest.astype(np.float64)])
    counts = np.repeat([1.0, weight], [len(live), len(largest)])
    order = np.lexsort((counts, -energies))
    total = n + weight * m
    return TailSample(
        energies=energies[order],
        counts=counts[order],
        total=total,
        median=(n * medians[0] + weight * m * medians[1]) / total if total else 0.0,
    )


def fit_tail_law(sample: TailSample, *, dispersion: float) -> TailLaw | None:
    """Return the tail law of a sample. None with fewer than 500 energies, or with too few of them listed.

    Args:
        sample: The largest energies.
        dispersion: Dispersion of the outlier counts, at least 1.
    """
    if sample.total < MIN_ENERGIES:
        return None
    wanted = min(max(MIN_PEAKS, PEAK_SHARE * sample.total), MAX_PEAKS, MAX_PEAK_SHARE * sample.total)
    from_above = np.cumsum(sample.counts)
    k = min(int(np.searchsorted(from_above, wanted)) + 1, len(from_above) - 1)
    if k < 1 or from_above[k - 1] < MIN_PEAKS / 2:
        return None
    peaks = float(from_above[k - 1])
    roots = np.sqrt(np.maximum(sample.energies[: k + 1] - sample.median, 0.0))
    level = float(roots[k])
    excesses, counts = _group(roots[:k] - level, sample.counts[:k])
    unit = fsum((counts * excesses).tolist()) / peaks
    unit = max(unit, float(np.finfo(np.float32).eps) * max(level, 1.0))
    survival = predict_survival(excesses / unit, counts, dispersion)
    log_survival = np.minimum.accumulate(np.round(np.log(peaks / sample.total * survival), _DECIMALS))
    return TailLaw(
        n=sample.total,
        peaks=peaks,
        median=sample.median,
        level=level,
        unit=unit,
        log_survival=tuple(log_survival.tolist()),
    )


def _group(excesses: Float64, counts: Float64) -> tuple[Float64, Float64]:
    """Return the largest 100 excesses, and the others in at most 100 groups of neighbours as their means.

    The likelihood of a group is nearly that of its members, and its time does not grow with the number of peaks.
    """
    if len(excesses) <= _EXACT_PEAKS + _GROUPS:
        return excesses, counts
    edges = np.linspace(_EXACT_PEAKS, len(excesses), _GROUPS + 1).astype(np.int64)[:-1]
    group_counts = np.add.reduceat(counts, edges)
    means = np.add.reduceat(counts * excesses, edges) / group_counts
    return np.concatenate([excesses[:_EXACT_PEAKS], means]), np.concatenate([counts[:_EXACT_PEAKS], group_counts])


def predict_survival(excesses: Float64, counts: Float64, dispersion: float) -> Float64:
    """Return the posterior mean of the survival at `EXCESSES`, for excesses in units of their mean."""
    scales = np.exp(_LOG_SCALES)
    scaled, at = excesses / scales[:, None], EXCESSES / scales[:, None]
    total = float(counts.sum())
    log_likelihood = np.full((len(_SHAPES), len(scales)), -np.inf)
    survival = np.empty((len(_SHAPES), len(scales), len(EXCESSES)))
    for i, shape in enumerate(_SHAPES.tolist()):
        if abs(shape) < _EXPONENTIAL_SHAPE:
            log_likelihood[i] = -(scaled @ counts) - total * _LOG_SCALES
            survival[i] = np.exp(-at)
            continue
        inner = 1 + shape * scaled
        possible = inner[:, 0] > 0 if shape < 0 else np.ones(len(scales), np.bool_)
        bent = np.log(inner[possible]) @ counts
        log_likelihood[i, possible] = -(1 + 1 / shape) * bent - total * _LOG_SCALES[possible]
        survival[i] = np.maximum(1 + shape * at, 0.0) ** (-1 / shape)
    weights = np.exp((log_likelihood - log_likelihood.max()) / np.sqrt(dispersion))
    weights *= np.exp(-0.5 * ((_SHAPES - _PRIOR_MEAN) / _PRIOR_DEVIATION) ** 2)[:, None]
    return np.asarray((weights[:, :, None] * survival).sum(axis=(0, 1)) / weights.sum())
