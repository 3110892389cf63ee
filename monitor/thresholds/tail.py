"""The tail of energies beyond the observed ones: a generalised Pareto distribution of the largest energies.

Pure functions.

Peaks over threshold (Pickands 1975; Coles, "An Introduction to Statistical Modeling of Extreme Values", chapter 4):
above a high level the excesses follow P(Y > y) = (1 + shape y / scale)^(-1 / shape), for any distribution of all
energies. This extrapolates beyond the largest energy. Within the observed range an order statistic needs no such
assumption and is better.

The peaks are not declustered: the threshold is a percentile of events and not of clusters, and clusters do not bias a
percentile. Clustered events carry less information than single events, so that the interval divides the log-likelihood
by the dispersion.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from monitor.statistics.part import Float64

MIN_PEAKS = 100
MAX_PEAKS = 2_000
PEAK_SHARE = 0.02
MAX_PEAK_SHARE = 0.1
"""The 2% largest energies are the tail: at least 100, at most 2,000, and never more than a tenth of all."""

MAX_SHAPE = 0.5
"""Shapes lie between -0.5 and 0.5.

Below -0.5 maximum likelihood is not regular; above 0.5 the variance is infinite. Energies of Gaussian bodies have shape
0, those of Student t with v degrees of freedom 2 / v. Without the bound, a few outliers among the peaks would give a
shape of 1 and more, and a threshold far above all energies.
"""

_EXPONENTIAL_SHAPE = 1e-9
_BISECTIONS = 26
_REFINEMENTS = 5
_PROFILE_WIDTH = 4.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParetoTail:
    """The distribution of the energies above `level`.

    `share` of all `n` energies lie above it. `excesses` are their distances from it.
    """

    level: float
    share: float
    shape: float
    scale: float
    n: int
    excesses: Float64

    @property
    def is_shape_capped(self) -> bool:
        """Return True if the shape lies at its bound."""
        return abs(self.shape) >= MAX_SHAPE

    def quantile(self, a: float) -> float:
        """Return the energy that is exceeded with probability `a`, which is at most `share`."""
        return self.level + self.scale * float(_scaled_excess(np.array(self.shape), self.share / a))

    def interval(self, a: float, *, level: float, dispersion: float) -> tuple[float, float]:
        """Return the interval of the energy that is exceeded with probability `a`.

        It uses the profile likelihood over shape and scale (Coles, section 4.3.3): all quantiles with a best likelihood
        less than half a chi-square quantile below the maximum. The Beta interval of the share is added in squares (the
        variance recovered from the bounds: Zou and Donner 2008).

        Args:
            a: The exceedance.
            level: Probability that the interval contains the exact quantile.
            dispersion: Dispersion of the outlier counts, at least 1. The log-likelihood is divided by it.
        """
        value = self.quantile(a)
        max_drop = dispersion * float(special.chdtri(1, 1 - level)) / 2
        least, most = _profile_bounds(self, max_drop, dispersion, self.share / a)
        peaks, rest = len(self.excesses) / dispersion, (self.n - len(self.excesses)) / dispersion
        tail = (1 - level) / 2
        shares = special.betaincinv(peaks, rest + 1, np.array([tail, 1 - tail]))
        low, high = (self.scale * _scaled_excess(np.array(self.shape), shares / a) + self.level).tolist()
        down, up = np.hypot(value - self.level - least, value - low), np.hypot(self.level + most - value, high - value)
        return value - float(down), value + float(up)


def min_energies() -> int:
    """Return the smallest number of energies that a tail can be fitted to."""
    return round(MIN_PEAKS / MAX_PEAK_SHARE)


def fit_tail(descending: Float64, n: int) -> ParetoTail | None:
    """Return the tail of the largest of n energies by maximum likelihood. None if fewer than 100 peaks are known.

    Args:
        descending: The largest energies, without gaps.
        n: Number of all energies.
    """
    peaks = int(np.clip(round(PEAK_SHARE * n), MIN_PEAKS, MAX_PEAKS))
    peaks = min(peaks, len(descending) - 1, int(MAX_PEAK_SHARE * n))
    if peaks < MIN_PEAKS:
        return None
    level = float(descending[peaks])
    # Energies that are equal in single precision differ by up to half its spacing.
    rounding = float(np.spacing(np.float32(abs(level)))) / 2
    excesses = np.maximum(descending[:peaks].astype(np.float64) - level, rounding)
    shape, scale = _fit_shape_and_scale(excesses)
    return ParetoTail(level=level, share=peaks / n, shape=shape, scale=scale, n=n, excesses=excesses)


def _scaled_excess(shape: Float64, ratio: Float64 | float) -> Float64:
    """Return (ratio^shape - 1) / shape: the excess in scales at which the exceedance is smaller by `ratio`."""
    log_ratio = np.log(ratio)
    is_exponential = np.abs(shape) < _EXPONENTIAL_SHAPE
    return np.asarray(
        np.where(is_exponential, log_ratio, np.expm1(shape * log_ratio) / np.where(is_exponential, 1.0, shape))
    )


def _log_likelihood(excesses: Float64, shape: Float64, scale: Float64) -> Float64:
    """Return the log-likelihood of each pair of shape and scale. It is -infinity where an excess is impossible."""
    is_exponential = np.abs(shape) < _EXPONENTIAL_SHAPE
    safe = np.where(is_exponential, 1.0, shape)
    inner = (safe / scale)[:, None] * excesses
    with np.errstate(invalid="ignore", divide="ignore"):
        bent = (1 + 1 / safe) * np.log1p(np.maximum(inner, -1.0)).sum(axis=1)
    possible = is_exponential | (inner.min(axis=1) > -1)
    found = -len(excesses) * np.log(scale) - np.where(is_exponential, excesses.sum() / scale, bent)
    return np.where(possible, found, -np.inf)


def _best_scales(excesses: Float64, shapes: Float64) -> Float64:
    """Return the most likely scale of each shape: the root of the derivative of the likelihood, which decreases."""
    mean, largest = float(excesses.mean()), float(excesses.max())
    low = np.log(np.maximum(mean / 100, -shapes * largest * (1 + 1e-9)))
    high = np.log(np.full(len(shapes), 2 * mean + largest))
    for _ in range(_BISECTIONS):
        scale = np.exp((low + high) / 2)
        slope = (1 + shapes) * (excesses / (scale[:, None] + shapes[:, None] * excesses)).sum(axis=1) - len(excesses)
        low, high = np.where(slope > 0, np.log(scale), low), np.where(slope > 0, high, np.log(scale))
    return np.asarray(np.exp((low + high) / 2))


def _fit_shape_and_scale(excesses: Float64) -> tuple[float, float]:
    """Return the most likely shape within the bounds and its scale, by grids that are refined around the best shape."""
    step = MAX_SHAPE / 10
    shapes = np.linspace(-MAX_SHAPE, MAX_SHAPE, 21)
    for _ in range(_REFINEMENTS):
        scales = _best_scales(excesses, shapes)
        best = int(np.argmax(_log_likelihood(excesses, shapes, scales)))
        shape, scale = float(shapes[best]), float(scales[best])
        shapes = np.clip(shape + step * np.linspace(-1, 1, 11), -MAX_SHAPE, MAX_SHAPE)
        step /= 5
    return shape, scale


def _profile_bounds(tail: ParetoTail, max_drop: float, dispersion: float, ratio: float) -> tuple[float, float]:
    """Return the smallest and largest distance of the quantile from the level.

    They are taken over all pairs of shape and scale with a log-likelihood of at most `max_drop` below the maximum.
    """
    excesses = tail.excesses
    reach = _PROFILE_WIDTH * (1 + max(tail.shape, 0.0)) * float(np.sqrt(dispersion / len(excesses)))
    shapes = np.clip(tail.shape + reach * np.linspace(-1, 1, 21), -MAX_SHAPE, MAX_SHAPE)
    shapes = np.append(shapes, tail.shape)
    scales = _best_scales(excesses, shapes)
    likely = _log_likelihood(excesses, shapes, scales)
    floor = likely[-1] - max_drop
    shapes, scales = shapes[likely >= floor], scales[likely >= floor]
    stretch = _scaled_excess(shapes, ratio)
    least = float((stretch * _find_profile_edge(excesses, shapes, scales, floor, 0.01)).min())
    most = float((stretch * _find_profile_edge(excesses, shapes, scales, floor, 100.0)).max())
    return least, most


def _find_profile_edge(excesses: Float64, shapes: Float64, scales: Float64, floor: float, factor: float) -> Float64:
    """Return the scale between each scale and `factor` times it where the log-likelihood falls to `floor`."""
    inside, outside = np.log(scales), np.log(scales * factor)
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        likely = _log_likelihood(excesses, shapes, np.exp(middle)) >= floor
        inside, outside = np.where(likely, middle, inside), np.where(likely, outside, middle)
    return np.asarray(np.exp(inside))
