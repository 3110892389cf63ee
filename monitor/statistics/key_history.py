"""The recent level and movement of each field of a key, event by event. Pure functions.

A state has, for each field, the last value x, the level m, the movement u and the number k of steps:

* m_t = m_(t-1) + g (x_t - m_(t-1)), with g = 2 / (SPAN + 1); the first value is the first level;
* u_t = u_(t-1) + g (|x_t - x_(t-1)| - u_(t-1)), from 0.

The mean step that starts from a value s and follows the same average is v_t = u_t + (1 - g)^k s. So the state does not
depend on s, which is a number of the model, and several models share one state. A state also has the newest time of the
key and its last pauses. After a pause of more than `PAUSE_FACTOR` times the median of these, the fields begin anew.

Every number of an event is computed by the same float64 operations in the order of the events of its key. So it is the
same to the bit wherever a batch was cut, and whichever other keys the batch has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from config.time_format import SECOND_US

SPAN = 12
"""Span of the averages in events."""

GAIN = 2 / (SPAN + 1)

N_CONTEXT = 3
"""Numbers per field that describe the history before and with an event: change, movement and first weight."""

PAUSE_FACTOR = 10.0
_N_PAUSES = 5
_MIN_PAUSES = 3
_MIN_PAUSE_US = float(SECOND_US)
"""Smallest median pause that counts: times of brokers and batches jitter by less."""

_KEY_NUMBERS = 1 + _N_PAUSES
_FIELD_NUMBERS = 4
_MIN_WIDE = 64
"""Smallest number of values for one numpy operation; fewer take less time as Python numbers."""

FIRST_WEIGHTS = np.cumprod(np.array([1.0] + [1 - GAIN] * 400))
"""(1 - g)^k for each number of steps k; below 1e-28 from the last one on."""

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStep:
    """The history of the events of a batch, in the order of the events.

    Attributes:
        changes: Distance of each value from the level before it, (n, D); NaN where the value is missing.
        movements: u after the event, (n, D).
        first_weights: (1 - g)^k after the event, (n, D): 1 for the first value of a key or after a long pause.
        states: The states of the keys after the batch, (keys, `state_width(D)`).
    """

    changes: Float64
    movements: Float64
    first_weights: Float64
    states: Float64

    @property
    def context(self) -> Float64:
        """Return changes, movements and first weights side by side, (n, 3 D)."""
        return np.concatenate([self.changes, self.movements, self.first_weights], axis=1)


def state_width(n_fields: int) -> int:
    """Return the number of values in the state of a key."""
    return _KEY_NUMBERS + _FIELD_NUMBERS * n_fields


def advance_histories(
    key_rows: Int64, is_first: Mask, states: Float64, times_us: Int64, values: NDArray[np.floating]
) -> HistoryStep:
    """Return the history of each event, and the states of the keys after all of them.

    Args:
        key_rows: Index of each event's key, (n,); every key has an event.
        is_first: Whether each event begins a state, (n,).
        states: The states of the keys before the batch, (keys, `state_width(D)`); NaN for a key without one.
        times_us: Times of the events, (n,).
        values: Values of the fields, (n, D); NaN where a value is missing.
    """
    order = np.argsort(key_rows, kind="stable")
    rows, x = key_rows[order], values[order].astype(np.float64)
    begins = np.append(True, rows[1:] != rows[:-1])
    is_last = np.append(begins[1:], True)
    fresh = is_first[order]
    runs = _Runs.of(begins | fresh)
    before = np.where(fresh[runs.starts, None], np.nan, states[rows[runs.starts]])
    after = np.empty((len(states), states.shape[1]))
    resets, key_numbers = _find_resets(runs, before[:, :_KEY_NUMBERS], times_us[order].astype(np.float64))
    fields = _advance_fields(_Runs.of(begins | fresh | resets), runs, before[:, _KEY_NUMBERS:], resets, x)
    after[rows[is_last], :_KEY_NUMBERS] = key_numbers[is_last]
    after[rows[is_last], _KEY_NUMBERS:] = np.concatenate(
        [fields.values, fields.levels, fields.movements, fields.counts], axis=1
    )[is_last]
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    weights = FIRST_WEIGHTS[np.clip(fields.counts, 0, len(FIRST_WEIGHTS) - 1).astype(np.int64)]
    return HistoryStep(
        changes=fields.changes[back], movements=fields.movements[back], first_weights=weights[back], states=after
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Consecutive events that continue one state: the first event and length of each run, and the run of each event."""

    starts: Int64
    lengths: Int64
    of_event: Int64

    @staticmethod
    def of(begins: Mask) -> "_Runs":
        starts = np.flatnonzero(begins)
        return _Runs(starts=starts, lengths=np.diff(np.append(starts, len(begins))), of_event=np.cumsum(begins) - 1)

    def shift(self, values: Float64, initial: Float64) -> Float64:
        """Return the value before each event: that of the event before it in its run, or the run's initial one."""
        shifted = np.empty_like(values)
        shifted[1:] = values[:-1]
        shifted[self.starts] = initial
        return shifted


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    """Fields after each event, (n, D) each."""

    changes: Float64
    values: Float64
    levels: Float64
    movements: Float64
    counts: Float64


