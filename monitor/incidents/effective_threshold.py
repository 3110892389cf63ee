"""The threshold in force as it applies to one window: its hour, an accepted rate, habitual keys. Pure functions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from monitor.incidents.habitual_keys import KeyCounts, KeyHabits, expect_habitual
from monitor.incidents.key_energies import KEYS_SHARE, EnergiesUnderTest, KeyMagnitude, count_peaks
from monitor.incidents.window import ThresholdInForce, WindowUnderTest
from monitor.statistics.counts import RATE_BOUND_LEVEL, CountModel, rate_bound
from monitor.statistics.season import Season
from storage.control.evidence import WindowKeys

_MAX_NAMED_KEYS = 5


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


def expect_habitual_keys(window: WindowUnderTest, counts: KeyCounts, events: int) -> WindowUnderTest:
    """Return the window with the expected outliers of its habitual keys in the mean of its count model.

    The highest clean rate, which slow rises are compared with, increases as much as the mean.

    Args:
        window: The window.
        counts: Events and outliers of its keys.
        events: The number of events that the window is tested with.
    """
    habitual = KeyHabits.from_json(window.facts.state.get("keys")).valid_at(window.facts.window_start_us)
    present = {key: each for key, each in habitual.items() if key in counts}
    if not present:
        return window
    threshold = window.threshold
    rate = expect_habitual(threshold.count_model.rate, events, present, counts)
    names = sorted(present, key=lambda key: (-counts[key][1], key))
    details = {
        "keys": names[:_MAX_NAMED_KEYS],
        "n_keys": len(names),
        "events": sum(counts[key][0] for key in names),
        "outliers": sum(counts[key][1] for key in names),
        "expected": sum(present[key].rate * counts[key][0] for key in names),
    }
    raised = replace(
        threshold,
        count_model=replace(threshold.count_model, rate=rate),
        clean_rate=threshold.clean_rate + rate - threshold.count_model.rate,
    )
    return replace(window, threshold=raised, habitual=details)


def find_largest_energies(window: WindowUnderTest, keys: WindowKeys | None) -> EnergiesUnderTest:
    """Return the largest energies of a window. A habitual key without an own law counts among the others.

    Args:
        window: The window.
        keys: Its keys. None if they were not counted.
    """
    top = window.part.top
    every = EnergiesUnderTest(others=float(top[0]) if len(top) else None)
    limit = window.threshold.row.threshold
    if keys is None or every.others is None or every.others <= limit:
        return every
    habits = KeyHabits.from_json(window.facts.state.get("keys"))
    of_law = [
        key
        for key in sorted(habits.valid_at(window.facts.window_start_us))
        if count_peaks(habits.tracked[key].roots, habits.tracked[key].measured)
    ]
    if not of_law:
        return every
    own = [
        KeyMagnitude(
            key=key,
            energy=keys.largest[key],
            share=KEYS_SHARE / len(of_law),
            roots=habits.tracked[key].roots,
            measured=habits.tracked[key].measured,
            median=window.threshold.scale.median,
        )
        for key in of_law
        if key in keys.largest
    ]
    others = [energy for key, energy in keys.largest.items() if key not in of_law]
    others += [] if keys.largest_of_others is None else [keys.largest_of_others]
    # Without the keys of a window, as of one with very many events, all its events are tested together.
    if not own and not others:
        return every
    return EnergiesUnderTest(others=max(others, default=None), habitual=tuple(own), others_share=1 - KEYS_SHARE)


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
