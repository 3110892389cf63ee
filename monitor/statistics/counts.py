"""The count model: outliers per window, with a learned rate and dispersion. Pure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from config.time_format import HOUR_US
from monitor.statistics.part import Int64

LEARNED_WINDOWS = 300
"""Windows from which the promise is learned; below it is provisional, and may be off several times."""


SIGNIFICANT_ERRORS = 2.0
"""Standard errors above 1 from which a dispersion is more than chance, and is raised for its own error."""


MIN_DISPERSION_WINDOWS = 30
"""Windows from which a dispersion can be told. By chance five show one of 2.5, raised for its error 10: blind."""


HALF_LOG_ALPHA = 5.0
"""Half of ln(1 / alpha) at one alarm a week of windows of 10 s to 1 m: how steeply a tail answers to dispersion.

A tail at alpha is near exp(-ln(1 / alpha) x true / estimated dispersion), so that an estimate with relative
error s has a mean realised rate of alpha exp(ln(1 / alpha)^2 s^2 / 2): raising it by s^2 ln(1 / alpha) / 2 brings
the mean back to alpha.
"""


POISSON_BELOW = 1e-6
"""Excess of variance over mean below which the Poisson tail stands in for an endless negative binomial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountModel:
    """How many outliers a clean window has.

    `rate` is the probability that a clean event is above the limit, known from `calibration_n` events;
    `dispersion` the variance of counts over their mean, at least 1; `windows` how many it was learned from.
    """

    rate: float
    calibration_n: int
    dispersion: float
    windows: int
    state: str

    def variance_ratio(self, n: float) -> float:
        """Return predictive variance over mean for a window of n events: dispersion and calibration error."""
        return self.dispersion * (1 + n / self.calibration_n)


def fit_count_model(
    reference_exceed: int,
    reference_n: int,
    outliers: Int64,
    events: Int64,
    *,
    otherwise: CountModel | None = None,
) -> CountModel:
    """Learn the law of counts at one limit from clean windows.

    Clean are the windows that fired no detector: a single one that did, learned as normal, lifts the dispersion until
    nothing fires any more.

    Args:
        reference_exceed: Reference energies above the limit; 0 where the limit is the look-back's own
            percentile, for its windows must not count twice.
        reference_n: How many reference energies there are; 0 in the same case.
        outliers: Events above the limit in each window, counted at this limit.
        events: Events of each window.
        otherwise: The law that stays where there is neither a reference nor a window with events.

    Raises:
        ValueError: There is nothing of all that.
    """
    filled = events > 0
    x, n = outliers[filled].astype(np.float64), events[filled].astype(np.float64)
    total = reference_n + int(n.sum())
    if not total:
        if otherwise is not None:
            return otherwise
        raise ValueError("a law of counts needs reference energies or windows with events")
    # No exceedance at all says that the rate is small, not that it is zero: half an event bounds it.
    rate = max(reference_exceed + float(x.sum()), 0.5) / total
    windows = len(n)
    return CountModel(
        rate=rate,
        calibration_n=total,
        dispersion=_estimate_dispersion(x, n, rate),
        windows=windows,
        state="learned" if windows >= LEARNED_WINDOWS else "provisional",
    )


def _estimate_dispersion(x: NDArray[np.float64], n: NDArray[np.float64], rate: float) -> float:
    """Return the Pearson dispersion, at least 1; a significant one is raised for its own standard error.

    Of few windows it is drawn towards 1, where it begins with the first of them.
    """
    windows = len(n)
    if windows < 2 or not x.sum():
        return 1.0
    mean = n * (x.sum() / n.sum())
    dispersion = float(((x - mean) ** 2 / mean).sum() / (windows - 1))
    if windows < MIN_DISPERSION_WINDOWS:
        return max(1.0, 1 + (dispersion - 1) * windows / MIN_DISPERSION_WINDOWS)
    expected = float(n.mean()) * rate
    if dispersion <= 1 + SIGNIFICANT_ERRORS * np.sqrt((2 + 1 / expected) / windows):
        return max(1.0, dispersion)
    return float(dispersion * (1 + HALF_LOG_ALPHA * (2 + dispersion / expected) / windows))


def rate_bound(law: CountModel, level: float) -> float:
    """Return the rate that the true one is below with probability `level`.

    By the gamma law of an over-dispersed count; for a dispersion of 1 the exact Poisson bound (Garwood 1936).
    """
    effective = law.rate * law.calibration_n / law.dispersion
    shape = effective + 1 if level > 0.5 else effective
    return float(special.gammaincinv(shape, level)) * law.dispersion / law.calibration_n


def is_rate_suspect(law: CountModel, nominal: float) -> bool:
    """Say whether the rate's 90% interval lies outside a third to three times the limit's nominal exceedance.

    The learned rate follows a slow attack; the nominal one does not.
    """
    return rate_bound(law, 0.05) > 3 * nominal or rate_bound(law, 0.95) < nominal / 3


def exceedance_probability(law: CountModel, n: int, count: float) -> float:
    """Return the probability of more than `count` outliers in a clean window of n events."""
    mean, ratio = n * law.rate, law.variance_ratio(n)
    if count < 0:
        return 1.0
    if mean <= 0:
        return 0.0
    if ratio - 1 < POISSON_BELOW:
        return float(special.gammainc(count + 1, mean))
    return float(special.betainc(count + 1, mean / (ratio - 1), 1 - 1 / ratio))


def p_value(law: CountModel, n: int, x: int) -> float:
    """Return the probability of x or more outliers in a clean window of n events."""
    return exceedance_probability(law, n, x - 1)


RATE_BOUND_LEVEL = 0.9
"""The clean rate is taken at this one-sided bound: a rate taken too low would be found to have risen."""


def highest_clean_rate(law: CountModel, starts_us: Int64, outliers: Int64, events: Int64) -> float:
    """Return the rate of the busiest hour, at a 90% bound for what the calibration leaves open.

    A rate with a daily course is above its mean for hours; measured against the mean that would be a rise every day.
    The busiest of 24 hours is also the luckiest, so each hour is drawn to the mean by the share of the hours' variance
    that chance explains (James and Stein's shrinkage): without a daily course this is the bound on the mean.

    Args:
        law: Learned from the same windows.
        starts_us: Starts of the look-back's clean windows.
        outliers: Events above the limit in each.
        events: Events of each.
    """
    bound = rate_bound(law, RATE_BOUND_LEVEL)
    filled = events > 0
    if not filled.any() or not outliers[filled].any():
        return bound
    _, hour = np.unique(starts_us[filled] // HOUR_US, return_inverse=True)
    n = np.bincount(hour, weights=events[filled].astype(np.float64))
    rates = np.bincount(hour, weights=outliers[filled].astype(np.float64)) / n
    mean = float((rates * n).sum() / n.sum())
    by_chance = mean * law.dispersion / n
    varied = max(float(np.average((rates - mean) ** 2 - by_chance, weights=n)), 0.0)
    drawn = mean + (rates - mean) * varied / (varied + by_chance)
    return bound * max(float(drawn.max()) / mean, 1.0)


def count_model_to_json(law: CountModel) -> dict[str, Any]:
    """Return a law of counts as the JSON that is stored with a threshold and with an incident."""
    return {
        "rate": law.rate,
        "calibration_n": law.calibration_n,
        "dispersion": law.dispersion,
        "windows": law.windows,
        "state": law.state,
    }
