"""Quantiles and tails of merged windows: exact where the lists reach, within one bin elsewhere."""

import numpy as np
import pytest

from monitor.statistics import sketch as sketch_module
from monitor.statistics.part import Part, Scale, summarise
from monitor.statistics.sketch import EnergySketch, summarise_energies

SCALE = Scale(median=8.0, iqr=4.0)


def part_of(energies: np.ndarray) -> Part:
    return summarise(energies.astype(np.float32), energies > 20, SCALE)


def sketch_of(*windows: np.ndarray) -> EnergySketch:
    return EnergySketch.from_parts([part_of(window) for window in windows], SCALE)


def weibull(energies: np.ndarray, p: float) -> float:
    return float(np.quantile(energies.astype(np.float32).astype(np.float64), p, method="weibull"))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.99])
def test_quantiles_of_a_small_window_are_exact(p: float) -> None:
    energies = np.random.default_rng(1).gamma(8, 1, 200)
    assert sketch_of(energies).quantile(p) == pytest.approx(weibull(energies, p), rel=1e-12)


def test_tail_quantiles_of_many_large_windows_are_exact() -> None:
    windows = np.random.default_rng(2).gamma(8, 1, (20, 3000))
    merged = sketch_of(*windows)
    assert merged.quantile(0.99) == pytest.approx(weibull(windows.ravel(), 0.99), rel=1e-12)
    assert merged.survival(merged.complete_above + 1) == (windows > merged.complete_above + 1).mean()


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.7, 0.9])
def test_body_quantiles_are_within_a_fraction_of_a_bin(p: float) -> None:
    windows = np.random.default_rng(3).gamma(8, 1, (20, 3000))
    estimate, truth = sketch_of(*windows).quantile(p), weibull(windows.ravel(), p)
    assert abs(estimate - truth) < 0.02 * np.hypot(truth - SCALE.median, SCALE.iqr) / 4


def test_histogram_gives_the_tail_that_a_window_of_outliers_hides() -> None:
    windows = np.random.default_rng(4).gamma(8, 1, (20, 3000))
    merged = sketch_of(*windows, np.full(3000, 500.0))
    assert merged.complete_above == 500
    clean = weibull(windows.ravel(), 0.99)
    assert merged.quantile(0.99 * 20 / 21) == pytest.approx(clean, rel=0.02)
    low, high = merged.bracket(0.99 * 20 / 21)
    assert low < clean < high


def test_equal_energies_have_exact_tail_quantiles() -> None:
    merged = sketch_of(*[np.full(1000, 9.25)] * 5)
    assert merged.quantiles(np.array([0.8, 0.99, 0.9999])).tolist() == [9.25] * 3
    assert merged.quantile(0.1) == pytest.approx(9.25, abs=0.02 * 4.2)
    assert merged.count_above(9.25) == 0
    assert merged.count_above(9.2) == 5000


def test_quantile_of_one_event_is_its_energy() -> None:
    assert sketch_of(np.array([-3.5])).quantile(0.995) == -3.5


def test_quantile_of_an_empty_sketch_is_rejected() -> None:
    empty = EnergySketch.from_parts([], SCALE)
    assert empty.count_above(0) == 0
    for call in (lambda: empty.quantile(0.5), lambda: empty.survival(0.0), lambda: empty.bracket(0.5)):
        with pytest.raises(ValueError, match="no events"):
            call()


def test_distant_energies_keep_their_order_and_values() -> None:
    energies = np.array([1e30, -1e30, 3e38, 5.0])
    merged = sketch_of(energies)
    assert merged.quantile(0.999) == np.float32(3e38)
    assert merged.count_above(1e29) == 2


def test_exact_list_is_bounded_and_the_histogram_holds_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    windows = np.random.default_rng(5).gamma(8, 1, (40, 250))
    whole = sketch_of(*windows)
    monkeypatch.setattr(sketch_module, "MAX_EXACT_ENERGIES", 1000)
    bounded = sketch_of(*windows)
    assert (len(whole.top), len(bounded.top)) == (10_000, 1000)
    assert bounded.quantile(0.95) == whole.quantile(0.95)
    assert bounded.quantile(0.5) == pytest.approx(whole.quantile(0.5), abs=0.02)


def test_window_summary_has_median_99th_percentile_and_maximum() -> None:
    energies = np.random.default_rng(6).gamma(8, 1, 6000)
    summary = summarise_energies(part_of(energies), SCALE)
    assert summary is not None
    assert summary.p50 == pytest.approx(weibull(energies, 0.5), abs=0.05)
    assert summary.p99 == pytest.approx(weibull(energies, 0.99), rel=1e-12)
    assert summary.maximum == np.float32(energies.max())


def test_window_without_events_has_no_energy_summary() -> None:
    assert summarise_energies(Part.without_events(late=3), SCALE) is None
