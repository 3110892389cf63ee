"""The threads of a stream that no longer complete their rounds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

STUCK_AFTER_S = 20.0
"""A thread that has completed no round for longer is stuck: rounds take a second, and steps a few seconds at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckThread:
    """A thread of a stream that has completed no round since `since_s` on the monotonic clock."""

    name: str
    since_s: float

    @property
    def reason(self) -> str:
        """Return the reason in words, which do not change while the thread is stuck."""
        return f"the {self.name} thread has completed no round since then"


def find_stuck_threads(last_rounds_s: Mapping[str, float], now_s: float) -> tuple[StuckThread, ...]:
    """Return the threads whose last round was completed more than `STUCK_AFTER_S` ago, the longest first.

    Args:
        last_rounds_s: Time of the last completed round of each thread, on the monotonic clock.
        now_s: The time.
    """
    found = [
        StuckThread(name=name, since_s=at_s) for name, at_s in last_rounds_s.items() if now_s - at_s > STUCK_AFTER_S
    ]
    return tuple(sorted(found, key=lambda each: each.since_s))


class ControlRounds:
    """Notes the progress of the control thread: a round without an error, or a step within a long round.

    A step that fails again and again, for example because a table is locked, is no progress, although the lease is
    renewed before each attempt.

    Args:
        renew: Renews the lease; returns whether this process holds it.
        clock: The monotonic clock, in seconds.

    Attributes:
        progressed_s: Time of the last progress.
    """

    def __init__(self, renew: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._renew = renew
        self._clock = clock
        self._renewals = 0
        self.progressed_s = clock()

    def start(self) -> None:
        """Start a round."""
        self._renewals = 0

    def renew(self) -> bool:
        """Renew the lease before a step; all but the first in a round follow a step that was carried out."""
        held = self._renew()
        self._renewals += 1
        if self._renewals > 1:
            self.progressed_s = self._clock()
        return held

    def complete(self) -> None:
        """End a round without an error."""
        self.progressed_s = self._clock()
