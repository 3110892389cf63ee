"""Parts merge to identical bytes and thresholds for any split and any order."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from monitor.statistics.drift_sums import code_events
from monitor.statistics.part import (
    LAST_BIN,
    MAX_LARGEST,
    Part,
    Scale,
    bin_edges,
    bin_index,
    merge_parts,
    summarise,
    summarise_windows,
)
from monitor.statistics.part_codec import DamagedPart, decode_part, encode_part, encode_windows
from monitor.statistics.sketch import EnergySketch
from monitor.statistics.training_profile import TrainingProfile, build_feature_profile, quantile_edges
from monitor.thresholds.choose import choose_threshold
from monitor.thresholds.look_back import LookBack

SCALE = Scale(median=3.0, iqr=2.0)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
NEAR_THRESHOLD = st.floats(min_value=-20, max_value=60, width=32)
TIED = st.sampled_from([-1.0, 0.0, -0.0, 3.0, 1e30]).map(float)
FEW = arrays.arrays(np.float32, st.integers(0, 30), elements=st.one_of(NEAR_THRESHOLD, TIED, FINITE))
SCALES = st.builds(Scale, median=st.floats(-1e6, 1e6), iqr=st.floats(1e-3, 1e6))


@st.composite
def drawn_energies(draw: st.DrawFn) -> np.ndarray:
    """Draw special and ordinary energies: none, few, or more than the list of largest energies holds."""
    few = draw(FEW)
    n = draw(st.sampled_from([0, 0, 5, MAX_LARGEST - 3, MAX_LARGEST, 3 * MAX_LARGEST]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    many = np.round(rng.gamma(4, 2, n), draw(st.sampled_from([0, 9]))).astype(np.float32)
    return rng.permutation(np.concatenate([few, many]))


ENERGIES = drawn_energies()


def cut(energies: np.ndarray, cuts: list[int], scale: Scale = SCALE) -> list[Part]:
    pieces = np.split(energies, sorted(c % (len(energies) + 1) for c in cuts))
    return [summarise(piece, piece > 10, scale) for piece in pieces]


@pytest.mark.slow
@given(ENERGIES, st.lists(st.integers(0, 10_000), max_size=6))
def test_parts_of_any_split_merge_to_identical_bytes(energies: np.ndarray, cuts: list[int]) -> None:
    assert encode_part(merge_parts(cut(energies, cuts))) == encode_part(summarise(energies, energies > 10, SCALE))


@pytest.mark.slow
@given(ENERGIES, st.lists(st.integers(0, 10_000), max_size=6), st.randoms(use_true_random=False))
def test_merge_order_does_not_matter(energies: np.ndarray, cuts: list[int], random) -> None:
    parts = cut(energies, cuts)
    whole = encode_part(merge_parts(parts))
    random.shuffle(parts)
    while len(parts) > 1:
        at = random.randrange(len(parts) - 1)
        parts[at : at + 2] = [merge_parts(parts[at : at + 2])]
    assert encode_part(parts[0]) == whole


@pytest.mark.slow
@given(ENERGIES, st.data())
def test_one_pass_over_many_windows_equals_one_part_per_window(energies: np.ndarray, data: st.DataObject) -> None:
    windows = data.draw(arrays.arrays(np.int64, len(energies), elements=st.integers(0, 6)))
    parts = summarise_windows(energies, energies > 10, windows, 8, SCALE)
    parts = replace(parts, late=np.arange(8), dead=2 * np.arange(8))
    for window, payload in enumerate(encode_windows(parts)):
        own = energies[windows == window]
        alone = replace(summarise(own, own > 10, SCALE), late=window, dead=2 * window)
        assert payload == encode_part(parts.window(window)) == encode_part(alone)


@given(ENERGIES, SCALES)
def test_bin_edges_contain_the_energy(energies: np.ndarray, scale: Scale) -> None:
    expected = np.searchsorted(bin_edges(scale), energies.astype(np.float64), side="right") - LAST_BIN
    assert bin_index(energies, scale).tolist() == expected.tolist()


@given(ENERGIES, st.integers(0, 10**6), st.integers(0, 10**6))
def test_encoded_part_round_trips(energies: np.ndarray, late: int, dead: int) -> None:
    part = merge_parts([summarise(energies, energies > 10, SCALE), Part.without_events(late=late, dead=dead)])
    again = decode_part(encode_part(part))
    assert encode_part(again) == encode_part(part)
    assert (again.events, again.late, again.dead) == (len(energies), late, dead)


@pytest.mark.slow
@given(ENERGIES, st.integers(0, 10**6), st.integers(1, 255))
def test_changed_byte_is_an_error(energies: np.ndarray, at: int, flip: int) -> None:
    payload = bytearray(encode_part(summarise(energies, energies > 10, SCALE)))
    payload[at % len(payload)] ^= flip
    with pytest.raises(DamagedPart):
        decode_part(bytes(payload))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_an_error(payload: bytes) -> None:
    with pytest.raises(DamagedPart):
        decode_part(payload)


@pytest.mark.slow
@given(st.lists(ENERGIES, min_size=1, max_size=8), st.lists(st.integers(0, 100), max_size=30))
def test_look_back_is_bitwise_equal_to_a_fresh_merge_of_its_windows(
    windows: list[np.ndarray], moves: list[int]
) -> None:
    parts = [summarise(energies, energies > 10, SCALE) for energies in windows]
    look_back = LookBack(SCALE)
    for move in moves:
        at = move % len(parts)
        if at in look_back:
            look_back.evict(at)
        else:
            look_back.add(at, parts[at])
    cached = look_back.sketch()
    fresh = EnergySketch.from_parts([parts[at] for at in sorted(look_back.windows)], SCALE)
    assert (cached.n, cached.complete_above) == (fresh.n, fresh.complete_above)
    assert cached.top.tobytes() == fresh.top.tobytes()
    assert cached.counts.tobytes() == fresh.counts.tobytes()


@pytest.mark.slow
@given(
    st.lists(ENERGIES, min_size=1, max_size=6).filter(lambda windows: any(len(w) for w in windows)),
    st.floats(1, 99.9),
    st.randoms(use_true_random=False),
)
def test_threshold_is_bitwise_equal_for_any_merge_order(windows: list[np.ndarray], percentile: float, random) -> None:
    reference = np.sort(np.concatenate(windows))
    parts = [summarise(energies, energies > 10, SCALE) for energies in windows]
    one = choose_threshold(None, EnergySketch.from_parts(parts, SCALE), reference, percentile)
    random.shuffle(parts)
    other = choose_threshold(None, EnergySketch.from_parts(parts, SCALE), reference, percentile)
    assert one == other


@pytest.mark.slow
@given(st.lists(ENERGIES, min_size=1, max_size=6), st.floats(0, 1))
def test_quantile_bracket_contains_order_statistics_and_quantile(windows: list[np.ndarray], p: float) -> None:
    energies = np.sort(np.concatenate(windows))[::-1].astype(np.float64)
    if not len(energies) or energies[-1] < bin_edges(SCALE)[0]:
        return  # the lowest bin has no lower edge
    sketch = EnergySketch.from_parts([summarise(w, w > 10, SCALE) for w in windows], SCALE)
    rank = np.clip((1 - p) * (len(energies) + 1), 1, len(energies))
    low, high = sketch.bracket(p)
    assert low <= energies[int(np.ceil(rank)) - 1] <= energies[int(np.floor(rank)) - 1] <= high
    assert low <= sketch.quantile(p) <= high


@pytest.mark.slow
@given(st.lists(ENERGIES, min_size=1, max_size=6), st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_quantiles_are_monotone_in_the_fraction(windows: list[np.ndarray], fractions: list[float]) -> None:
    sketch = EnergySketch.from_parts([summarise(w, w > 10, SCALE) for w in windows], SCALE)
    if sketch.n:
        found = sketch.quantiles(np.sort(fractions))
        assert (np.diff(found) >= -1e-12 * np.abs(found[1:])).all()


@pytest.mark.slow
@given(st.lists(ENERGIES, min_size=1, max_size=6), st.lists(FINITE, min_size=2, max_size=20))
def test_counts_above_are_monotone_and_exact_at_bin_edges(windows: list[np.ndarray], asked: list[float]) -> None:
    energies = np.concatenate(windows).astype(np.float64)
    sketch = EnergySketch.from_parts([summarise(w, w > 10, SCALE) for w in windows], SCALE)
    counts = [sketch.count_above(e) for e in sorted(asked)]
    assert all(a >= b for a, b in pairwise(counts))
    for energy in asked:
        if energy >= sketch.complete_above:
            assert sketch.count_above(energy) == (energies > energy).sum()
    for edge in bin_edges(SCALE)[::97]:
        assert (energies > edge).sum() <= sketch.count_above(float(edge)) <= (energies >= edge).sum()


@pytest.mark.slow
@given(ENERGIES)
def test_largest_energies_are_listed_with_their_ties(energies: np.ndarray) -> None:
    part = summarise(energies, energies > 10, SCALE)
    assert part.top.tolist() == sorted(energies.tolist(), reverse=True)[:MAX_LARGEST]


TRAINING_ROWS = np.random.default_rng(11).standard_normal((300, 3)).astype(np.float32)
TRAINING_PROFILE = TrainingProfile(
    features=build_feature_profile(TRAINING_ROWS), energy_edges=quantile_edges(TRAINING_ROWS[:, 0])
)


@pytest.mark.slow
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=FINITE),
    st.lists(st.integers(0, 10_000), max_size=6),
    st.randoms(use_true_random=False),
)
def test_drift_sums_are_equal_for_any_split_and_merge_order(features: np.ndarray, cuts: list[int], random) -> None:
    """Split, sum, merge and store the events in any combination and order."""
    energies = np.ascontiguousarray(features[:, 1])
    shares = np.random.default_rng(len(features)).dirichlet(np.ones(2), len(features)).astype(np.float32)
    whole = code_events(TRAINING_PROFILE, features, energies, shares)
    flags = np.zeros(len(features), np.bool_)
    expected = replace(summarise(energies, flags, SCALE), drift=whole.sum_rows(slice(None)))
    pieces = []
    for rows in np.split(np.arange(len(features)), sorted(c % (len(features) + 1) for c in cuts)):
        if len(rows):
            alone = code_events(TRAINING_PROFILE, features[rows], energies[rows], shares[rows])
            piece = replace(summarise(energies[rows], flags[rows], SCALE), drift=alone.sum_rows(slice(None)))
            pieces.append(decode_part(encode_part(piece)))
    random.shuffle(pieces)
    assert encode_part(merge_parts(pieces)) == encode_part(expected)
