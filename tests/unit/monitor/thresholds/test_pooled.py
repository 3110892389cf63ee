"""Pooled thresholds: the weights of reference and look-back, the percentile, its interval and its counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from monitor.statistics.counts import fit_count_model
from monitor.statistics.part import Scale, summarise
from monitor.statistics.sketch import EnergySketch, order_statistic_quantiles
from monitor.thresholds.bounds import UNBOUNDED
from monitor.thresholds.choose import choose_threshold, count_reference_above
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.percentile import ThresholdEstimate
from monitor.thresholds.pooled import estimate_pooled_threshold, weigh_pool

CLEAN = stats.gamma(8)
REFERENCE = np.sort(CLEAN.rvs(10_000, random_state=1).astype(np.float32))
SCALE = Scale.from_energies(REFERENCE)


def sketch_of(energies: np.ndarray, windows: int = 5) -> EnergySketch:
    pieces = np.array_split(energies.astype(np.float32), windows)
    return EnergySketch.from_parts([summarise(piece, piece > 20, SCALE) for piece in pieces], SCALE)


def pooled(energies: np.ndarray, reference: np.ndarray = REFERENCE, dispersion: float = 1.0) -> ThresholdEstimate:
    estimate = estimate_pooled_threshold(sketch_of(energies), reference, 99.5, dispersion=dispersion)
    assert estimate is not None
    return estimate


def live(n: int, seed: int = 2) -> np.ndarray:
    return CLEAN.rvs(n, random_state=seed)


def test_weights_are_those_of_random_effects() -> None:
    weights = weigh_pool(10_000, 2_000, 0.005, 2.0)
    reference, look_back = 1 / (2 / 50 + 1), 10 / 2
    assert weights.reference_share == pytest.approx(reference / (reference + look_back))
    assert weights.effective_tail == pytest.approx(reference + look_back)


def test_reference_of_any_size_is_worth_about_one_exceedance() -> None:
    shares = [weigh_pool(m, 200, 0.005, 1.0).reference_share for m in (1_000, 10_000, 1_000_000)]
    assert shares == sorted(shares)
    assert shares[0] > 0.4
    assert shares[-1] == pytest.approx(0.5, abs=0.001)


def test_threshold_of_equal_distributions_is_their_percentile() -> None:
    assert CLEAN.sf(pooled(live(6_000)).value) == pytest.approx(0.005, rel=0.3)


def test_threshold_lies_between_the_two_percentiles() -> None:
    for n in (200, 1_000, 5_000):
        energies = live(n) * 2 + 10
        estimate = pooled(energies)
        of_reference = order_statistic_quantiles(REFERENCE, np.array([0.995]))[0]
        assert of_reference < estimate.value <= float(str(estimate.details["t_plain"]))


def test_threshold_moves_towards_live_energies_with_their_number() -> None:
    errors = []
    for n in (200, 1_000, 9_000):
        values = [pooled(live(n, seed) * 2 + 10).value for seed in range(20)]
        errors.append(float(np.sqrt(np.mean([np.log(CLEAN.sf((value - 10) / 2) / 0.005) ** 2 for value in values]))))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.25


def test_lower_live_energies_lower_the_threshold_less_than_the_reference_allows() -> None:
    estimate = pooled(live(1_000) / 2)
    assert CLEAN.ppf(0.995) / 2 < estimate.value < CLEAN.ppf(0.995)


def test_dispersion_gives_the_reference_more_weight() -> None:
    energies = live(2_000) * 2 + 10
    assert pooled(energies, dispersion=5.0).value < pooled(energies).value


@given(st.integers(200, 9_999), st.integers(20, 3_000), st.floats(1, 1e4), st.floats(-50, 50), st.integers(1, 40))
def test_threshold_has_the_pooled_exceedance(n: int, m: int, dispersion: float, moved: float, windows: int) -> None:
    energies, reference = (live(n) + moved).astype(np.float32), np.sort(live(m, 3).astype(np.float32))
    estimate = estimate_pooled_threshold(sketch_of(energies, windows), reference, 99.5, dispersion=dispersion)
    assert estimate is not None
    share = float(str(estimate.details["reference_share"]))

    def exceedance_of(energy: float) -> float:
        above_live, above = int((energies > energy).sum()), int((reference > energy).sum())
        return (1 - share) * above_live / (n + 1) + share * above / (m + 1)

    # Weights of single energies are larger than the exceedance for a small reference: the largest is the threshold.
    step = (1 - share) / (n + 1) + share / (m + 1)
    assert exceedance_of(estimate.value) <= 0.005 + 1e-9
    assert exceedance_of(np.nextafter(np.float32(estimate.value), np.float32(-np.inf))) >= 0.005 - 2 * step
    assert estimate.lower <= estimate.value <= estimate.upper


def test_interval_contains_the_pooled_percentile_and_is_wide_for_few_energies() -> None:
    few, many = pooled(live(400)), pooled(live(9_000))
    assert few.lower < many.lower < CLEAN.ppf(0.995) < many.upper < few.upper <= UNBOUNDED


def test_too_few_energies_are_not_pooled() -> None:
    assert estimate_pooled_threshold(sketch_of(live(199)), REFERENCE, 99.5) is None
    assert estimate_pooled_threshold(sketch_of(live(500)), REFERENCE[:0], 99.5) is None


def test_count_model_of_a_pooled_threshold_has_the_nominal_rate() -> None:
    energies = live(2_000) * 2 + 10
    estimate = choose_threshold(None, sketch_of(energies), REFERENCE, 99.5)
    assert estimate.method == "pooled"
    above, worth = count_reference_above(estimate, REFERENCE)
    x = (energies.astype(np.float32).reshape(40, 50) > estimate.value).sum(axis=1)
    count_model = fit_count_model(above, worth, x, np.full(40, 50))
    assert count_model.rate == pytest.approx(0.005, rel=0.1)
    # The reference counts as about one exceedance, whatever its size: 200 events.
    assert worth == pytest.approx(200, rel=0.05)
    assert count_model.calibration_n == 2_000 + worth


def test_held_pooled_threshold_keeps_its_counts() -> None:
    estimate = choose_threshold(None, sketch_of(live(2_000)), REFERENCE, 99.5)
    held = choose_threshold(estimate, sketch_of(np.empty(0)), REFERENCE, 99.5)
    assert held.value == estimate.value
    assert "held" in held.details
    assert count_reference_above(held, REFERENCE) == count_reference_above(estimate, REFERENCE)


def tail_of(windows: np.ndarray, dispersion: float = 1.0) -> np.ndarray:
    """Return the energies of windows, (windows, events), that count in a pooled percentile 99."""
    look_back = LookBack(SCALE)
    for number, energies in enumerate(windows.astype(np.float32)):
        look_back.add(number, summarise(energies, energies > 20, SCALE))
    return look_back.bounded_tail(0.01, dispersion)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1_000), st.integers(10, 120), st.floats(0.05, 1), st.floats(20, 1e6))
def test_no_single_window_moves_the_threshold_beyond_half_the_exceedance(
    seed: int, windows: int, share: float, energy: float
) -> None:
    """A threshold with any burst in one window is below the percentile at half the exceedance without the burst."""
    energies = CLEAN.rvs((windows, 40), random_state=seed)
    burst = energies.copy()
    burst[-1, : round(40 * share)] = energy
    estimate = estimate_pooled_threshold(sketch_of(burst.ravel(), windows), REFERENCE, 99, live_tail=tail_of(burst))
    clean = estimate_pooled_threshold(sketch_of(energies.ravel(), windows), REFERENCE, 99.5)
    assert estimate is not None
    assert clean is not None
    assert estimate.value <= clean.value


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1_000), st.integers(10, 120))
def test_bound_of_a_window_hardly_moves_the_threshold_of_independent_energies(seed: int, windows: int) -> None:
    energies = CLEAN.rvs((windows, 40), random_state=seed)
    sketch = sketch_of(energies.ravel(), windows)
    bounded = estimate_pooled_threshold(sketch, REFERENCE, 99, live_tail=tail_of(energies))
    plain = estimate_pooled_threshold(sketch, REFERENCE, 99)
    lower = estimate_pooled_threshold(sketch, REFERENCE, 98)
    assert bounded is not None
    assert plain is not None
    assert lower is not None
    assert lower.value < bounded.value <= plain.value


def test_tail_with_a_bound_reaches_the_percentile() -> None:
    for windows, events in ((1, 4_000), (3, 1_000), (400, 12)):
        energies = CLEAN.rvs((windows, events), random_state=3)
        sketch = sketch_of(energies.ravel(), windows)
        bounded = estimate_pooled_threshold(sketch, REFERENCE, 99, live_tail=tail_of(energies))
        plain = estimate_pooled_threshold(sketch, REFERENCE, 99)
        assert bounded is not None
        assert plain is not None
        assert bounded.value == pytest.approx(plain.value, rel=0.15)
