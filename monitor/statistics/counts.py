"""The count model of outliers per window: a rate and a dispersion learned from clean windows. Pure functions.

Counts of outliers vary more than independent events would: events arrive in bursts, and the exceedance of the threshold
is known only as well as its calibration allows. The predictive variance of the model includes both. Tail probabilities
are those of a negative binomial with this mean and variance. Moments suffice: in simulations against the exact
distributions of autocorrelated energies, the approximation gives fewer false alarms than the budget allows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from config.budget import windows_to_learn
from config.time_format import HOUR_US
from monitor.statistics.part import Int64

Floats = NDArray[np.float64]

SIGNIFICANT_ERRORS = (2.0, 4.0)
"""Numbers of standard errors above 1 between which the raise of a dispersion for its own error grows from 0 to all."""

MAX_RAISE = 0.5
"""Largest raise of a dispersion for its own error, as a share of it.

With 30 windows and one outlier in two of them, the full raise is by a factor of 2.3 and more. It is no longer a
correction, and hides bursts of a third of the events.
"""

MIN_DISPERSION_WINDOWS = 30
"""Minimum number of windows to estimate a dispersion.

By chance, five windows show a dispersion of 2.5. Raised for its standard error it would be 10, which hides every spike.
"""

HALF_LOG_ALPHA = 5.0
"""Half of ln(1 / alpha) for one false alarm a week and windows of 10 s to 1 min.

