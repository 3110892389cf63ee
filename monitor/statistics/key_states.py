"""The state of the keys of one source: bounded, advanced event by event in the order of offsets. Pure functions.

Features that are derived from earlier events of a key (its level, its variation) need a state per key. The state is a
row of float64 numbers. It is a function of the log of the source alone: where a batch or a commit was cut does not
matter, nor which process read it. It is stored with each commit (`storage.ledger.key_states`), and memory adopts it
only after the commit is stored.

At most `MAX_KEYS` keys have a state. Another key replaces the one whose last event is the oldest (by offset), at the
event that brings it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.key_history import advance_histories, state_width
from storage.ledger.commit import KeyStateRows

MAX_KEYS = 10_000
"""Keys of one source that have a state."""

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedEvents:
    """The events of a batch by key, in the order of offsets.

    Attributes:
        key_rows: Index of each event's key among the keys of the batch, (n,).
        is_first: Whether each event begins a state: the key has none, or another key has replaced it, (n,).
        states: The states of the keys of the batch before it, (k, width); NaN for a key without a state.
        times_us: Times of the events, (n,).
        features: Features of the events, (n, D).
    """

    key_rows: Int64
    is_first: Mask
    states: Float64
    times_us: Int64
    features: NDArray[np.floating]


class KeyStep(Protocol):
    """Derives features of events from the states of their keys, and advances the states."""

    @property
    def width(self) -> int:
        """Return the number of values in the state of a key."""
        ...

    def advance(self, events: KeyedEvents) -> tuple[Float64, Float64]:
        """Return the derived features, (n, P), and the states after the batch, (k, width).

        Each event depends on the earlier events of its key alone, back to the one that began its state.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStates:
    """The states of the keys of one source up to an offset; never changed, only replaced.

    Attributes:
        keys: The keys, at most `capacity`; None is the key of events without one.
        last_offsets: Offset of the last event of each key, (k,).
        values: The states, (k, width).
        capacity: Largest number of keys.
    """

    keys: tuple[str | None, ...]
    last_offsets: Int64
    values: Float64
    capacity: int = MAX_KEYS

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def empty(cls, width: int, capacity: int = MAX_KEYS) -> KeyStates:
        """Return the states before the first event."""
        return cls(keys=(), last_offsets=np.empty(0, np.int64), values=np.empty((0, width)), capacity=capacity)

    @classmethod
    def from_rows(cls, rows: Sequence[KeyStateRows], width: int, capacity: int = MAX_KEYS) -> KeyStates:
        """Return the states that stored rows describe: a snapshot and the changes after it, in order of offsets."""
        states = cls.empty(width, capacity)
        for each in rows:
            states = states.replace(each)
        return states

    def advance(
        self,
        keys: Sequence[str | None],
        offsets: Int64,
        times_us: Int64,
        features: NDArray[np.floating],
        step: KeyStep,
    ) -> tuple[Float64, KeyStateRows]:
        """Return the derived features of a batch, (n, P), and the states of its keys after it.

        Args:
            keys: Keys of the events, in the order of offsets.
            offsets: Offsets, (n,), ascending.
            times_us: Event times, (n,).
            features: Features, (n, D).
            step: Derives the features and advances the states.
        """
        batch_keys, key_rows = _index_keys(keys)
        places = {key: place for place, key in enumerate(self.keys)}
        before = np.full((len(batch_keys), step.width), np.nan)
        known = [(row, places[key]) for row, key in enumerate(batch_keys) if key in places]
        if known:
            rows, stored = np.array(known).T
            before[rows] = self.values[stored]
        events = KeyedEvents(
            key_rows=key_rows,
            is_first=self._find_first_events(keys, key_rows, batch_keys),
            states=before,
            times_us=times_us,
            features=features,
        )
        derived, after = step.advance(events)
        last = np.empty(len(batch_keys), np.int64)
        last[key_rows] = offsets  # the last assignment of equal indices remains
        return derived, KeyStateRows(keys=batch_keys, last_offsets=last, values=after)

    def replace(self, changed: KeyStateRows) -> KeyStates:
        """Return the states after a batch that changed some keys; the oldest keys beyond the capacity are left out."""
        touched = set(changed.keys)
        kept = [place for place, key in enumerate(self.keys) if key not in touched]
        keys = [*(self.keys[place] for place in kept), *changed.keys]
        last = np.concatenate([self.last_offsets[kept], changed.last_offsets])
        values = np.concatenate([self.values[kept], changed.values])
        if len(keys) > self.capacity:
            newest = np.sort(np.argsort(last, kind="stable")[-self.capacity :])
            keys, last, values = [keys[i] for i in newest], last[newest], values[newest]
        return KeyStates(keys=tuple(keys), last_offsets=last, values=values, capacity=self.capacity)

    def snapshot(self) -> KeyStateRows:
        """Return the states of all keys."""
        return KeyStateRows(keys=self.keys, last_offsets=self.last_offsets, values=self.values)

    def _find_first_events(
        self, keys: Sequence[str | None], key_rows: Int64, batch_keys: tuple[str | None, ...]
    ) -> Mask:
        """Return which events begin a state; only a batch that may exceed the capacity is simulated by event."""
        stored = set(self.keys)
        new = [key not in stored for key in batch_keys]
        if len(self.keys) + sum(new) <= self.capacity:
            is_first = np.zeros(len(keys), np.bool_)
            _, first_events = np.unique(key_rows, return_index=True)
            is_first[first_events[np.array(new, np.bool_)]] = True
            return is_first
        by_age = OrderedDict.fromkeys(self.keys[i] for i in np.argsort(self.last_offsets, kind="stable"))
        is_first = np.empty(len(keys), np.bool_)
        for event, key in enumerate(keys):
            is_first[event] = key not in by_age
            by_age[key] = None
            by_age.move_to_end(key)
            if len(by_age) > self.capacity:
                by_age.popitem(last=False)
        return is_first


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldHistory:
    """The step of derived features: changes, movements and first weights of all fields, (n, 3 D)."""

    n_fields: int

    @property
    def width(self) -> int:
        """Return the number of values in the state of a key."""
        return state_width(self.n_fields)

    def advance(self, events: KeyedEvents) -> tuple[Float64, Float64]:
        """Return the history of each event, (n, 3 D), and the states after the batch, (k, width)."""
        step = advance_histories(events.key_rows, events.is_first, events.states, events.times_us, events.features)
        return step.context, step.states


def _index_keys(keys: Sequence[str | None]) -> tuple[tuple[str | None, ...], Int64]:
    """Return the distinct keys in the order of their first events, and the index of each event's key, (n,)."""
    places: dict[str | None, int] = {}
    rows = np.fromiter((places.setdefault(key, len(places)) for key in keys), np.int64, len(keys))
    return tuple(places), rows
