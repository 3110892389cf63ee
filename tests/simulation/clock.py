"""The clock of a simulation: the only clock of its replicas and of its database."""

import threading
from dataclasses import dataclass

from tests.simulation.actor import pause_current_actor


@dataclass
class SimulatedClock:
    """A clock that advances only when the simulation advances it, in microseconds since 1970."""

    now_us: int

    def advance(self, by_s: float) -> None:
        """Let seconds pass."""
        self.now_us += round(by_s * 1e6)

    def monotonic_s(self) -> float:
        """Return the time in seconds, in place of `time.monotonic`."""
        return self.now_us / 1e6

    def read_us(self) -> int:
        """Return the time in microseconds since 1970, in place of the wall clock."""
        return self.now_us


class SimulatedEvent(threading.Event):
    """An event whose waits pass simulated time."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        """Let other actors run and the time-out pass; return whether the event is set."""
        pause_current_actor()
        self._clock.advance(timeout or 0.0)
        return self.is_set()
