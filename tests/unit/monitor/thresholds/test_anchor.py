"""The anchor: location, scale and share of outliers of the look-back against the reference."""

import numpy as np
import pytest
from scipy import stats

from monitor.statistics.part import Scale, summarise_windows
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.anchor import fit_anchor

CLEAN = stats.gamma(8)
REFERENCE = np.sort(CLEAN.rvs(20_000, random_state=1).astype(np.float32))
SCALE = Scale.from_energies(REFERENCE)


def sketch_of(energies: np.ndarray, windows: int = 100) -> EnergySketch:
    of_window = np.repeat(np.arange(windows), len(energies) // windows)
    energies = energies.astype(np.float32)
    parts = summarise_windows(energies, energies > 20, of_window, windows, SCALE)
    return EnergySketch.from_parts(map(parts.window, range(windows)), SCALE)


@pytest.mark.parametrize("scale", [0.2, 1.0, 10.0])
@pytest.mark.parametrize("location", [-10.0, 0.0, 10.0])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.05])
def test_location_scale_and_share_are_found(location: float, scale: float, share: float) -> None:
    energies = location + scale * CLEAN.rvs(50_000, random_state=2)
    energies[: round(share * 50_000)] = location + scale * 300
    anchor = fit_anchor(sketch_of(energies), REFERENCE, 0.005)
    assert anchor.resolved
    assert anchor.location + anchor.scale * 8 == pytest.approx(location + scale * 8, abs=0.2 * scale)
    assert anchor.scale == pytest.approx(scale, rel=0.06)
    assert anchor.outlier_share == pytest.approx(share, abs=0.002)


def test_highest_accepted_threshold_has_two_thirds_of_the_exceedance() -> None:
    anchor = fit_anchor(sketch_of(CLEAN.rvs(50_000, random_state=3)), REFERENCE, 0.005)
    assert CLEAN.sf(anchor.t_high) / CLEAN.sf(anchor.t_anchored) == pytest.approx(2 / 3, rel=0.1)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.4])
@pytest.mark.parametrize("place", ["far", "near"])
def test_up_to_40_percent_of_outliers_are_found(share: float, place: str) -> None:
    rng = np.random.default_rng(4)
    energies = rng.gamma(8, 1, 50_000)
    n = round(share * 50_000)
    energies[:n] = rng.uniform(60, 260, n) if place == "far" else rng.uniform(40, 43, n)
    anchor = fit_anchor(sketch_of(energies), REFERENCE, 0.005)
    assert anchor.outlier_share == pytest.approx(share, abs=0.005)
    assert anchor.misfit < 0.03
    assert 1 / 2 < CLEAN.sf(anchor.t_anchored) / 0.005 < 2


def test_drift_of_another_shape_is_not_mistaken_for_outliers() -> None:
    energies = np.random.default_rng(5).gamma(1, 4, 50_000)
    anchor = fit_anchor(sketch_of(energies), REFERENCE, 0.005)
    assert anchor.misfit > 0.03
    assert anchor.outlier_share < 0.05


def test_equal_look_back_energies_give_a_line_without_slope() -> None:
    anchor = fit_anchor(sketch_of(np.full(50_000, 9.0)), REFERENCE, 0.005)
    assert anchor.scale == pytest.approx(0, abs=0.01)
    assert anchor.t_anchored == pytest.approx(9, abs=0.1)


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_outliers_just_above_the_threshold_are_found(share: float) -> None:
    rng = np.random.default_rng(6)
    energies = rng.gamma(8, 1, 50_000)
    threshold, n = CLEAN.ppf(0.999), round(share * 50_000)
    energies[:n] = rng.uniform(threshold, threshold + 1.9, n)
    anchor = fit_anchor(sketch_of(energies), REFERENCE, 0.001)
    assert anchor.outlier_share > share / 3
    assert 1 / 2 < CLEAN.sf(anchor.t_anchored) / 0.001 < 2


def test_heavy_tail_of_the_reference_is_no_share_of_outliers() -> None:
    rng = np.random.default_rng(7)
    energies = stats.t(4).rvs(50_000, random_state=rng) ** 2 + 4
    reference = np.sort(stats.t(4).rvs(20_000, random_state=rng).astype(np.float32) ** 2 + np.float32(4))
    anchor = fit_anchor(sketch_of(energies), reference, 0.005)
    assert anchor.outlier_share < 0.005
    assert anchor.misfit < 0.03
