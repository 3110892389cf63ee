"""A tick: the limit, the law that is learned at it, and what was promised beside what was realised."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from monitor.statistics.counts import RATE_BOUND_LEVEL, rate_bound
from monitor.statistics.part import Scale, summarise
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.tick import (
    ThresholdRule,
    build_calibration_row,
    build_first_threshold,
    compute_tick_threshold,
    load_clean_rate,
    load_count_model,
    load_scale,
)
from storage.control.models import Activation
from storage.control.thresholds import StoredThreshold

MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE
WINDOWS, EVENTS = 400, 500
RULE = ThresholdRule(percentile=99.0, look_back_us=DAY, adopt_after_us=DAY, size_us=MINUTE, per_week=1.0)
REFERENCE = np.sort(stats.gamma(8).rvs(10_000, random_state=1).astype(np.float32))
SCALE = Scale.from_energies(REFERENCE)
FIRST = build_first_threshold(REFERENCE, 3, Activation(computed_at_us=5, valid_from_us=MINUTE), 99.0).with_id(7)


def look_back_of(energies: np.ndarray) -> LookBack:
    look_back = LookBack(SCALE)
    for window, those in enumerate(energies.astype(np.float32)):
        look_back.add(window * MINUTE, summarise(those, those > FIRST.threshold, SCALE))
    return look_back


def energies(seed: int = 2) -> np.ndarray:
    return stats.gamma(8).rvs((WINDOWS, EVENTS), random_state=seed)


def tick(look_back: LookBack, clean: list[int] | None = None, previous: StoredThreshold = FIRST):
    windows = [window * MINUTE for window in range(WINDOWS)] if clean is None else clean
    return compute_tick_threshold(
        previous, look_back, windows, REFERENCE, RULE, tick_us=DAY, valid_from_us=DAY + MINUTE, most_events=EVENTS
    )


def test_the_first_threshold_is_the_reference_s_with_a_provisional_law() -> None:
    assert (FIRST.method, FIRST.model_id, FIRST.computed_at_us, FIRST.valid_from_us) == ("reference", 3, 5, MINUTE)
    law = load_count_model(FIRST.details)
    assert law.rate == pytest.approx(0.01, rel=0.02)
    assert (law.calibration_n, law.windows, law.state) == (10_000, 0, "provisional")
    assert load_clean_rate(FIRST.details) == rate_bound(law, RATE_BOUND_LEVEL)
    assert load_scale(FIRST.details) == SCALE


def test_a_tick_learns_its_law_from_the_clean_windows_alone() -> None:
    x = energies()
    x[10, :200] = 90.0
    row, law, share = tick(look_back_of(x), [window * MINUTE for window in range(WINDOWS) if window != 10])
    clean = np.delete(x.astype(np.float32), 10, axis=0)
    above = (clean > np.float32(row.threshold)).sum()
    assert share == above / clean.size
    assert (law.windows, law.state, law.dispersion) == (399, "learned", pytest.approx(1, abs=0.2))
    assert tick(look_back_of(x))[1].dispersion > 10
    assert (row.model_id, row.computed_at_us, row.valid_from_us) == (3, DAY, DAY + MINUTE)
    assert load_count_model(row.details) == law
    assert row.details["most_events"] == EVENTS
    assert load_clean_rate(row.details) >= rate_bound(law, RATE_BOUND_LEVEL)


def test_a_tick_without_clean_windows_keeps_the_law_of_the_reference() -> None:
    row, law, share = tick(look_back_of(energies()), [])
    assert (share, law.windows) == (0.0, 0)
    assert row.threshold != FIRST.threshold
    assert law.rate == pytest.approx(0.01, rel=0.1)


def test_a_disagreement_is_counted_from_its_first_tick() -> None:
    clean, dirty = energies(), energies()
    dirty[:, ::20] = 90.0
    first = tick(look_back_of(dirty))[0]
    assert (first.method, first.details["disagrees_since_us"]) == ("anchored", DAY)
    earlier = first.with_id(8)
    earlier = replace(earlier, details=dict(earlier.details) | {"disagrees_since_us": DAY // 2})
    assert tick(look_back_of(dirty), previous=earlier)[0].details["disagrees_since_us"] == DAY // 2
    assert tick(look_back_of(clean), previous=earlier)[0].details["disagrees_since_us"] is None


def test_promised_stands_beside_realised() -> None:
    row, law, share = tick(look_back_of(energies()))
    found = build_calibration_row(DAY, row, law, share, RULE, (3, 2 * 7 * 24 * 60))
    assert (found.promised_per_week, found.realised_per_week) == (1.0, 1.5)
    assert (found.state, found.windows_learned, found.exceedance) == ("learned", WINDOWS, share)
    assert build_calibration_row(DAY, row, law, share, RULE, (0, 0)).realised_per_week is None


def test_a_calibration_that_is_contested_or_has_left_its_rate_is_suspect() -> None:
    dirty = energies()
    dirty[:, ::20] = 90.0
    row, law, share = tick(look_back_of(dirty))
    assert build_calibration_row(DAY, row, law, share, RULE, (0, 1)).state == "suspect"
    row, law, share = tick(look_back_of(energies()))
    assert build_calibration_row(DAY, row, replace(law, rate=0.04), share, RULE, (0, 1)).state == "suspect"
    nothing_learned = replace(law, rate=0.04, windows=0, state="provisional")
    assert build_calibration_row(DAY, row, nothing_learned, share, RULE, (0, 1)).state == "provisional"
