"""Tests of fits on degenerate columns: energies are finite and grow with distance."""

import numpy as np
import pytest

from monitor.detectors import GaussianMixture, load_detector

RNG = np.random.default_rng(0)
N = 800
BASE = RNG.normal(size=(N, 4))
KINDS = RNG.integers(0, 5, N)

CASES = {
    "one-hot": np.eye(5)[KINDS],
    "one-hot beside numbers": np.c_[BASE, np.eye(5)[KINDS]],
    "rare binary": np.c_[BASE, RNG.random(N) < 0.003],
    "constant": np.c_[BASE, np.full(N, 7.0), np.zeros(N)],
    "all constant": np.full((N, 3), 4.0),
    "duplicated": np.c_[BASE, BASE],
    "collinear": np.c_[BASE, BASE @ RNG.normal(size=(4, 3))],
    "log-normal": np.exp(3 * BASE),
    "deviations from 1e-8 to 1e8": BASE * 10.0 ** np.array([-8, 8, 0, 3]),
    "offset of 1e6 deviations": BASE + 1e6,
    "offset of 1e6 deviations in float32": (BASE + 1e6).astype(np.float32),
    "offset and scales": (BASE + 1e6) * 10.0 ** np.array([-8, 8, 0, 3]),
    "three rows repeated": np.repeat(BASE[:3], 200, axis=0),
    "whole numbers": RNG.integers(0, 3, (N, 3)).astype(float),
    "one far outlier": np.r_[BASE, [[1e9] * 4]],
    "cauchy": RNG.standard_cauchy((N, 4)),
    "one row": BASE[:1],
}


def column_scales(x):
    constant = np.where(np.abs(x[0]) > 0, np.abs(x[0]), 1.0)
    return np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), constant)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("name", CASES)
def test_energies_are_finite_and_grow_with_distance(name, k):
    x = CASES[name]
    gm = GaussianMixture(min(k, len(x)), n_init=2, random_state=0).fit(x)
    assert np.isfinite(gm.energy(x)).all()
    assert np.isfinite(gm.energy(x.astype(np.float32))).all()
    scales = column_scales(x.astype(float))
    for column in range(x.shape[1]):
        moved = np.repeat(x[:1].astype(float), 4, axis=0)
        moved[:, column] += scales[column] * np.array([10, 100, 1e3, 1e4])
        energies = gm.energy(moved)
        assert np.isfinite(energies).all()
        assert (np.diff(energies) > 0).all()


@pytest.mark.parametrize("kind", ["tied", "diag", "spherical"])
@pytest.mark.parametrize("name", ["one-hot", "constant", "collinear", "log-normal", "three rows repeated"])
def test_restricted_covariances_have_finite_energies(name, kind):
    x = CASES[name]
    assert np.isfinite(GaussianMixture(3, covariance_type=kind, n_init=2).fit(x).energy(x)).all()


def test_energy_of_a_changed_constant_column_grows_with_the_relative_change():
    x = np.c_[BASE, np.full(N, 50.0)]
    gm = GaussianMixture(1).fit(x)
    event = x[:1].repeat(3, axis=0)
    event[:, 4] += [0.0, 0.5, 5.0]
    energies = gm.energy(event)
    assert energies[1] - energies[0] > 10
    assert np.isclose((energies[2] - energies[0]) / (energies[1] - energies[0]), 100, rtol=1e-3)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_values_with_underflowing_squares_are_treated_as_zero(kind):
    x = np.c_[BASE[:, :2], np.full(N, 1e-300), BASE[:, 3] * 1e-310]
    for events in (x, x[:, 2:]):
        gm = GaussianMixture(2, covariance_type=kind, n_init=1).fit(events)
        moved = events[:3].copy()
        moved[:, -1] += [0.0, 1.0, 10.0]
        assert (np.diff(gm.energy(moved)) > 0).all()
        assert np.array_equal(load_detector(gm.to_bytes()).energy(events), gm.energy(events))


@pytest.mark.filterwarnings("error")
def test_largest_float32_events_are_scored_without_a_warning():
    x = (BASE.clip(-3, 3) * 1e38).astype(np.float32)
    assert np.isfinite(GaussianMixture(2, n_init=1).fit(x).energy(x)).all()


def test_fit_does_not_depend_on_the_units_of_columns():
    rng = np.random.default_rng(3)
    x = np.r_[rng.normal(size=(1000, 3)), rng.normal(size=(1000, 3)) + 6]
    unit = np.array([1e-4, 1.0, 1e4])
    plain = GaussianMixture(2, random_state=1).fit(x).energy(x)
    scaled = GaussianMixture(2, random_state=1).fit(x * unit).energy(x * unit)
    assert np.allclose(scaled - np.log(unit).sum(), plain, atol=1e-3)


def test_a_value_that_occurs_once_does_not_overfit_the_mixture():
    x = np.c_[BASE, np.zeros(N)]
    x[0, 4] = 0.07
    gm = GaussianMixture(4, random_state=0).fit(x)
    event = np.r_[BASE[0], 0.14][None]
    assert gm.energy(event)[0] < 1e7


def test_empty_components_are_dropped_and_reported():
    gm = GaussianMixture(8).fit(np.repeat(BASE[:3], 100, axis=0))
    assert len(gm.weights_) <= 3
    assert gm.report_.components_dropped == 8 - len(gm.weights_)
    assert np.isclose(gm.weights_.sum(), 1)


def test_contaminated_fit_leaves_the_outlier_cluster_out():
    rng = np.random.default_rng(2)
    x = np.r_[rng.normal(size=(1900, 3)), rng.normal(size=(100, 3)) * 0.3 + 9]
    rng.shuffle(x)
    plain = GaussianMixture(1).fit(x)
    robust = GaussianMixture(1, contamination=0.06).fit(x)
    assert np.abs(plain.means_).max() > 0.3
    assert np.abs(robust.means_).max() < 0.1
    assert 100 <= robust.report_.rows_trimmed <= 125
    far = robust.energy(np.full((1, 3), 9.0))
    assert far > plain.energy(np.full((1, 3), 9.0)) + 20
