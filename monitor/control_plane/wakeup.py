"""The pace of a control thread: a step when one is needed, at most four times a second, and at least once a second."""

import threading
import time
from collections.abc import Callable

INTERVAL_S = 1.0
"""Longest time between two steps: idle sources, other processes and late events make steps due by time."""

MIN_INTERVAL_S = 0.25
"""Shortest time between two steps, unless nothing can be committed before the step."""


class ControlWakeup:
    """Lets the control thread wait for its next step; any thread may ask for one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._asked = False
        self._urgent = False
        self._started_s = float("-inf")

    def ask(self, *, urgent: bool) -> None:
        """Ask for a step: at once if it is urgent, else as soon as the shortest interval has passed."""
        with self._condition:
            self._asked = True
            self._urgent = self._urgent or urgent
            self._condition.notify()

    def wait(self) -> None:
        """Wait until the next step is due, and note its start."""
        with self._condition:
            while (wait_s := self.due_in_s()) > 0:
                self._condition.wait(wait_s)
            self._asked = self._urgent = False
            self._started_s = self._clock()

    def due_in_s(self) -> float:
        """Return the time until the next step is due, in seconds; not positive if it is."""
        if self._urgent:
            return 0.0
        interval_s = MIN_INTERVAL_S if self._asked else INTERVAL_S
        return self._started_s + interval_s - self._clock()
