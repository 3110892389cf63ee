"""A step of derived features for tests: the distance of the first feature from the moving level of its key."""

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.key_states import KeyedEvents

GAIN = 2 / 13


class Level:
    """One derived feature per event, one Python step per event; a state is the level and the number of events."""

    width = 2

    def advance(self, events: KeyedEvents) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the distances from the level, (n, 1), and the states after the events, (k, 2)."""
        states = events.states.copy()
        derived = np.empty((len(events.key_rows), 1))
        rows = zip(events.key_rows.tolist(), events.is_first.tolist(), events.features[:, 0].tolist(), strict=True)
        for event, (row, is_first, value) in enumerate(rows):
            level, count = (value, 0.0) if is_first else states[row]
            derived[event] = value - level
            states[row] = level + GAIN * (value - level), count + 1
        return derived, states
