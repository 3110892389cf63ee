"""The threshold in force as it applies to one window: the rate of its hour and an accepted rate. Pure functions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from monitor.incidents.window import ThresholdInForce
from monitor.statistics.counts import RATE_BOUND_LEVEL, CountModel, rate_bound
from monitor.statistics.season import Season


def apply_to_window(
    threshold: ThresholdInForce, start_us: int, end_us: int, state: Mapping[str, Any]
) -> ThresholdInForce:
    """Return the threshold with the rate of outliers that is normal in a window.

    Args:
        threshold: The threshold in force.
        start_us: Start of the window.
        end_us: End of the window.
        state: The judge state of the window before, with the accepted rate.
    """
    return _apply_accepted_rate(_apply_season(threshold, (start_us + end_us) // 2), start_us, state)


def _apply_season(threshold: ThresholdInForce, mid_us: int) -> ThresholdInForce:
    """Return the threshold with the rate at a time, if a season is active."""
    season = threshold.season
    if season is None:
        return threshold
    factor = float(season.factors(np.array([mid_us], np.int64))[0])
    return replace(
        threshold,
        count_model=scale_rate(threshold.count_model, season, factor),
        clean_rate=threshold.clean_rate * factor,
        season_factor=factor,
    )


def scale_rate(count_model: CountModel, season: Season, factor: float) -> CountModel:
    """Return the count model at a factor of the rate.

    The error of the rate and that of the factor add up: with N events for the mean rate r and p coefficients learned
    from M events, the predictive variance of a count with mean m = n r factor is D m (1 + n factor (1 / N + p / M)).
    """
    per_event = factor * (1 / count_model.calibration_n + season.parameters / season.exposure)
    return replace(count_model, rate=count_model.rate * factor, calibration_n=max(round(1 / per_event), 1))


def _apply_accepted_rate(threshold: ThresholdInForce, start_us: int, state: Mapping[str, Any]) -> ThresholdInForce:
    """Return the threshold with the accepted rate of outliers, until the look-back has learned it."""
    accepted = state.get("accepted")
    if accepted is None or start_us >= accepted["until_us"]:
        return threshold
    if accepted["model_id"] != threshold.row.model_id:
        return threshold
    count_model = replace(threshold.count_model, rate=max(threshold.count_model.rate, accepted["rate"]))
    clean_rate = max(threshold.clean_rate, rate_bound(count_model, RATE_BOUND_LEVEL))
    return replace(threshold, count_model=count_model, clean_rate=clean_rate)