def _find_resets(runs: _Runs, before: Float64, times_us: Float64) -> tuple[Mask, Float64]:
    """Return the events after a long pause, (n,), and newest time and pauses after each event, (n, 1 + `_N_PAUSES`)."""
    known = ~np.isnan(before[:, 0])
    initial = np.where(known, before[:, 0], times_us[runs.starts])
    newest = _scan(times_us[:, None], runs, initial[:, None], np.maximum, max)[:, 0]
    pauses = np.maximum(times_us - runs.shift(newest, initial), 0.0)
    pauses[runs.starts[~known]] = np.nan
    # The pauses of each run follow those of its state, so that the ones before an event are consecutive.
    places = np.arange(len(pauses)) + _N_PAUSES * (runs.of_event + 1)
    line = np.empty(len(pauses) + _N_PAUSES * len(runs.starts))
    line[places] = pauses
    line[places[runs.starts][:, None] + np.arange(-_N_PAUSES, 0)] = before[:, 1:]
    recent = np.sort(line[places[:, None] + np.arange(-_N_PAUSES, 0)], axis=1)
    counts = (~np.isnan(recent)).sum(axis=1)
    medians = recent[np.arange(len(recent)), np.maximum(counts - 1, 0) // 2]
    resets = (counts >= _MIN_PAUSES) & (pauses > PAUSE_FACTOR * np.maximum(medians, _MIN_PAUSE_US))
    latest = line[places[:, None] + np.arange(1 - _N_PAUSES, 1)]
    return resets, np.concatenate([newest[:, None], latest], axis=1)


def _advance_fields(runs: _Runs, key_runs: _Runs, before: Float64, resets: Mask, x: Float64) -> _Fields:
    """Return the fields after each event.

    Args:
        runs: Runs of events that continue the fields.
        key_runs: Runs of events that continue the state of a key; a pause begins another run of fields.
        before: The fields before each run of a key, (runs, 4 D).
        resets: The events after a long pause.
        x: The values, (n, D).
    """
    initial = before[key_runs.of_event[runs.starts]]
    initial = np.where(resets[runs.starts, None], np.nan, initial)
    d = x.shape[1]
    missing = np.isnan(x).any(axis=0)
    parts = np.empty((5, *x.shape))
    if not missing.all():
        columns = np.flatnonzero(~missing)
        own = initial.reshape(-1, _FIELD_NUMBERS, d)[:, :, columns]
        parts[:, :, columns] = _advance_complete(runs, own, x[:, columns])
    for column in np.flatnonzero(missing):
        own = initial.reshape(-1, _FIELD_NUMBERS, d)[:, :, [column]]
        parts[:, :, [column]] = _advance_incomplete(runs, own, x[:, [column]])
    changes, values, levels, movements, counts = parts
    return _Fields(changes=changes, values=values, levels=levels, movements=movements, counts=counts)


def _advance_complete(runs: _Runs, initial: Float64, x: Float64) -> Float64:
    """Return changes, values, levels, movements and counts after each event, (5, n, F); `initial` is (runs, 4, F)."""
    first = x[runs.starts]
    known = ~np.isnan(initial[:, 1])
    value, level = (np.where(known, initial[:, place], first) for place in (0, 1))
    movement, count = (np.where(known, initial[:, place], fresh) for place, fresh in ((2, 0.0), (3, -1.0)))
    levels = _scan(x, runs, level, _average, _average)
    changes = x - runs.shift(levels, level)
    movements = _scan(np.abs(x - runs.shift(x, value)), runs, movement, _average, _average)
    ranks = np.arange(len(x)) - runs.starts[runs.of_event] + 1.0
    counts = np.minimum(count[runs.of_event] + ranks[:, None], len(FIRST_WEIGHTS) - 1.0)
    return np.stack([changes, x, levels, movements, counts])


def _advance_incomplete(runs: _Runs, initial: Float64, x: Float64) -> Float64:
    """Return the same for one field with missing values: such an event leaves its state as it is."""
    present = ~np.isnan(x[:, 0])
    value, level, movement, count = initial.transpose(1, 0, 2)
    known = ~np.isnan(level)
    after = np.stack(
        [
            np.full_like(x, np.nan),
            value[runs.of_event],
            level[runs.of_event],
            np.where(known, movement, 0.0)[runs.of_event],
            np.where(known, count, -1.0)[runs.of_event],
        ]
    )
    if not present.any():
        return after
    owners = runs.of_event[present]
    begins = np.append(True, owners[1:] != owners[:-1])
    complete = _advance_complete(_Runs.of(begins), initial[owners[begins]], x[present])
    latest = np.cumsum(present) - 1
    carried = (latest >= 0) & (owners[np.maximum(latest, 0)] == runs.of_event)
    after[:, carried] = complete[:, latest[carried]]
    after[0, ~present] = np.nan
    return after


def _average(mean: float, value: float) -> float:
    """Return the moving average after a value; for numbers and for arrays, with the same operations."""
    return mean + GAIN * (value - mean)


def _scan(
    values: Float64,
    runs: _Runs,
    initial: Float64,
    combine: Callable[..., Float64] | Callable[..., float],
    combine_numbers: Callable[[float, float], float],
) -> Float64:
    """Return the state after each event, where state = combine(state before, value), (n, F).

    Many runs are advanced together, one event of each at a time. Where few runs remain, each is advanced on its own.
    Both do the same operations, so that the results have equal bits.

    Args:
        values: The values, (n, F).
        runs: The runs.
        initial: The states before the runs, (runs, F).
        combine: Combines arrays.
        combine_numbers: Combines numbers.
    """
    after = np.empty_like(values)
    by_length = np.argsort(-runs.lengths, kind="stable")
    lengths, starts, state = runs.lengths[by_length], runs.starts[by_length], initial[by_length]
    # The number of runs with an event at each rank.
    active = len(lengths) - np.searchsorted(lengths[::-1], np.arange(1, (lengths[0] if len(lengths) else 0) + 1))
    n_wide = int(np.searchsorted(-active * values.shape[1], -_MIN_WIDE, side="right"))
    for rank, n in enumerate(active[:n_wide].tolist()):
        places = starts[:n] + rank
        state[:n] = combine(state[:n], values[places])
        after[places] = state[:n]
    for run in range(int(active[n_wide]) if n_wide < len(active) else 0):
        begin, end = int(starts[run]) + n_wide, int(starts[run] + lengths[run])
        for field, number in enumerate(state[run].tolist()):
            states = accumulate(values[begin:end, field].tolist(), combine_numbers, initial=number)
            next(states)
            after[begin:end, field] = list(states)
    return after
