"""Limits: what they are, when they move, and what outliers in the look-back do to them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from monitor.statistics.part import Scale, summarise
from monitor.statistics.sketch import EnergySketch, order_statistic_quantiles
from monitor.thresholds.choose import choose_threshold, count_reference_above
from monitor.thresholds.percentile import (
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
def test_a_percentile_outside_its_range_is_refused(percentile: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        exceedance(percentile)


def test_quantiles_of_a_sample_and_of_its_sketch_are_the_same() -> None:
    energies = np.sort(clean_energies(4000).astype(np.float32))
    p = np.array([0.97, 0.99, 0.999, 0.99999])
    found = order_statistic_quantiles(energies, p)
    assert found.tolist() == pytest.approx(sketch_of(energies[::-1]).quantiles(p).tolist(), rel=1e-12)


def test_the_interval_of_the_exceedance_is_the_beta_law_of_an_order_statistic() -> None:
    low, high = exceedance_interval(19_999, 0.001, 1.0)
    law = stats.beta(20, 19_980)
    assert (law.cdf(low), law.cdf(high)) == pytest.approx((0.05, 0.95))


def test_dispersion_widens_the_interval() -> None:
    low, high = exceedance_interval(19_999, 0.001, 1.0)
    wide_low, wide_high = exceedance_interval(19_999, 0.001, 4.0)
    assert wide_low < low < high < wide_high


def test_a_reference_limit_is_the_percentile_with_its_interval() -> None:
    limit = estimate_reference_threshold(REFERENCE, 99.5)
    assert (limit.method, limit.n, limit.percentile) == ("reference", 20_000, 99.5)
    assert limit.lower < CLEAN.ppf(0.995) < limit.upper
    assert limit.lower < limit.value < limit.upper


def test_the_interval_of_a_reference_limit_holds_the_percentile_nine_times_in_ten() -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(400):
        limit = estimate_reference_threshold(np.sort(rng.gamma(8, 1, 4000).astype(np.float32)), 99.5)
        held += limit.lower <= CLEAN.ppf(0.995) <= limit.upper
    assert 0.85 < held / 400 < 0.95


def test_a_reference_limit_needs_reference_energies() -> None:
    with pytest.raises(ValueError, match="fit the model on more events"):
        estimate_reference_threshold(np.empty(0, np.float32), 99)


def test_a_limit_is_a_number_of_single_precision() -> None:
    for limit in (
        estimate_reference_threshold(REFERENCE, 99.37),
        estimate_percentile_threshold(sketch_of(clean_energies()), 77),
        estimate_anchored_threshold(sketch_of(contaminated(0.05)), REFERENCE, 99.37),
    ):
        for value in (limit.value, limit.lower, limit.upper):
            assert value == float(np.float32(value))


def test_a_limit_and_all_that_led_to_it_can_be_stored_as_json() -> None:
    limit = estimate_anchored_threshold(sketch_of(contaminated(0.05)), REFERENCE, 99.5)
    assert json.loads(json.dumps(limit.details, allow_nan=False)) == limit.details
    assert {"t_plain", "t_anchored", "t_high", "eps", "location", "scale"} <= set(limit.details)


def test_a_plain_limit_is_the_percentile_of_the_look_back() -> None:
    energies = clean_energies()
    limit = estimate_percentile_threshold(sketch_of(energies), 99.5)
    assert (energies > limit.value).sum() == pytest.approx(250, abs=1)
    assert limit.lower < CLEAN.ppf(0.995) < limit.upper
    assert limit.details["exact"] is True


def test_the_interval_includes_the_bin_where_the_histogram_decides() -> None:
    sketch = sketch_of(np.concatenate([clean_energies(400_000), np.full(10_000, 300.0)]), windows=41)
    limit = estimate_percentile_threshold(sketch, 95)
    low, high = sketch.bracket(0.95)
    assert limit.details["exact"] is False
    assert limit.lower <= low < limit.value < high <= limit.upper


def test_outliers_blind_a_plain_limit() -> None:
    limit = estimate_percentile_threshold(sketch_of(contaminated(0.01)), 99.5)
    assert limit.value == 200


@pytest.mark.parametrize("percentile", [99, 99.5, 99.9])
@pytest.mark.parametrize("share", [0.001, 0.005, 0.02, 0.05])
def test_outliers_do_not_blind_an_anchored_limit(percentile: float, share: float) -> None:
    limit = estimate_anchored_threshold(sketch_of(contaminated(share)), REFERENCE, percentile)
    assert 1 / 3 < CLEAN.sf(limit.value) / exceedance(percentile) < 3


def test_an_anchored_limit_follows_the_location_and_scale_of_clean_energies() -> None:
    energies = contaminated(0.02)
    energies = np.where(energies < 200, 30 + 4 * energies, 2000)
    limit = estimate_anchored_threshold(sketch_of(energies), REFERENCE, 99.5)
    assert limit.method == "anchored"
    assert 1 / 3 < CLEAN.sf((limit.value - 30) / 4) / 0.005 < 3
    assert limit.details["location"] == pytest.approx(30, abs=1)
    assert limit.details["scale"] == pytest.approx(4, abs=0.15)
    assert limit.details["eps"] == pytest.approx(0.02, abs=0.002)


def test_the_plain_percentile_stands_while_the_look_back_is_clean() -> None:
    sketch = sketch_of(clean_energies())
    limit = estimate_anchored_threshold(sketch, REFERENCE, 99.5)
    assert limit.method == "plain"
    assert limit.value == estimate_percentile_threshold(sketch, 99.5).value


def test_a_lower_tail_lowers_the_limit_for_the_guard_is_one_sided() -> None:
    energies = np.minimum(clean_energies(), CLEAN.ppf(0.98))
    limit = estimate_anchored_threshold(sketch_of(energies), REFERENCE, 99.5)
    assert (limit.method, limit.value) == ("plain", np.float32(CLEAN.ppf(0.98)))


def test_a_burst_in_half_of_the_look_back_does_not_blind_the_limit() -> None:
    energies = clean_energies()
    energies[:2500] = 300
    limit = estimate_anchored_threshold(sketch_of(energies), REFERENCE, 99.9)
    assert 1 / 3 < CLEAN.sf(limit.value) / 0.001 < 3


def test_equal_reference_energies_give_a_limit_that_moves_with_the_location() -> None:
    reference = np.full(20_000, 5, np.float32)
    energies = np.full(60_000, 7, np.float32)
    sketch = EnergySketch.from_part(
        summarise(energies, energies > 9, Scale.from_energies(reference)), Scale.from_energies(reference)
    )
    limit = estimate_anchored_threshold(sketch, reference, 99.9)
    assert limit.value == pytest.approx(7, abs=0.03)
    assert (limit.lower <= limit.value <= limit.upper) is True


def test_energies_at_the_end_of_single_precision_give_a_finite_limit() -> None:
    reference = np.sort(np.random.default_rng(3).uniform(-3e38, 3e38, 20_000).astype(np.float32))
    scale = Scale.from_energies(reference)
    energies = np.random.default_rng(4).uniform(-3e38, 3e38, 60_000).astype(np.float32)
    limit = choose_threshold(
        None, EnergySketch.from_part(summarise(energies, energies > 1, scale), scale), reference, 99.9
    )
    assert np.isfinite([limit.value, limit.lower, limit.upper]).all()


def test_negative_energies_have_limits_too() -> None:
    reference = np.sort(REFERENCE - np.float32(100))
    scale = Scale.from_energies(reference)
    energies = (clean_energies() - 100).astype(np.float32)
    limit = choose_threshold(
        None, EnergySketch.from_part(summarise(energies, energies > 0, scale), scale), reference, 99.5
    )
    assert CLEAN.sf(limit.value + 100) == pytest.approx(0.005, rel=0.2)


def previous_limit() -> ThresholdEstimate:
    return estimate_reference_threshold(REFERENCE, 99.9)


def test_a_look_back_of_few_events_does_not_move_the_limit_and_says_why() -> None:
    limit = choose_threshold(previous_limit(), sketch_of(clean_energies(49_999) + 50), REFERENCE, 99.9)
    assert limit.value == previous_limit().value
    assert limit.details["held"] == "p99.9 needs 50,000 events in the look-back, it has 49,999"


def test_a_look_back_of_just_enough_events_moves_the_limit() -> None:
    limit = choose_threshold(previous_limit(), sketch_of(clean_energies(50_000) + 50), REFERENCE, 99.9)
    assert limit.value > previous_limit().value + 40
    assert "held" not in limit.details


def test_a_reference_of_few_energies_does_not_move_the_limit_and_says_why() -> None:
    limit = choose_threshold(previous_limit(), sketch_of(clean_energies() + 50), REFERENCE[::2], 99.9)
    assert limit.value == previous_limit().value
    assert limit.details["held"] == "p99.9 needs 20,000 reference energies, the model has 10,000: fit on more"


def far_sketch(location: float) -> EnergySketch:
    """Return a look-back at another location, with a burst that keeps the lists of largest from covering the body."""
    energies = clean_energies() / 5 + location
    energies[:2000] = location + 1000
    return sketch_of(energies)


def test_a_body_that_moved_some_spreads_away_is_still_compared() -> None:
    assert choose_threshold(previous_limit(), far_sketch(20), REFERENCE, 99.5).method == "anchored"


def test_a_body_in_too_few_bins_does_not_move_the_limit_and_says_so() -> None:
    previous = estimate_reference_threshold(REFERENCE, 99.5)
    for location in (200.0, 1e6, 1e30):
        limit = choose_threshold(previous, far_sketch(location), REFERENCE, 99.5)
        assert limit.value == previous.value
        assert "too coarse to compare: fit again" in str(limit.details["held"])
        assert choose_threshold(None, far_sketch(location), REFERENCE, 99.5).value == previous.value


def test_equal_reference_energies_do_not_make_the_bins_too_coarse() -> None:
    reference = np.full(20_000, 5, np.float32)
    energies = np.full(60_000, 5, np.float32)
    sketch = EnergySketch.from_part(
        summarise(energies, energies > 9, Scale.from_energies(reference)), Scale.from_energies(reference)
    )
    limit = choose_threshold(None, sketch, reference, 99.5)
    assert (limit.value, limit.method) == (5, "plain")


def test_just_enough_reference_energies_anchor_the_limit() -> None:
    limit = choose_threshold(previous_limit(), sketch_of(contaminated(0.05)), REFERENCE, 99.9)
    assert limit.method == "anchored"


def test_a_first_limit_of_few_events_is_the_reference_s() -> None:
    limit = choose_threshold(None, sketch_of(np.empty(0)), REFERENCE, 99.5)
    assert limit.method == "reference"
    assert limit.value == estimate_reference_threshold(REFERENCE, 99.5).value
    assert "look-back" in str(limit.details["held"])


def test_a_limit_of_another_percentile_is_not_held() -> None:
    limit = choose_threshold(previous_limit(), sketch_of(clean_energies(100)), REFERENCE, 99)
    assert (limit.percentile, limit.method) == (99, "reference")


def test_a_model_without_reference_has_the_plain_percentile() -> None:
    limit = choose_threshold(None, sketch_of(contaminated(0.05)), None, 99.5)
    assert (limit.method, limit.value) == ("plain", 200)


def test_the_reference_counts_once_at_the_limit_that_comes_from_it() -> None:
    limit = estimate_reference_threshold(REFERENCE, 99.5)
    above, n = count_reference_above(limit, REFERENCE)
    assert (above, n) == (int((limit.value < REFERENCE).sum()), 20_000)


def test_an_anchored_limit_is_mapped_back_to_the_reference() -> None:
    limit = estimate_anchored_threshold(sketch_of(contaminated(0.05) * 3 + 7), REFERENCE, 99.5)
    above, n = count_reference_above(limit, REFERENCE)
    assert n == 20_000
    assert above == pytest.approx(100, abs=2)


def test_windows_do_not_count_twice_at_their_own_percentile() -> None:
    for limit in (
        estimate_percentile_threshold(sketch_of(clean_energies()), 99.5),
        estimate_anchored_threshold(sketch_of(clean_energies()), REFERENCE, 99.5),
    ):
        assert limit.method == "plain"
        assert count_reference_above(limit, REFERENCE) == (0, 0)


def test_the_reference_counts_for_a_limit_that_outlived_its_look_back() -> None:
    plain = estimate_anchored_threshold(sketch_of(2 * clean_energies() - 5), REFERENCE, 99.5)
    held = choose_threshold(plain, sketch_of(np.empty(0)), REFERENCE, 99.5)
    above, n = count_reference_above(held, REFERENCE)
    assert n == 20_000
    assert above == pytest.approx(100, rel=0.3)


def test_a_limit_of_a_model_without_reference_has_no_reference_counts() -> None:
    held = choose_threshold(
        estimate_percentile_threshold(sketch_of(clean_energies()), 99.5), sketch_of(np.empty(0)), None, 99.5
    )
    assert count_reference_above(held, None) == (0, 0)
    assert count_reference_above(held, REFERENCE) == (0, 0)


def test_a_first_limit_of_few_events_without_reference_is_their_own_and_says_so() -> None:
    limit = choose_threshold(None, sketch_of(clean_energies(500)), None, 99.9)
    assert (limit.method, limit.n) == ("plain", 500)
    assert "50,000 events in the look-back" in str(limit.details["held"])


def test_a_mapping_without_scale_counts_no_reference() -> None:
    limit = choose_threshold(None, sketch_of(contaminated(0.02)), REFERENCE, 99.5)
    assert count_reference_above(limit, REFERENCE)[1] == len(REFERENCE)
    for scale in (0.0, -1.0, None):
        unmapped = replace(limit, details=limit.details | {"scale": scale})
        assert count_reference_above(unmapped, REFERENCE) == (0, 0)
