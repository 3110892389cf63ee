"""Thresholds beyond the observed energies: when they are used, their guard and their details."""

import json

import numpy as np
import pytest
from scipy import stats

from monitor.incidents.spike import spike_count_threshold
from monitor.statistics.part import Scale, summarise_windows
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.bounds import UNBOUNDED
from monitor.thresholds.choose import (
    choose_threshold,
    count_reference_above,
    disagrees_with_reference,
    estimate_first_threshold,
)
from monitor.thresholds.percentile import ThresholdEstimate, estimate_reference_threshold
from monitor.thresholds.pot import estimate_pot_threshold, estimate_reference_pot_threshold
from monitor.thresholds.tick import build_first_threshold, load_count_model, load_scale
from storage.control.models import Activation

CLEAN = stats.gamma(8)
REFERENCE = np.sort(CLEAN.rvs(20_000, random_state=1).astype(np.float32))
SCALE = Scale.from_energies(REFERENCE)
NOW = Activation(valid_from_us=0, computed_at_us=0)


def sketch_of(energies: np.ndarray, windows: int = 20) -> EnergySketch:
    of_window = np.arange(len(energies)) * windows // len(energies)
    single = energies.astype(np.float32)
    parts = summarise_windows(single, single > 20, of_window, windows, SCALE)
    return EnergySketch.from_parts(map(parts.window, range(windows)), SCALE)


def choose(
    energies: np.ndarray, percentile: float = 99.99, previous: ThresholdEstimate | None = None
) -> ThresholdEstimate:
    return choose_threshold(previous, sketch_of(energies), REFERENCE, percentile, method="pot")


def test_threshold_beyond_the_percentile_is_that_of_the_tail() -> None:
    estimate = choose(CLEAN.rvs(20_000, random_state=2))
    assert estimate.method == "pot"
    assert "held" not in estimate.details
    assert 1e-4 / 3 < CLEAN.sf(estimate.value) < 3e-4
    assert estimate.lower < CLEAN.isf(1e-4) < estimate.upper
    assert (estimate.n, estimate.details["tail_of"], estimate.details["peaks"]) == (20_000, "look-back", 400)


def test_percentile_within_reach_needs_no_tail() -> None:
    energies = CLEAN.rvs(20_000, random_state=2)
    estimate = choose(energies, 99.5)
    assert estimate == choose_threshold(None, sketch_of(energies), REFERENCE, 99.5)
    assert estimate.method == "plain"


def test_tail_moves_where_a_percentile_is_out_of_reach() -> None:
    previous = estimate_first_threshold(REFERENCE, 99.99, method="pot")
    moved = CLEAN.rvs(20_000, random_state=3) + 40
    assert choose_threshold(previous, sketch_of(moved[:9_999]), REFERENCE, 99.99).value == previous.value
    assert choose_threshold(previous, sketch_of(moved), REFERENCE, 99.99).method == "pooled"
    assert choose(moved, previous=previous).value == pytest.approx(previous.value + 40, abs=6)


@pytest.mark.parametrize("share", [0.0005, 0.005, 0.05])
@pytest.mark.parametrize("place", [40.0, 400.0])
def test_outliers_do_not_raise_a_tail_threshold(share: float, place: float) -> None:
    energies = CLEAN.rvs(20_000, random_state=4)
    energies[: round(share * 20_000)] = place
    estimate = choose(energies)
    assert 1e-4 / 4 < CLEAN.sf(estimate.value) < 4e-4


def test_tail_raised_by_outliers_is_replaced_and_disagrees() -> None:
    energies = 2 * CLEAN.rvs(20_000, random_state=5) - 7
    energies[:500] = 400
    estimate = choose(energies)
    assert (estimate.method, estimate.details["tail_of"], estimate.details["lifted"]) == ("pot", "reference", True)
    assert disagrees_with_reference(estimate.method, estimate.details)
    assert estimate.details["eps"] == pytest.approx(0.025, abs=0.002)
    assert 1e-4 / 3 < CLEAN.sf((estimate.value + 7) / 2) < 3e-4


def test_clean_tail_does_not_disagree() -> None:
    for seed in range(10):
        estimate = choose(CLEAN.rvs(20_000, random_state=seed))
        assert not disagrees_with_reference(estimate.method, estimate.details)


def test_tail_without_a_reference_is_that_of_the_look_back() -> None:
    estimate = choose_threshold(None, sketch_of(CLEAN.rvs(20_000, random_state=6)), None, 99.99, method="pot")
    assert estimate.method == "pot"
    assert count_reference_above(estimate, None) == (0, 0)


def test_too_few_energies_for_a_tail_do_not_move_the_threshold() -> None:
    previous = estimate_first_threshold(REFERENCE, 99.99, method="pot")
    estimate = choose(CLEAN.rvs(999, random_state=7) + 50, previous=previous)
    assert estimate.value == previous.value
    assert "held" in estimate.details
    assert estimate_pot_threshold(sketch_of(CLEAN.rvs(5_000, random_state=7)), REFERENCE[:900], 99.99) is None


def test_first_threshold_is_the_tail_of_the_reference_beyond_its_percentile() -> None:
    estimate = estimate_first_threshold(REFERENCE, 99.99, method="pot")
    assert (estimate.method, estimate.details["tail_of"]) == ("pot", "reference")
    assert estimate == estimate_reference_pot_threshold(REFERENCE, 99.99)
    assert estimate_first_threshold(REFERENCE, 99.9, method="pot") == estimate_reference_threshold(REFERENCE, 99.9)
    assert estimate_first_threshold(REFERENCE[:900], 99.99, method="pot").method == "reference"


def test_only_a_tail_has_an_upper_bound_above_all_energies() -> None:
    assert estimate_reference_threshold(REFERENCE[::10], 99.99).upper == UNBOUNDED
    assert estimate_first_threshold(REFERENCE[::10], 99.99, method="pot").upper < 60


def test_tail_details_survive_json_and_have_a_count_model() -> None:
    row = build_first_threshold(REFERENCE, 1, NOW, 99.99, "pot")
    assert row.method == "pot"
    assert json.loads(json.dumps(row.details, allow_nan=False)) == row.details
    assert spike_count_threshold(load_count_model(row.details), 6_000, 1e-4).count >= 1
    assert load_scale(row.details) == SCALE


def test_reference_is_counted_above_a_mapped_tail() -> None:
    estimate = choose(3 * CLEAN.rvs(20_000, random_state=8) + 10)
    above, n = count_reference_above(estimate, REFERENCE)
    assert n == 20_000
    assert above <= 10
