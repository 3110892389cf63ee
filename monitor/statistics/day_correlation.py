"""The correlation of the course of a day with that of the day before, which shows a daily season. Pure functions.

Only the course within a day is compared: each day is centred on its own mean, so that a level that moves between days
is no season. A stream whose level wanders within the day may be taken for one with a season. This is harmless: both are
tested for drift over whole days.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Float64 = NDArray[np.float64]

MIN_CORRELATION = 0.3
"""Smallest mean correlation that is a season. Below it, little of the variance of an hour is its time of day."""

SEASON_LEVEL = 0.01
"""Probability that a stream of independent hours shows a season."""

MIN_PAIRS = 2
"""Minimum number of pairs of days. One pair of days has too few independent hours."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DayCorrelation:
    """The correlation of each statistic between two days, (J,), over a number of hours with events on both days."""

    hours: int
    correlations: Float64


def correlate_days(today: Float64, before: Float64) -> DayCorrelation | None:
    """Return the correlation of two days, or None with fewer than three hours in common.

    Args:
        today: Means of the hours of a day, (H, J); NaN in an hour without events.
        before: Those of the day before, (H, J).
    """
    common = ~(np.isnan(today).any(axis=1) | np.isnan(before).any(axis=1))
    hours = int(common.sum())
    if hours < 3:
        return None
    centred = [day[common] - day[common].mean(axis=0) for day in (today, before)]
    norms = np.sqrt((centred[0] ** 2).sum(axis=0) * (centred[1] ** 2).sum(axis=0))
    products = (centred[0] * centred[1]).sum(axis=0)
    return DayCorrelation(
        hours=hours, correlations=np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    )


def shows_season(pairs: Sequence[DayCorrelation]) -> bool:
    """Return True if the days have a common course in at least one statistic.

    The correlation of independent hours has a variance of 1 / (H - 1) about 0. The test is one-sided, at
    `SEASON_LEVEL` over all statistics together (Bonferroni).
    """
    if len(pairs) < MIN_PAIRS:
        return False
    weights = np.array([each.hours - 1 for each in pairs], np.float64)
    mean = weights @ np.array([each.correlations for each in pairs]) / weights.sum()
    threshold = -float(special.ndtri(SEASON_LEVEL / len(mean))) / np.sqrt(weights.sum())
    return bool(mean.max() > max(threshold, MIN_CORRELATION))
