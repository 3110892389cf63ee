"""Samples of events: the smallest hashes of a window, whatever the cuts of its batches."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.statistics.event_sample import (
    DamagedSample,
    EventSample,
    decode_sample,
    encode_sample,
    encode_window_samples,
    find_sample_size,
    hash_offsets,
    merge_encoded_samples,
    merge_samples,
)

DAY_US = 86_400_000_000


def _draw(offsets: np.ndarray, windows: np.ndarray, capacities: list[int], partition: int = 0) -> list:
    rows = np.arange(len(offsets))
    features = np.stack([offsets / 7, offsets % 3], axis=1).astype(np.float64)
    payloads = encode_window_samples(
        hash_offsets("t", partition, offsets),
        windows,
        np.array(capacities),
        rows=rows,
        times_us=offsets,
        features=features,
    )
    return [None if payload is None else decode_sample(payload) for payload in payloads]


def _sample(offsets: np.ndarray, capacity: int, partition: int = 0) -> EventSample:
    (sample,) = _draw(offsets, np.zeros(len(offsets), np.int64), [capacity], partition)
    assert sample is not None
    return sample


def _encode_all(samples: list) -> list:
    return [None if sample is None else encode_sample(sample) for sample in samples]


@given(
    n=st.integers(1, 400),
    capacity=st.integers(1, 64),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_samples_of_parts_merge_to_the_sample_of_all_events(
    n: int, capacity: int, cuts: list[int], order: object
) -> None:
    offsets = np.arange(n, dtype=np.int64)
    bounds = [0, *sorted({min(cut, n) for cut in cuts}), n]
    pieces = [encode_sample(_sample(offsets[a:b], capacity)) for a, b in pairwise(bounds) if b > a]
    order.shuffle(pieces)  # type: ignore[attr-defined]
    assert merge_encoded_samples(pieces) == encode_sample(_sample(offsets, capacity))


def test_each_window_has_the_sample_of_its_own_events() -> None:
    offsets = np.arange(5_000, dtype=np.int64)
    windows = np.searchsorted([3, 3, 40, 4_000], offsets, side="right")
    capacities = [5, 5, 64, 8, 0]
    expected = [
        _sample(offsets[windows == index], capacity) if capacity and (windows == index).any() else None
        for index, capacity in enumerate(capacities)
    ]
    assert _encode_all(_draw(offsets, windows, capacities)) == _encode_all(expected)
    assert expected[1] is None


def test_the_smallest_hashes_are_found_where_few_lie_below_the_limit() -> None:
    offsets = np.arange(100_000, dtype=np.int64)
    largest = offsets[np.argsort(hash_offsets("t", 0, offsets))[-1_000:]]
    largest.sort()
    hashes = np.sort(hash_offsets("t", 0, largest))
    assert _sample(largest, 4).hashes.tolist() == hashes[:4].tolist()


def test_the_sample_is_uniform_over_the_events() -> None:
    offsets = np.arange(200_000, dtype=np.int64)
    windows = offsets // 1_000
    samples = _draw(offsets, windows, [10] * 200)
    rank = np.concatenate([sample.times_us % 1_000 for sample in samples])
    expected, counts = len(rank) / 10, np.bincount(rank // 100, minlength=10)
    assert float(((counts - expected) ** 2 / expected).sum()) < 30, "chi-square with 9 degrees of freedom"


def test_partitions_have_different_hashes() -> None:
    offsets = np.arange(1_000, dtype=np.int64)
    first, second = hash_offsets("t", 0, offsets), hash_offsets("t", 1, offsets)
    assert not np.intersect1d(first, second).size
    assert len(np.unique(first)) == len(first)


def test_samples_of_different_capacities_merge_to_the_smaller_one() -> None:
    offsets = np.arange(300, dtype=np.int64)
    merged = merge_samples([_sample(offsets[:100], 20), _sample(offsets[100:], 7)])
    assert encode_sample(merged) == encode_sample(_sample(offsets, 7))


def test_samples_with_and_without_the_history_of_keys_merge_to_the_raw_fields() -> None:
    offsets = np.arange(300, dtype=np.int64)
    with_history = _sample(offsets[100:], 20)
    wide = np.concatenate([with_history.features, np.ones((len(with_history), 3))], axis=1)
    merged = merge_samples([_sample(offsets[:100], 20), replace(with_history, features=wide)])
    assert encode_sample(merged) == encode_sample(_sample(offsets, 20))


def test_a_window_with_a_part_without_sample_has_none() -> None:
    sample = encode_sample(_sample(np.arange(5), 3))
    assert merge_encoded_samples([sample, None]) is None
    assert merge_encoded_samples([]) is None


@pytest.mark.parametrize("values", [[0.1, 1.0], [0.5, float("nan")]])
def test_a_stored_sample_has_the_same_numbers(values: list[float]) -> None:
    sample = EventSample(
        capacity=4, hashes=np.array([2**64 - 1], np.uint64), times_us=np.array([-5]), features=np.array([values])
    )
    found = decode_sample(encode_sample(sample))
    assert (found.capacity, found.hashes.tolist(), found.times_us.tolist()) == (4, [2**64 - 1], [-5])
    np.testing.assert_array_equal(found.features, sample.features)


def test_features_that_are_exact_in_float32_take_half_the_bytes() -> None:
    exact, other = (
        EventSample(capacity=9, hashes=np.zeros(9, np.uint64), times_us=np.zeros(9, np.int64), features=features)
        for features in (np.full((9, 8), 0.5), np.full((9, 8), 0.1))
    )
    assert len(encode_sample(other)) - len(encode_sample(exact)) == 9 * 8 * 4


def test_damaged_bytes_are_refused() -> None:
    payload = encode_sample(_sample(np.arange(5), 3))
    for damaged in (payload[:-1], b"", b"\x09" + payload[1:]):
        with pytest.raises(DamagedSample):
            decode_sample(damaged)


def test_the_samples_of_a_period_have_at_most_a_hundred_thousand_events() -> None:
    minute = 60_000_000
    assert find_sample_size(minute, 14 * DAY_US) == 4
    assert find_sample_size(10_000_000, 14 * DAY_US) == 1
    assert find_sample_size(60 * minute, 14 * DAY_US) == 64


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.booleans(), st.integers(0, 5))
def test_window_is_encoded_as_its_sample_alone_with_the_narrowest_floats(
    windows: list[int], is_exact: bool, capacity: int
) -> None:
    """Windows whose features are float32 numbers stay narrow beside windows with others; NaN is exact."""
    index = np.sort(np.array(windows))
    features = np.stack([index * 0.5, np.where(index == 2, np.nan, index)], axis=1)
    features[index == 1] += 0.0 if is_exact else 0.1
    offsets = np.arange(len(index))
    hashes = hash_offsets("t", 0, offsets)
    found = encode_window_samples(
        hashes, index, np.full(4, capacity), rows=offsets, times_us=offsets, features=features
    )
    for window, payload in enumerate(found):
        own = np.flatnonzero(index == window)
        own = own[np.argsort(hashes[own])][:capacity]
        expected = encode_sample(
            EventSample(capacity=capacity, hashes=hashes[own], times_us=offsets[own], features=features[own])
        )
        assert payload == (expected if len(own) else None)
        assert not len(own) or expected[1] == (8 if window == 1 and not is_exact else 4)
