"""What the body of energies says of their tail, where nothing clean is there to compare with. Pure.

A training set that holds outliers has no clean reference: which of its largest energies are strange cannot be known
from the energies alone. A gamma law (shape, location and scale; the energies of a Gaussian body are one) is fitted to
the ranks .30 to .90 and continued. It is right within a factor 1.3 in exceedance where the family fits and up to 10
off on heavier tails: a warning, never a limit.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from monitor.statistics.part import Float32, Float64
from monitor.statistics.sketch import order_statistic_quantiles

BODY_RANKS = np.arange(30, 91, 5) / 100
MAX_OUTLIER_SHARE = 0.3
EXCEEDANCE_DIVISOR = 5
"""Energies are counted beyond the body's limit of a fifth of the nominal exceedance: few clean ones are there."""

MIN_EXCESS_ENERGIES = 10
"""Fewer energies than these are chance."""

_ITERATIONS = 8
_SHAPES = np.exp(np.linspace(np.log(0.1), np.log(200), 60))


@dataclass(frozen=True, slots=True, kw_only=True)
class GammaBody:
    """The gamma law of the body: location + scale x gamma(shape); `share` of the energies are beyond its tail."""

    shape: float
    location: float
    scale: float
    outlier_share: float

    def quantile(self, a: float) -> float:
        """Return the energy that a clean one exceeds with probability `a`."""
        return self.location + self.scale * float(special.gammainccinv(self.shape, a))


def fit_body(ascending: Float32, a: float) -> GammaBody:
    """Return the law of the body and the share of energies beyond its tail.

    As `monitor.thresholds.anchor` does with a reference: a share of outliers above shifts the ranks of the clean
    energies, so fit and count in turns.

    Args:
        ascending: The energies.
        a: The exceedance from which on energies are counted as beyond.
    """
    ideal = special.gammaincinv(_SHAPES[:, None], BODY_RANKS)
    centred = ideal - ideal.mean(axis=1, keepdims=True)
    share = 0.0
    for _ in range(_ITERATIONS):
        body = _fit_shape(ascending, ideal, centred, share)
        above = 1 - np.searchsorted(ascending, body.quantile(a), side="right") / len(ascending)
        share = min(max((float(above) - a) / (1 - a), 0.0), MAX_OUTLIER_SHARE)
    return GammaBody(shape=body.shape, location=body.location, scale=body.scale, outlier_share=share)


def _fit_shape(ascending: Float32, ideal: Float64, centred: Float64, share: float) -> GammaBody:
    live = order_statistic_quantiles(ascending, BODY_RANKS * (1 - share))
    slopes = (centred * live).sum(axis=1) / (centred**2).sum(axis=1)
    away = ((live - live.mean() - slopes[:, None] * centred) ** 2).sum(axis=1)
    best = int(np.argmin(away))
    slope = float(slopes[best])
    location = float(live.mean()) - slope * float(ideal[best].mean())
    return GammaBody(shape=float(_SHAPES[best]), location=location, scale=slope, outlier_share=share)


def describe_heavy_tail(reference: Float32, a: float) -> str | None:
    """Say that far more training energies lie beyond the tail of their body than should, or nothing.

    Args:
        reference: Energies of training events that the model did not see, ascending.
        a: The nominal exceedance of the limit.
    """
    share = fit_body(reference, a / EXCEEDANCE_DIVISOR).outlier_share
    if share < max(a, MIN_EXCESS_ENERGIES / len(reference)):
        return None
    return (
        f"{share:.2%} of the training energies lie beyond the tail that their body has: if these are outliers, "
        f"the limit is too high and finds few; fit without them, or with model.contamination: {share:.2g}"
    )
