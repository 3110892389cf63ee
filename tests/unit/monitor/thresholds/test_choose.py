"""Thresholds: their values, when they move, and their robustness against outliers in the look-back."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from monitor.statistics.part import Scale, summarise
from monitor.statistics.sketch import EnergySketch, order_statistic_quantiles
from monitor.thresholds.choose import choose_threshold, count_reference_above
from monitor.thresholds.percentile import (
    MAX_GUARD_MISFIT,
    ThresholdEstimate,
    estimate_anchored_threshold,
    estimate_percentile_threshold,
    estimate_reference_threshold,
    exceedance,
    exceedance_interval,
)

CLEAN = stats.gamma(8)
REFERENCE = np.sort(CLEAN.rvs(20_000, random_state=1).astype(np.float32))
SCALE = Scale.from_energies(REFERENCE)


def sketch_of(energies: np.ndarray, windows: int = 20) -> EnergySketch:
    pieces = np.array_split(energies.astype(np.float32), windows)
    return EnergySketch.from_parts([summarise(piece, piece > 20, SCALE) for piece in pieces], SCALE)


def clean_energies(n: int = 50_000, seed: int = 2) -> np.ndarray:
    return CLEAN.rvs(n, random_state=seed)


def contaminated(share: float, at: float = 200.0, n: int = 50_000) -> np.ndarray:
    energies = clean_energies(n)
    energies[:: round(1 / share)] = at
    return energies


def test_exceedances_are_exact_decimals() -> None:
    assert [exceedance(p) for p in (99, 99.5, 99.9, 99.99)] == [0.01, 0.005, 0.001, 0.0001]


@pytest.mark.parametrize("percentile", [0, 100, -1, 101, np.nan])
def test_percentile_outside_its_range_is_rejected(percentile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        exceedance(percentile)


def test_quantiles_of_a_sample_and_of_its_sketch_are_equal() -> None:
    energies = np.sort(clean_energies(4000).astype(np.float32))
    p = np.array([0.97, 0.99, 0.999, 0.99999])
    quantiles = order_statistic_quantiles(energies, p)
    assert quantiles.tolist() == pytest.approx(sketch_of(energies[::-1]).quantiles(p).tolist(), rel=1e-12)


def test_exceedance_interval_is_that_of_an_order_statistic() -> None:
    low, high = exceedance_interval(19_999, 0.001, 1.0)
    distribution = stats.beta(20, 19_980)
    assert (distribution.cdf(low), distribution.cdf(high)) == pytest.approx((0.05, 0.95))


def test_dispersion_widens_the_interval() -> None:
    low, high = exceedance_interval(19_999, 0.001, 1.0)
    wide_low, wide_high = exceedance_interval(19_999, 0.001, 4.0)
    assert wide_low < low < high < wide_high


def test_reference_threshold_is_the_percentile_with_its_interval() -> None:
    estimate = estimate_reference_threshold(REFERENCE, 99.5)
    assert (estimate.method, estimate.n, estimate.percentile) == ("reference", 20_000, 99.5)
    assert estimate.lower < CLEAN.ppf(0.995) < estimate.upper
    assert estimate.lower < estimate.value < estimate.upper


def test_reference_interval_contains_the_percentile_nine_times_in_ten() -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        estimate = estimate_reference_threshold(np.sort(rng.gamma(8, 1, 4000).astype(np.float32)), 99.5)
        held += estimate.lower <= CLEAN.ppf(0.995) <= estimate.upper
    assert 0.85 < held / 400 < 0.95


def test_reference_threshold_without_energies_is_rejected() -> None:
    with pytest.raises(ValueError, match="fit the model on more events"):
        estimate_reference_threshold(np.empty(0, np.float32), 99)


def test_thresholds_are_float32_numbers() -> None:
    for estimate in (
        estimate_reference_threshold(REFERENCE, 99.37),
        estimate_percentile_threshold(sketch_of(clean_energies()), 77),
        estimate_anchored_threshold(sketch_of(contaminated(0.05)), REFERENCE, 99.37),
    ):
        for value in (estimate.value, estimate.lower, estimate.upper):
            assert value == float(np.float32(value))


def test_threshold_details_survive_json() -> None:
    estimate = estimate_anchored_threshold(sketch_of(contaminated(0.05)), REFERENCE, 99.5)
    assert json.loads(json.dumps(estimate.details, allow_nan=False)) == estimate.details
    assert {"t_plain", "t_anchored", "t_high", "eps", "location", "scale"} <= set(estimate.details)


def test_plain_threshold_is_the_percentile_of_the_look_back() -> None:
    energies = clean_energies()
    estimate = estimate_percentile_threshold(sketch_of(energies), 99.5)
    assert (energies > estimate.value).sum() == pytest.approx(250, abs=1)
    assert estimate.lower < CLEAN.ppf(0.995) < estimate.upper
    assert estimate.details["exact"] is True


def test_interval_includes_the_bin_of_the_histogram() -> None:
    sketch = sketch_of(np.concatenate([clean_energies(400_000), np.full(10_000, 300.0)]), windows=41)
    estimate = estimate_percentile_threshold(sketch, 95)
    low, high = sketch.bracket(0.95)
    assert estimate.details["exact"] is False
    assert estimate.lower <= low < estimate.value < high <= estimate.upper


def test_outliers_raise_a_plain_threshold() -> None:
    estimate = estimate_percentile_threshold(sketch_of(contaminated(0.01)), 99.5)
    assert estimate.value == 200


@pytest.mark.parametrize("percentile", [99, 99.5, 99.9])
@pytest.mark.parametrize("share", [0.001, 0.005, 0.02, 0.05])
def test_outliers_do_not_raise_an_anchored_threshold(percentile: float, share: float) -> None:
    estimate = estimate_anchored_threshold(sketch_of(contaminated(share)), REFERENCE, percentile)
    assert 1 / 3 < CLEAN.sf(estimate.value) / exceedance(percentile) < 3


def test_anchored_threshold_follows_location_and_scale_of_clean_energies() -> None:
    energies = contaminated(0.02)
    energies = np.where(energies < 200, 30 + 4 * energies, 2000)
    estimate = estimate_anchored_threshold(sketch_of(energies), REFERENCE, 99.5)
    assert estimate.method == "anchored"
    assert 1 / 3 < CLEAN.sf((estimate.value - 30) / 4) / 0.005 < 3
    assert estimate.details["location"] == pytest.approx(30, abs=1)
    assert estimate.details["scale"] == pytest.approx(4, abs=0.15)
    assert estimate.details["eps"] == pytest.approx(0.02, abs=0.002)


def test_plain_percentile_is_used_while_the_look_back_is_clean() -> None:
    sketch = sketch_of(clean_energies())
    estimate = estimate_anchored_threshold(sketch, REFERENCE, 99.5)
    assert estimate.method == "plain"
    assert estimate.value == estimate_percentile_threshold(sketch, 99.5).value


def test_lighter_tail_lowers_the_threshold() -> None:
    energies = np.minimum(clean_energies(), CLEAN.ppf(0.98))
    estimate = estimate_anchored_threshold(sketch_of(energies), REFERENCE, 99.5)
    assert (estimate.method, estimate.value) == ("plain", np.float32(CLEAN.ppf(0.98)))


def test_burst_in_half_of_the_look_back_does_not_raise_the_threshold() -> None:
    energies = clean_energies()
    energies[:2500] = 300
    estimate = estimate_anchored_threshold(sketch_of(energies), REFERENCE, 99.9)
    assert 1 / 3 < CLEAN.sf(estimate.value) / 0.001 < 3


def test_threshold_of_equal_reference_energies_moves_with_the_location() -> None:
    reference = np.full(20_000, 5, np.float32)
    energies = np.full(60_000, 7, np.float32)
    sketch = EnergySketch.from_part(
        summarise(energies, energies > 9, Scale.from_energies(reference)), Scale.from_energies(reference)
    )
    estimate = estimate_anchored_threshold(sketch, reference, 99.9)
    assert estimate.value == pytest.approx(7, abs=0.03)
    assert (estimate.lower <= estimate.value <= estimate.upper) is True


def test_energies_near_the_float32_maximum_give_a_finite_threshold() -> None:
    reference = np.sort(np.random.default_rng(3).uniform(-3e38, 3e38, 20_000).astype(np.float32))
    scale = Scale.from_energies(reference)
    energies = np.random.default_rng(4).uniform(-3e38, 3e38, 60_000).astype(np.float32)
    estimate = choose_threshold(
        None, EnergySketch.from_part(summarise(energies, energies > 1, scale), scale), reference, 99.9
    )
    assert np.isfinite([estimate.value, estimate.lower, estimate.upper]).all()


def test_negative_energies_have_a_threshold() -> None:
    reference = np.sort(REFERENCE - np.float32(100))
    scale = Scale.from_energies(reference)
    energies = (clean_energies() - 100).astype(np.float32)
    estimate = choose_threshold(
        None, EnergySketch.from_part(summarise(energies, energies > 0, scale), scale), reference, 99.5
    )
    assert CLEAN.sf(estimate.value + 100) == pytest.approx(0.005, rel=0.2)


def previous_estimate() -> ThresholdEstimate:
    return estimate_reference_threshold(REFERENCE, 99.9)


def test_look_back_without_an_expected_exceedance_holds_the_threshold() -> None:
    estimate = choose_threshold(previous_estimate(), sketch_of(clean_energies(999) + 50), REFERENCE, 99.9)
    assert estimate.value == previous_estimate().value
    assert estimate.details["held"] == "p99.9 needs 1,000 events in the look-back, it has 999"


def test_look_back_with_few_events_is_pooled_with_the_reference() -> None:
    estimate = choose_threshold(previous_estimate(), sketch_of(clean_energies(49_999) + 50), REFERENCE, 99.9)
    assert estimate.method == "pooled"
    assert estimate.value > previous_estimate().value + 40


def test_look_back_with_just_enough_events_moves_the_threshold() -> None:
    estimate = choose_threshold(previous_estimate(), sketch_of(clean_energies(50_000) + 50), REFERENCE, 99.9)
    assert estimate.value > previous_estimate().value + 40
    assert "held" not in estimate.details


def test_small_reference_does_not_anchor_the_percentile() -> None:
    estimate = choose_threshold(previous_estimate(), sketch_of(clean_energies() + 50), REFERENCE[::2], 99.9)
    assert (estimate.method, "location" in estimate.details) == ("plain", False)
    assert CLEAN.sf(estimate.value - 50) == pytest.approx(0.001, rel=0.5)


def test_body_of_another_shape_is_not_overruled_by_the_reference() -> None:
    # A metric that often stands still: no line maps the reference onto its energies.
    energies = np.where(np.arange(50_000) % 2 == 0, 5.0, clean_energies() * 2)
    estimate = estimate_anchored_threshold(sketch_of(energies), REFERENCE, 99)
    assert float(str(estimate.details["misfit"])) > MAX_GUARD_MISFIT
    assert (energies > estimate.value).mean() == pytest.approx(0.01, rel=0.05)


def far_sketch(location: float) -> EnergySketch:
    """Return a look-back at another location.

    A burst keeps the lists of largest energies from covering the body.
    """
    energies = clean_energies() / 5 + location
    energies[:2000] = location + 1000
    return sketch_of(energies)


def test_body_moved_by_some_spreads_is_still_compared() -> None:
    assert choose_threshold(previous_estimate(), far_sketch(20), REFERENCE, 99.5).method == "anchored"


def test_body_in_too_few_bins_holds_the_threshold() -> None:
    previous = estimate_reference_threshold(REFERENCE, 99.5)
    for location in (200.0, 1e6, 1e30):
        estimate = choose_threshold(previous, far_sketch(location), REFERENCE, 99.5)
        assert estimate.value == previous.value
        assert "too coarse to compare: fit again" in str(estimate.details["held"])
        assert choose_threshold(None, far_sketch(location), REFERENCE, 99.5).value == previous.value


def test_equal_reference_energies_do_not_make_the_bins_too_coarse() -> None:
    reference = np.full(20_000, 5, np.float32)
    energies = np.full(60_000, 5, np.float32)
    sketch = EnergySketch.from_part(
        summarise(energies, energies > 9, Scale.from_energies(reference)), Scale.from_energies(reference)
    )
    estimate = choose_threshold(None, sketch, reference, 99.5)
    assert (estimate.value, estimate.method) == (5, "plain")


def test_just_enough_reference_energies_anchor_the_threshold() -> None:
    estimate = choose_threshold(previous_estimate(), sketch_of(contaminated(0.05)), REFERENCE, 99.9)
    assert estimate.method == "anchored"


def test_first_threshold_of_few_events_is_that_of_the_reference() -> None:
    estimate = choose_threshold(None, sketch_of(np.empty(0)), REFERENCE, 99.5)
    assert estimate.method == "reference"
    assert estimate.value == estimate_reference_threshold(REFERENCE, 99.5).value
    assert "look-back" in str(estimate.details["held"])


def test_threshold_of_another_percentile_is_not_held() -> None:
    estimate = choose_threshold(previous_estimate(), sketch_of(clean_energies(99)), REFERENCE, 99)
    assert (estimate.percentile, estimate.method) == (99, "reference")


def test_model_without_reference_has_the_plain_percentile() -> None:
    estimate = choose_threshold(None, sketch_of(contaminated(0.05)), None, 99.5)
    assert (estimate.method, estimate.value) == ("plain", 200)


def test_reference_is_counted_at_its_own_threshold() -> None:
    estimate = estimate_reference_threshold(REFERENCE, 99.5)
    above, n = count_reference_above(estimate, REFERENCE)
    assert (above, n) == (int((estimate.value < REFERENCE).sum()), 20_000)


def test_anchored_threshold_is_mapped_back_to_the_reference() -> None:
    estimate = estimate_anchored_threshold(sketch_of(contaminated(0.05) * 3 + 7), REFERENCE, 99.5)
    above, n = count_reference_above(estimate, REFERENCE)
    assert n == 20_000
    assert above == pytest.approx(100, abs=2)


def test_windows_do_not_count_twice_at_their_own_percentile() -> None:
    for estimate in (
        estimate_percentile_threshold(sketch_of(clean_energies()), 99.5),
        estimate_anchored_threshold(sketch_of(clean_energies()), REFERENCE, 99.5),
    ):
        assert estimate.method == "plain"
        assert count_reference_above(estimate, REFERENCE) == (0, 0)


def test_reference_is_counted_for_a_held_threshold() -> None:
    plain = estimate_anchored_threshold(sketch_of(2 * clean_energies() - 5), REFERENCE, 99.5)
    held = choose_threshold(plain, sketch_of(np.empty(0)), REFERENCE, 99.5)
    above, n = count_reference_above(held, REFERENCE)
    assert n == 20_000
    assert above == pytest.approx(100, rel=0.3)


def test_model_without_reference_has_no_reference_counts() -> None:
    held = choose_threshold(
        estimate_percentile_threshold(sketch_of(clean_energies()), 99.5), sketch_of(np.empty(0)), None, 99.5
    )
    assert count_reference_above(held, None) == (0, 0)
    assert count_reference_above(held, REFERENCE) == (0, 0)


def test_first_threshold_without_reference_is_marked_as_held() -> None:
    estimate = choose_threshold(None, sketch_of(clean_energies(500)), None, 99.9)
    assert (estimate.method, estimate.n) == ("plain", 500)
    assert "50,000 events in the look-back" in str(estimate.details["held"])


def test_mapping_without_a_valid_scale_has_no_reference_counts() -> None:
    estimate = choose_threshold(None, sketch_of(contaminated(0.02)), REFERENCE, 99.5)
    assert count_reference_above(estimate, REFERENCE)[1] == len(REFERENCE)
    for scale in (0.0, -1.0, None):
        unmapped = replace(estimate, details=estimate.details | {"scale": scale})
        assert count_reference_above(unmapped, REFERENCE) == (0, 0)
