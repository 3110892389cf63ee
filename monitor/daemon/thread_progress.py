"""The threads of a stream that no longer complete their rounds. A pure function of times."""

from collections.abc import Mapping
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
