"""The tail law: p-values of single energies, their order, their units, and realised against promised probabilities."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from monitor.thresholds.tail_law import EXCESSES, MIN_ENERGIES, TailLaw, TailSample, fit_tail_law, merge_tails

NONE = np.empty(0, np.float32)


def sample_of(energies: np.ndarray, reference: np.ndarray = NONE, weight: float = 0.0) -> TailSample:
    live = energies.astype(np.float32)
    medians = (float(np.median(live)) if len(live) else 0.0, float(np.median(reference)) if len(reference) else 0.0)
    return merge_tails(live, -np.inf, len(live), reference, weight, medians)


def law_of(energies: np.ndarray, dispersion: float = 1.0) -> TailLaw:
    law = fit_tail_law(sample_of(energies), dispersion=dispersion)
    assert law is not None
    return law


def gamma(n: int, seed: int = 1, shape: float = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_gamma(shape, n)


@given(st.integers(MIN_ENERGIES, 5_000), st.integers(0, 50), st.sampled_from([0.5, 4.0]), st.floats(1, 50))
@settings(max_examples=25, deadline=None)
def test_p_values_fall_with_the_energy(n: int, seed: int, shape: float, dispersion: float) -> None:
    law = law_of(gamma(n, seed, shape), dispersion)
    energies = np.linspace(-10, 500, 300)
    p = [law.p_value(energy) for energy in energies.tolist()]
    assert all(later <= earlier for earlier, later in itertools.pairwise(p))
    assert p[-1] < p[0] <= 1


@given(st.floats(1e-12, 0.005))
@settings(max_examples=50, deadline=None)
def test_energy_at_is_the_inverse_of_the_p_value(p: float) -> None:
    law = law_of(gamma(2_000))
    assert law.p_value(law.energy_at(p)) == pytest.approx(p, rel=1e-6)
    assert law.energy_at(p) >= law.level_energy


@given(st.floats(0.01, 100), st.floats(-1_000, 1_000))
@settings(max_examples=25, deadline=None)
def test_the_law_follows_location_and_scale(scale: float, location: float) -> None:
    energies = gamma(3_000).astype(np.float64)
    moved = merge_tails_exactly(location + scale * energies)
    law, other = merge_tails_exactly(energies), moved
    for p in (1e-3, 1e-5, 1e-8):
        assert other.energy_at(p) == pytest.approx(location + scale * law.energy_at(p), rel=1e-4, abs=1e-3 * scale)


def merge_tails_exactly(energies: np.ndarray) -> TailLaw:
    """Return the law of energies in float64: rounding to float32 does not follow a change of location."""
    descending = np.sort(energies)[::-1]
    sample = TailSample(
        energies=descending, counts=np.ones(len(energies)), total=len(energies), median=float(np.median(energies))
    )
    law = fit_tail_law(sample, dispersion=1.0)
    assert law is not None
    return law


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_any_order_of_the_energies_gives_the_same_law(random: object) -> None:
    energies, reference = gamma(1_500).astype(np.float32), np.sort(gamma(800, 2).astype(np.float32))
    shuffled = np.random.default_rng(random.randrange(2**32)).permutation(energies)  # type: ignore[attr-defined]
    law, other = (
        fit_tail_law(sample_of(each, reference, 0.3), dispersion=2.0) for each in (np.sort(energies), shuffled)
    )
    assert law is not None
    assert law == other


@pytest.mark.parametrize(
    ("quantile", "survival"),
    [
        (stats.gamma(4).isf, stats.gamma(4).sf),
        (lambda u: stats.t(10).isf(u / 2) ** 2 / 2, lambda e: 2 * stats.t(10).sf(np.sqrt(2 * e))),
        (stats.beta(2, 5, scale=20).isf, stats.beta(2, 5, scale=20).sf),
    ],
    ids=["gamma", "student", "bounded"],
)
def test_realised_probability_is_near_the_promised_one(quantile, survival) -> None:
    rng, p = np.random.default_rng(3), 1 / (14 * 600)
    limits = [law_of(quantile(rng.random(600))).energy_at(p) for _ in range(30)]
    assert np.mean([survival(limit) for limit in limits]) <= 2.2 * p


def test_a_certain_event_is_significant() -> None:
    law = law_of(gamma(10_000))
    assert law.p_value(float(np.median(gamma(10_000))) + 30) < 1 / (28 * 10_000)


def test_dispersion_widens_the_law() -> None:
    energies = gamma(2_000)
    assert law_of(energies, 9.0).energy_at(1e-6) > law_of(energies).energy_at(1e-6)


def test_many_equal_energies_have_a_law() -> None:
    law = law_of(np.full(1_000, 5.0))
    assert law.p_value(5.0) <= 1
    assert law.p_value(50.0) < 1e-6


def test_too_few_energies_have_no_law() -> None:
    assert fit_tail_law(sample_of(gamma(MIN_ENERGIES - 1)), dispersion=1.0) is None
    assert (
        fit_tail_law(merge_tails(gamma(40).astype(np.float32), 0.0, 9_000, NONE, 0.0, (4.0, 0.0)), dispersion=1.0)
        is None
    )


def test_a_stored_law_is_the_same() -> None:
    law = law_of(gamma(2_000))
    assert TailLaw.from_json(json.loads(json.dumps(law.to_json(), allow_nan=False))) == law
    assert len(json.dumps(law.to_json())) < 500
    assert len(law.log_survival) == len(EXCESSES)


def test_energies_without_limit_have_a_p_value() -> None:
    law = law_of(gamma(2_000))
    assert 0 <= law.p_value(1e30) <= law.p_value(1e6) < 1e-9
    assert law.energy_at(0.0) == float("inf")
    assert law.energy_at(1.0) == law.level_energy
