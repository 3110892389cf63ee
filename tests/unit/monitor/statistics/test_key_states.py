"""States of keys: equal to a per-event reference whatever the cuts, bounded, and equal after a take-over."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitor.statistics.key_states import FieldHistory, KeyStates
from storage.ledger.commit import KeyStateRows
from storage.ledger.key_states import decode_key_states, encode_key_states
from tests.key_level import GAIN, Level


def _reference(
    keys: Sequence[str | None], values: NDArray[np.float32], capacity: int
) -> tuple[list[float], dict[str | None, tuple[float, float]]]:
    states: OrderedDict[str | None, tuple[float, float]] = OrderedDict()
    derived = []
    for key, value in zip(keys, values.tolist(), strict=True):
        level, count = states.get(key, (value, 0.0))
        derived.append(value - level)
        states[key] = (level + GAIN * (value - level), count + 1)
        states.move_to_end(key)
        if len(states) > capacity:
            states.popitem(last=False)
    return derived, dict(states)


def _advance(
    states: KeyStates, keys: Sequence[str | None], offsets: NDArray[np.int64], values: NDArray[np.float32]
) -> tuple[NDArray[np.float64], KeyStateRows]:
    return states.advance(keys, offsets, offsets * 1_000, values[:, None], Level())


_LOGS = st.lists(
    st.tuples(st.sampled_from([None, "", "a", "b", "c", "d", "\ud800", "ü"]), st.integers(-9, 9)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(_LOGS, st.integers(1, 9), st.data())
def test_cuts_and_take_overs_do_not_matter(
    log: list[tuple[str | None, int]], capacity: int, data: st.DataObject
) -> None:
    keys = [key for key, _ in log]
    values = np.array([value for _, value in log], np.float32)
    offsets = np.arange(len(log)) * 2 + 5
    expected, final = _reference(keys, values, capacity)
    states, derived, stored, begin = KeyStates.empty(2, capacity), [], [], 0
    while begin < len(log):
        end = begin + data.draw(st.integers(1, len(log) - begin))
        found, changed = _advance(states, keys[begin:end], offsets[begin:end], values[begin:end])
        derived += found[:, 0].tolist()
        stored.append(encode_key_states(changed))
        states = states.replace(changed)
        if data.draw(st.booleans()):  # a snapshot
            stored = [encode_key_states(states.snapshot())]
        if data.draw(st.booleans()):  # another process takes over
            states = KeyStates.from_rows([decode_key_states(each) for each in stored], 2, capacity)
        begin = end
    assert derived == expected
    assert dict(zip(states.keys, map(tuple, states.values.tolist()), strict=True)) == final


def test_a_batch_changes_nothing_before_it_is_adopted() -> None:
    states = KeyStates.empty(2)
    values, offsets = np.array([1, 2], np.float32), np.arange(2)
    first = _advance(states, ["a", "a"], offsets, values)
    again = _advance(states, ["a", "a"], offsets, values)
    assert np.array_equal(first[0], again[0])
    assert len(states) == 0


def test_states_are_encoded_to_the_bit() -> None:
    values = np.array([[np.nan, -0.0], [np.pi, 1e308]])
    rows = KeyStateRows(keys=(None, "clé\0"), last_offsets=np.array([3, 2**62]), values=values)
    decoded = decode_key_states(encode_key_states(rows))
    assert decoded.keys == rows.keys
    assert decoded.last_offsets.tolist() == [3, 2**62]
    assert decoded.values.tobytes() == values.tobytes()


def test_the_number_of_keys_is_bounded() -> None:
    n = 30_000
    states = KeyStates.empty(2)
    for begin in range(0, n, 10_000):
        offsets = np.arange(begin, begin + 10_000)
        _, changed = _advance(states, [f"key-{i}" for i in offsets], offsets, offsets.astype(np.float32))
        states = states.replace(changed)
    assert len(states) == 10_000
    assert states.last_offsets.min() == n - 10_000
    assert len(encode_key_states(states.snapshot())) < 40 * 10_000


def test_a_hundred_thousand_keys_have_equal_histories_whatever_the_cuts() -> None:
    rng = np.random.default_rng(0)
    n = 110_000
    keys = [f"key-{key}" for key in np.where(rng.random(n) < 0.1, rng.integers(0, 50, n), np.arange(n)).tolist()]
    offsets, times_us = np.arange(n), np.arange(n) * 1_000_000
    values = rng.normal(size=(n, 1)).astype(np.float32)

    def derive(ends: Sequence[int]) -> tuple[bytes, bytes]:
        step, found = FieldHistory(n_fields=1), []
        states = KeyStates.empty(step.width)
        for begin, end in zip([0, *ends], [*ends, n], strict=True):
            piece = slice(begin, end)
            context, changed = states.advance(keys[piece], offsets[piece], times_us[piece], values[piece], step)
            found.append(context)
            states = states.replace(changed)
        order = np.argsort(states.last_offsets)
        return np.concatenate(found).tobytes(), states.values[order].tobytes()

    assert len(set(keys)) > 90_000
    assert derive([7, 10_000, 10_001, 52_345, 104_000]) == derive([60_000])
