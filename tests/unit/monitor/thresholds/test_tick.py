"""A threshold tick: the threshold, its count model, and budgeted against realised false alarms."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from monitor.statistics.counts import RATE_BOUND_LEVEL, rate_bound
from monitor.statistics.part import Scale, summarise
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.tick import (
    build_calibration_row,
    build_first_threshold,
    compute_tick_threshold,
    load_clean_rate,
    load_count_model,
    load_scale,
)
from storage.control.models import Activation
from storage.control.thresholds import ThresholdRow
from tests.rules import make_rules

MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE
WINDOWS, EVENTS = 400, 500
RULES = make_rules(percentile=99.0, look_back_us=DAY, adopt_after_us=DAY, size_us=MINUTE, per_week=1.0)
REFERENCE = np.sort(stats.gamma(8).rvs(10_000, random_state=1).astype(np.float32))
SCALE = Scale.from_energies(REFERENCE)
FIRST = build_first_threshold(REFERENCE, 3, Activation(computed_at_us=5, valid_from_us=MINUTE), 99.0).with_id(7)


def look_back_of(energies: np.ndarray) -> LookBack:
    look_back = LookBack(SCALE)
    for window, values in enumerate(energies.astype(np.float32)):
        look_back.add(window * MINUTE, summarise(values, values > FIRST.threshold, SCALE))
    return look_back


def energies(seed: int = 2) -> np.ndarray:
    return stats.gamma(8).rvs((WINDOWS, EVENTS), random_state=seed)


def tick(look_back: LookBack, clean: list[int] | None = None, previous: ThresholdRow = FIRST):
    windows = [window * MINUTE for window in range(WINDOWS)] if clean is None else clean
    return compute_tick_threshold(
        previous, look_back, windows, REFERENCE, RULES, tick_us=DAY, valid_from_us=DAY + MINUTE, most_events=EVENTS
    )


def test_first_threshold_has_a_provisional_count_model() -> None:
    assert (FIRST.method, FIRST.model_id, FIRST.computed_at_us, FIRST.valid_from_us) == ("reference", 3, 5, MINUTE)
    count_model = load_count_model(FIRST.details)
    assert count_model.rate == pytest.approx(0.01, rel=0.02)
    assert (count_model.calibration_n, count_model.windows, count_model.state) == (10_000, 0, "provisional")
    assert load_clean_rate(FIRST.details) == rate_bound(count_model, RATE_BOUND_LEVEL)
    assert load_scale(FIRST.details) == SCALE


def test_tick_learns_the_count_model_from_clean_windows_only() -> None:
    x = energies()
    x[10:12, :200] = 90.0
    row, count_model, clean_exceedance = tick(
        look_back_of(x), [window * MINUTE for window in range(WINDOWS) if window not in (10, 11)]
    )
    clean = np.delete(x.astype(np.float32), [10, 11], axis=0)
    above = (clean > np.float32(row.threshold)).sum()
    assert clean_exceedance == above / clean.size
    assert (count_model.windows, count_model.state, count_model.dispersion) == (
        398,
        "learned",
        pytest.approx(1, abs=0.2),
    )
    assert tick(look_back_of(x))[1].dispersion > 10
    assert (row.model_id, row.computed_at_us, row.valid_from_us) == (3, DAY, DAY + MINUTE)
    assert load_count_model(row.details) == count_model
    assert row.details["most_events"] == EVENTS
    assert load_clean_rate(row.details) >= rate_bound(count_model, RATE_BOUND_LEVEL)


def test_tick_without_clean_windows_uses_the_reference_counts() -> None:
    row, count_model, clean_exceedance = tick(look_back_of(energies()), [])
    assert (clean_exceedance, count_model.windows) == (0.0, 0)
    assert row.threshold != FIRST.threshold
    assert count_model.rate == pytest.approx(0.01, rel=0.1)


def test_disagreement_is_counted_from_its_first_tick() -> None:
    clean, dirty = energies(), energies()
    dirty[:, ::20] = 90.0
    first = tick(look_back_of(dirty))[0]
    assert (first.method, first.details["disagrees_since_us"]) == ("anchored", DAY)
    earlier = first.with_id(8)
    earlier = replace(earlier, details=dict(earlier.details) | {"disagrees_since_us": DAY // 2})
    assert tick(look_back_of(dirty), previous=earlier)[0].details["disagrees_since_us"] == DAY // 2
    assert tick(look_back_of(clean), previous=earlier)[0].details["disagrees_since_us"] is None


def test_calibration_row_has_budgeted_and_realised_false_alarms() -> None:
    row, count_model, clean_exceedance = tick(look_back_of(energies()))
    calibration = build_calibration_row(DAY, row, count_model, clean_exceedance, RULES, (3, 2 * 7 * 24 * 60))
    assert (calibration.promised_per_week, calibration.realised_per_week) == (1.0, 1.5)
    assert (calibration.state, calibration.windows_learned, calibration.exceedance) == (
        "learned",
        WINDOWS,
        clean_exceedance,
    )
    assert build_calibration_row(DAY, row, count_model, clean_exceedance, RULES, (0, 0)).realised_per_week is None


def test_disagreement_or_changed_rate_is_suspect() -> None:
    dirty = energies()
    dirty[:, ::20] = 90.0
    row, count_model, clean_exceedance = tick(look_back_of(dirty))
    assert build_calibration_row(DAY, row, count_model, clean_exceedance, RULES, (0, 1)).state == "suspect"
    row, count_model, clean_exceedance = tick(look_back_of(energies()))
    assert (
        build_calibration_row(DAY, row, replace(count_model, rate=0.04), clean_exceedance, RULES, (0, 1)).state
        == "suspect"
    )
    nothing_learned = replace(count_model, rate=0.04, windows=0, state="provisional")
    assert build_calibration_row(DAY, row, nothing_learned, clean_exceedance, RULES, (0, 1)).state == "provisional"