It measures the sensitivity of a tail to the dispersion. A tail probability at alpha is near exp(-ln(1 / alpha) x true /
estimated dispersion). An estimate with relative error s therefore has a mean realised rate of alpha exp(ln(1 / alpha)^2
s^2 / 2). Raising the estimate by s^2 ln(1 / alpha) / 2 restores a mean of alpha.
"""

POISSON_BELOW = 1e-6
"""Excess of the variance ratio over 1 below which the Poisson tail replaces the negative binomial."""

RATE_BOUND_LEVEL = 0.9
"""Probability of the one-sided upper bound of the clean rate. A bound that is too low causes false slow rises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountModel:
    """The distribution of the number of outliers in a clean window.

    `rate` is the probability that a clean event exceeds the threshold, estimated from `calibration_n` events.
    `dispersion` is the ratio of variance to mean of the counts, at least 1. `windows` is the number of windows that the
    model was learned from. `state` is `learned` or `provisional`.
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
    reference_exceed: float,
    reference_n: int,
    outliers: Int64,
    events: Int64,
    *,
    factors: Floats | None = None,
    found: NDArray[np.bool_] | None = None,
    alpha: float = 0.0,
    otherwise: CountModel | None = None,
) -> CountModel:
    """Learn the count model at one threshold from clean windows.

    A window is clean if no test fired in it. A single window that fired, learned as normal, would raise the dispersion
    until no window fires any more.

    Args:
        reference_exceed: Number of reference energies above the threshold. 0 where the threshold is the percentile of
            the look-back itself, because its windows must not count twice.
        reference_n: Number of reference energies. 0 in the same case.
        outliers: Events above this threshold in each window.
        events: Events in each window.
        factors: Rate of each window divided by the mean rate, from the season. None: the rate has no season.
        found: Windows that a test found in the past, and that count as normal by now. None: none.
        alpha: False-alarm probability of one window, on which the number of windows for `learned` depends.
        otherwise: The model to return if there are neither reference energies nor windows with events.

    Raises:
        ValueError: There is no data and `otherwise` is None.
    """
    filled = events > 0
    x, n = outliers[filled].astype(np.float64), events[filled].astype(np.float64)
    total = reference_n + int(n.sum())
    is_found = np.zeros(len(n), np.bool_) if found is None else found[filled]
    if factors is not None:
        n = n * factors[filled]
    if not total:
        if otherwise is not None:
            return otherwise
        raise ValueError("a count model needs reference energies or windows with events")
    # Without any exceedance the rate is small but not zero: half an event bounds it.
    rate = max(reference_exceed + float(x.sum()), 0.5) / (reference_n + float(n.sum()))
    windows = len(n)
    needed = windows_to_learn(alpha, rate * float(n.sum()) / max(windows, 1))
    return CountModel(
        rate=rate,
        calibration_n=total,
        dispersion=_estimate_dispersion(x, n, is_found),
        windows=windows,
        state="learned" if windows >= needed else "provisional",
    )


def _estimate_dispersion(x: Floats, n: Floats, found: NDArray[np.bool_]) -> float:
    """Return the Pearson dispersion, at least 1. A significant dispersion is raised for its own standard error.

    The window with the highest rate counts with the rate of the next one, unless a test found it: no burst that was
    missed determines the dispersion and hides the next one. With fewer than `MIN_DISPERSION_WINDOWS` windows it is
    shrunk towards 1 in proportion.
    """
    windows = len(n)
    if windows < 2:
        return 1.0
    x = x if found[np.argmax(x / n)] else _clip_highest(x, n)
    if not x.sum():
        return 1.0
    mean = n * (x.sum() / n.sum())
    dispersion = float(((x - mean) ** 2 / mean).sum() / (windows - 1))
    if windows < MIN_DISPERSION_WINDOWS:
        return max(1.0, 1 + (dispersion - 1) * windows / MIN_DISPERSION_WINDOWS)
    expected = float(x.mean())
    errors = (dispersion - 1) / np.sqrt((2 + 1 / expected) / windows)
    share = np.interp(errors, SIGNIFICANT_ERRORS, (0.0, 1.0))
    correction = min(HALF_LOG_ALPHA * (2 + dispersion / expected) / windows, MAX_RAISE)
    return max(1.0, float(dispersion * (1 + share * correction)))


def _clip_highest(x: Floats, n: Floats) -> Floats:
    """Return the counts with that of the window of the highest rate lowered to the second highest rate, rounded up."""
    rates = x / n
    highest = int(np.argmax(rates))
    clipped = x.copy()
    second = float(np.delete(rates, highest).max())
    clipped[highest] = min(x[highest], np.ceil(round(second * float(n[highest]), 9)))
    return clipped


def rate_bound(count_model: CountModel, level: float) -> float:
    """Return the rate that the true rate is below with probability `level`.

    It uses the gamma distribution of an over-dispersed count. For a dispersion of 1 it is the exact Poisson bound
    (Garwood 1936).
    """
    effective = count_model.rate * count_model.calibration_n / count_model.dispersion
    shape = effective + 1 if level > 0.5 else effective
    return float(special.gammaincinv(shape, level)) * count_model.dispersion / count_model.calibration_n


def is_rate_suspect(count_model: CountModel, nominal: float) -> bool:
    """Return True if the 90% interval of the rate lies outside a third to three times the nominal exceedance.

    A slow increase of the outlier rate raises the learned rate as well. The nominal exceedance is constant, so the
    comparison with it reveals the increase.
    """
    return rate_bound(count_model, 0.05) > 3 * nominal or rate_bound(count_model, 0.95) < nominal / 3


def exceedance_probability(count_model: CountModel, n: int, count: float) -> float:
    """Return the probability of more than `count` outliers in a clean window of n events."""
    mean, ratio = n * count_model.rate, count_model.variance_ratio(n)
    if count < 0:
        return 1.0
    if mean <= 0:
        return 0.0
    if ratio - 1 < POISSON_BELOW:
        return float(special.gammainc(count + 1, mean))
    return float(special.betainc(count + 1, mean / (ratio - 1), 1 - 1 / ratio))


def p_value(count_model: CountModel, n: int, x: int) -> float:
    """Return the probability of x or more outliers in a clean window of n events."""
    return exceedance_probability(count_model, n, x - 1)


def highest_clean_rate(
    count_model: CountModel, starts_us: Int64, outliers: Int64, events: Int64, *, factors: Floats | None = None
) -> float:
    """Return the rate of the busiest hour, at a 90% upper bound for the calibration error.

    A rate with a daily course is above its mean for hours. Compared with the mean, every day would look like a slow
    rise. The busiest hour of the look-back usually also has the largest positive error. Each hour is therefore shrunk
    towards the mean, by the share of the variance between hours that chance explains (James and Stein). Without a daily
    course, or with one that the season explains, the result is the bound of the mean.

    Args:
        count_model: The model learned from the same windows.
        starts_us: Start times of the clean windows of the look-back.
        outliers: Events above the threshold in each window.
        events: Events in each window.
        factors: As in `fit_count_model`. The result is then a rate at the factor 1.
    """
    bound = rate_bound(count_model, RATE_BOUND_LEVEL)
    filled = events > 0
    if not filled.any() or not outliers[filled].any():
        return bound
    _, hour = np.unique(starts_us[filled] // HOUR_US, return_inverse=True)
    exposure = events[filled].astype(np.float64) if factors is None else events[filled] * factors[filled]
    n = np.bincount(hour, weights=exposure)
    rates = np.bincount(hour, weights=outliers[filled].astype(np.float64)) / n
    mean = float((rates * n).sum() / n.sum())
    chance_variance = mean * count_model.dispersion / n
    extra_variance = max(float(np.average((rates - mean) ** 2 - chance_variance, weights=n)), 0.0)
    shrunk = mean + (rates - mean) * extra_variance / (extra_variance + chance_variance)
    return bound * max(float(shrunk.max()) / mean, 1.0)


def count_model_to_json(count_model: CountModel) -> dict[str, Any]:
    """Return the count model as the JSON object that is stored with thresholds and incidents."""
    return {
        "rate": count_model.rate,
        "calibration_n": count_model.calibration_n,
        "dispersion": count_model.dispersion,
        "windows": count_model.windows,
        "state": count_model.state,
    }
