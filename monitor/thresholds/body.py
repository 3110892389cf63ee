"""The tail that the body of the energies implies, where no clean reference is available. Pure functions.

A training set with outliers has no clean reference: its energies alone do not show which of the largest are anomalous.
A gamma distribution (shape, location and scale; the energies of a Gaussian body follow one) is fitted to the ranks 0.30
to 0.90 and extrapolated. Its exceedance is right within a factor of 1.3 where the family fits, and up to 10 off on
heavier tails: good enough for a warning, but not for a threshold.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from monitor.statistics.part import Float32, Float64
from monitor.statistics.sketch import order_statistic_quantiles
from monitor.thresholds.anchor import BODY_RANKS, MAX_OUTLIER_SHARE

EXCEEDANCE_DIVISOR = 5
"""Energies are counted beyond the quantile at the nominal exceedance divided by this, where few clean ones lie."""

MIN_EXCESS_ENERGIES = 10
"""Minimum number of energies beyond the tail for a warning. Fewer may occur by chance."""

_ITERATIONS = 8
_SHAPES = np.exp(np.linspace(np.log(0.1), np.log(200), 60))


@dataclass(frozen=True, slots=True, kw_only=True)
class GammaBody:
    """The distribution of the body: location + scale x gamma(shape).

    `outlier_share` of the energies lie beyond its tail.
    """

    shape: float
    location: float
    scale: float
    outlier_share: float

    def quantile(self, a: float) -> float:
        """Return the energy that a clean event exceeds with probability `a`."""
        return self.location + self.scale * float(special.gammainccinv(self.shape, a))


def fit_body(ascending: Float32, a: float) -> GammaBody:
    """Return the distribution of the body and the share of energies beyond its tail.

    A share of outliers above shifts the ranks of the clean energies. As in `monitor.thresholds.anchor`, the fit
    therefore alternates between the line and the count.

    Args:
        ascending: The energies.
        a: Exceedance beyond which energies are counted as outliers.
    """
    gamma_quantiles = special.gammaincinv(_SHAPES[:, None], BODY_RANKS)
    centred = gamma_quantiles - gamma_quantiles.mean(axis=1, keepdims=True)
    share = 0.0
    for _ in range(_ITERATIONS):
        body = _fit_shape(ascending, gamma_quantiles, centred, share)
        above = 1 - np.searchsorted(ascending, body.quantile(a), side="right") / len(ascending)
        share = min(max((float(above) - a) / (1 - a), 0.0), MAX_OUTLIER_SHARE)
    return GammaBody(shape=body.shape, location=body.location, scale=body.scale, outlier_share=share)


def _fit_shape(ascending: Float32, gamma_quantiles: Float64, centred: Float64, share: float) -> GammaBody:
    body_quantiles = order_statistic_quantiles(ascending, BODY_RANKS * (1 - share))
    slopes = (centred * body_quantiles).sum(axis=1) / (centred**2).sum(axis=1)
    residuals = ((body_quantiles - body_quantiles.mean() - slopes[:, None] * centred) ** 2).sum(axis=1)
    best = int(np.argmin(residuals))
    slope = float(slopes[best])
    location = float(body_quantiles.mean()) - slope * float(gamma_quantiles[best].mean())
    return GammaBody(shape=float(_SHAPES[best]), location=location, scale=slope, outlier_share=share)


def describe_heavy_tail(reference: Float32, a: float) -> str | None:
    """Return a warning if far more training energies lie beyond the tail of their body than expected, otherwise None.

    Args:
        reference: Energies of held-out training events, ascending.
        a: Nominal exceedance of the threshold.
    """
    share = fit_body(reference, a / EXCEEDANCE_DIVISOR).outlier_share
    if share < max(a, MIN_EXCESS_ENERGIES / len(reference)):
        return None
    return (
        f"{share:.2%} of the training energies lie beyond the tail that their body has: if these are outliers, "
        f"the limit is too high and finds few; fit without them, or with model.contamination: {share:.2g}"
    )
