"""The sample of the tail law: weights of the reference, and windows that fired."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.statistics.part import Part, Scale, merge_parts, summarise
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.tail_law import TailLaw, fit_tail_law
from monitor.thresholds.tail_sample import MIN_SAMPLE, sample_look_back, sample_reference, weigh_reference

REFERENCE = np.sort(np.random.default_rng(1).standard_gamma(4, 3_000).astype(np.float32))
SCALE = Scale.from_energies(REFERENCE)
THRESHOLD = float(np.quantile(REFERENCE, 0.995))


def parts_of(energies: np.ndarray, windows: int) -> list[Part]:
    return [summarise(each, each > THRESHOLD, SCALE) for each in np.array_split(energies.astype(np.float32), windows)]


def law_of(parts: list[Part], excluded: list[Part] | None = None) -> TailLaw:
    sketch = EnergySketch.from_parts(parts, SCALE)
    sample = sample_look_back(sketch, excluded or [], REFERENCE, threshold=THRESHOLD, dispersion=1.0)
    law = fit_tail_law(sample, dispersion=1.0)
    assert law is not None
    return law


def live(n: int = 6_000, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_gamma(4, n)


def test_the_reference_alone_is_the_sample_without_a_look_back() -> None:
    law = fit_tail_law(sample_reference(REFERENCE), dispersion=1.0)
    assert law is not None
    assert law.n == 3_000
    assert law == law_of([])


def test_a_reference_of_any_size_counts_as_some_energies() -> None:
    worth = [m * weigh_reference(m, 10**6, 2.0) for m in (1_000, 100_000, 10**7)]
    assert worth == sorted(worth)
    assert worth[-1] == pytest.approx(100, rel=0.01)
    assert 5_000 * weigh_reference(5_000, 400, 1.0) == MIN_SAMPLE - 400
    assert weigh_reference(100, 1, 1.0) == 1.0
    assert weigh_reference(0, 1, 1.0) == 0.0


@given(st.lists(st.integers(1, 59), min_size=1, max_size=8, unique=True))
@settings(max_examples=25, deadline=None)
def test_parts_merged_in_any_way_give_the_same_law(cuts: list[int]) -> None:
    parts = parts_of(live(), 60)
    edges = [0, *sorted(cuts), 60]
    merged = [merge_parts(parts[begin:end]) for begin, end in itertools.pairwise(edges)]
    # Lists of merged windows hold 256 energies each; the law needs 2% of all, 120.
    assert law_of(merged) == law_of(parts) == law_of(parts[::-1])


@given(st.integers(0, 30), st.integers(1, 20), st.floats(20, 400))
@settings(max_examples=25, deadline=None)
def test_excluded_windows_never_raise_the_law_above_their_energies(seed: int, n: int, energy: float) -> None:
    clean, fired = parts_of(live(seed=seed), 60), live(100, seed + 100)
    fired[:n] = energy
    clipped = law_of(clean, parts_of(fired, 1))
    unclipped = law_of([*clean, *parts_of(fired, 1)])
    assert clipped.energy_at(1e-6) <= unclipped.energy_at(1e-6) * (1 + 1e-6)


def test_five_outliers_in_windows_that_fired_do_not_blind_the_law() -> None:
    clean = parts_of(live(10_000), 100)
    fired = [summarise(np.append(live(99, i), 100).astype(np.float32), np.zeros(100, bool), SCALE) for i in range(5)]
    assert law_of(clean, fired).p_value(50.0) < 1e-6
    assert law_of([*clean, *fired]).p_value(50.0) > 1e-6


def test_windows_with_long_lists_of_outliers_are_left_out() -> None:
    clean, flood = parts_of(live(), 60), parts_of(np.full(1_000, 90.0), 1)
    assert law_of(clean, flood) == law_of(clean)
