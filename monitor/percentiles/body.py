"""What the body of energies says of their tail, where nothing clean is there to compare with. Pure.

A training set that holds outliers has no clean reference: which of its largest energies are strange cannot be known
from the energies alone. A gamma law (shape, location and scale; the energies of a Gaussian body are one) is fitted to
the ranks .30 to .90 and continued. It is right within a factor 1.3 in exceedance where the family fits and up to 10
off on heavier tails: a warning, never a limit.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from monitor.parts import Float32, Float64
from monitor.percentiles.sketch import order_statistic_quantiles

RANKS = np.arange(30, 91, 5) / 100
LARGEST_SHARE = 0.3
COUNT_BEYOND = 5
"""Energies are counted beyond the body's limit of a fifth of the nominal exceedance: few clean ones are there."""

WARN_FROM = 10
"""Fewer energies than these are chance."""

_PASSES = 8
_SHAPES = np.exp(np.linspace(np.log(0.1), np.log(200), 60))


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The gamma law of the body: location + scale x gamma(shape); `share` of the energies are beyond its tail."""

    shape: float
    location: float
    scale: float
    share: float

    def quantile(self, a: float) -> float:
        """Return the energy that a clean one exceeds with probability `a`."""
        return self.location + self.scale * float(special.gammainccinv(self.shape, a))


def fit_body(ascending: Float32, a: float) -> Body:
    """Return the law of the body and the share of energies beyond its tail.

    As `monitor.percentiles.anchor` does with a reference: a share of outliers above shifts the ranks of the clean
    energies, so fit and count in turns.

    Args:
        ascending: The energies.
        a: The exceedance from which on energies are counted as beyond.
    """
    ideal = special.gammaincinv(_SHAPES[:, None], RANKS)
    centred = ideal - ideal.mean(axis=1, keepdims=True)
    share = 0.0
    for _ in range(_PASSES):
        body = _best(ascending, ideal, centred, share)
        above = 1 - np.searchsorted(ascending, body.quantile(a), side="right") / len(ascending)
        share = min(max((float(above) - a) / (1 - a), 0.0), LARGEST_SHARE)
    return Body(shape=body.shape, location=body.location, scale=body.scale, share=share)


def _best(ascending: Float32, ideal: Float64, centred: Float64, share: float) -> Body:
    live = order_statistic_quantiles(ascending, RANKS * (1 - share))
    slopes = (centred * live).sum(axis=1) / (centred**2).sum(axis=1)
    away = ((live - live.mean() - slopes[:, None] * centred) ** 2).sum(axis=1)
    best = int(np.argmin(away))
    slope = float(slopes[best])
    location = float(live.mean()) - slope * float(ideal[best].mean())
    return Body(shape=float(_SHAPES[best]), location=location, scale=slope, share=share)


def warn_of_tail(reference: Float32, a: float) -> str | None:
    """Say that far more training energies lie beyond the tail of their body than should, or nothing.

    Args:
        reference: Energies of training events that the model did not see, ascending.
        a: The nominal exceedance of the limit.
    """
    share = fit_body(reference, a / COUNT_BEYOND).share
    if share < max(a, WARN_FROM / len(reference)):
        return None
    return (
        f"{share:.2%} of the training energies lie beyond the tail that their body has: if these are outliers, "
        f"the limit is too high and finds few; fit without them, or with model.contamination: {share:.2g}"
    )
