"""The states of the keys of a source in the pipeline: memory adopts them only after they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from consumers.decoded_batch import Events
from monitor.statistics.key_states import KeyStates, KeyStep
from storage.ledger.commit import KeyStateChange, KeyStateRows

SNAPSHOT_EVERY = 64
"""Stored changes from one snapshot to the next: a take-over reads at most as many rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedSource:
    """The states of the keys of one source under one claim, and the step that advances them.

    `n_changes` counts the stored changes since the last snapshot.
    """

    step: KeyStep
    states: KeyStates
    n_changes: int = 0

    @classmethod
    def from_rows(cls, rows: Sequence[KeyStateRows], step: KeyStep) -> KeyedSource:
        """Return the states that are stored for a source: a snapshot and the changes after it."""
        return cls(step=step, states=KeyStates.from_rows(rows, step.width), n_changes=len(rows))

    def derive(self, events: Events) -> tuple[Events, KeyStateRows]:
        """Return events with their derived features after their own, in float64, and the states of their keys."""
        keys = [None] * len(events) if events.keys is None else events.keys
        derived, changed = self.states.advance(keys, events.offsets, events.times_us, events.features, self.step)
        features = np.concatenate([events.features, derived], axis=1)
        return replace(events, features=features), changed

    def describe_change(self, changed: KeyStateRows) -> KeyStateChange:
        """Return the states to store with a commit: the changed ones, or all of them every `SNAPSHOT_EVERY` changes."""
        if self.n_changes + 1 < SNAPSHOT_EVERY:
            return KeyStateChange(rows=changed, is_snapshot=False)
        return KeyStateChange(rows=self.states.replace(changed).snapshot(), is_snapshot=True)

    def after(self, changed: KeyStateRows) -> KeyedSource:
        """Return the states after a stored commit."""
        n_changes = (self.n_changes + 1) % SNAPSHOT_EVERY
        return KeyedSource(step=self.step, states=self.states.replace(changed), n_changes=n_changes)
