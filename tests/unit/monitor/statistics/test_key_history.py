"""Histories of keys: equal to the bit to a loop over events, whatever the cuts and the other keys of a batch."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from monitor.statistics import key_history
from monitor.statistics.key_history import FIRST_WEIGHTS, GAIN, advance_histories, state_width

SECOND = 1_000_000
Floats = NDArray[np.float64]


@dataclass
class _Key:
    """The history of one key as plain numbers."""

    newest: float | None = None
    pauses: list[float] = field(default_factory=list)
    fields: dict[int, tuple[float, float, float, int]] = field(default_factory=dict)

    def advance(self, time_us: float, values: list[float]) -> list[tuple[float, float, float]]:
        if self.newest is not None:
            pause = max(time_us - self.newest, 0.0)
            known = sorted(self.pauses[-5:])
            if len(known) >= 3 and pause > 10 * max(known[(len(known) - 1) // 2], SECOND):
                self.fields = {}
            self.pauses.append(pause)
        self.newest = time_us if self.newest is None else max(self.newest, time_us)
        return [self._advance_field(place, value) for place, value in enumerate(values)]

    def _advance_field(self, place: int, value: float) -> tuple[float, float, float]:
        if np.isnan(value):
            _, _, movement, count = self.fields.get(place, (0.0, 0.0, 0.0, 0))
            return np.nan, movement, FIRST_WEIGHTS[count]
        last, level, movement, count = self.fields.get(place, (value, value, 0.0, -1))
        change = value - level
        level = level + GAIN * (value - level)
        movement = movement + GAIN * (abs(value - last) - movement)
        self.fields[place] = value, level, movement, count + 1
        return change, movement, FIRST_WEIGHTS[count + 1]


def _reference(keys: NDArray[np.int64], times_us: NDArray[np.int64], values: Floats) -> Floats:
    states = {key: _Key() for key in keys.tolist()}
    rows = [
        states[key].advance(float(time_us), row)
        for key, time_us, row in zip(keys.tolist(), times_us.tolist(), values.tolist(), strict=True)
    ]
    return np.array(rows).transpose(0, 2, 1).reshape(len(keys), -1)


def _in_pieces(keys: NDArray[np.int64], times_us: NDArray[np.int64], values: Floats, ends: list[int]) -> Floats:
    states = np.full((keys.max() + 1, state_width(values.shape[1])), np.nan)
    found, seen = [], np.zeros(len(states), np.bool_)
    for begin, end in zip([0, *ends], [*ends, len(keys)], strict=True):
        piece = slice(begin, end)
        own, first_events, rows = np.unique(keys[piece], return_index=True, return_inverse=True)
        is_first = np.zeros(end - begin, np.bool_)
        is_first[first_events[~seen[own]]] = True
        step = advance_histories(rows, is_first, states[own], times_us[piece], values[piece])
        states[own], seen[own] = step.states, True
        found.append(step.context)
    return np.concatenate(found)


def _log(seed: int, n_keys: int, n: int = 150) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    rng = np.random.default_rng(seed)
    times_us = np.cumsum(rng.choice([1, 2, 60, 10_000], n, p=[0.45, 0.45, 0.08, 0.02])) * SECOND
    times_us[rng.random(n) < 0.1] -= 3_600 * SECOND  # late events
    values = np.cumsum(rng.normal(size=(n, 3)), axis=0)
    values[rng.random((n, 3)) < 0.1 * np.array([0, 1, 3])] = np.nan
    values[:, 2] *= 1e30
    return rng.integers(0, n_keys, n), times_us, values


@pytest.mark.parametrize("n_keys", [1, 3, 90])
@pytest.mark.parametrize("wide", [1, 64, 10**9], ids=["arrays", "both", "numbers"])
def test_histories_are_equal_to_the_bit_whatever_the_cuts(
    n_keys: int, wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_history, "_MIN_WIDE", wide)
    for seed in range(2):
        keys, times_us, values = _log(seed, n_keys)
        expected = _reference(keys, times_us, values).tobytes()
        assert _in_pieces(keys, times_us, values, []).tobytes() == expected
        ends = np.unique(np.random.default_rng(seed).integers(1, len(keys), 40)).tolist()
        assert _in_pieces(keys, times_us, values, ends).tobytes() == expected
        assert _in_pieces(keys, times_us, values, list(range(1, len(keys)))).tobytes() == expected


def test_a_long_pause_begins_the_fields_anew() -> None:
    times_us = np.array([0, 10, 20, 30, 40, 150, 160], np.int64) * SECOND
    values = np.arange(7.0)[:, None]
    found = _in_pieces(np.zeros(7, np.int64), times_us, values, [])
    assert found[5].tolist() == [0.0, 0.0, 1.0], "a pause of 110 s is longer than ten times 10 s"
    assert found[4, 0] != 0
    assert found[6, 0] == 1.0


def test_short_pauses_between_batches_of_a_broker_do_not_count() -> None:
    times_us = np.array([0, 0, 0, 0, 0, 5 * SECOND], np.int64)
    found = _in_pieces(np.zeros(6, np.int64), times_us, np.arange(6.0)[:, None], [])
    assert found[5, 0] > 0
