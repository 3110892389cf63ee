"""Progress of a warm-up: rate of events, remaining time and text. Pure functions of the given time."""

from collections import deque

from config.time_format import format_rough_duration

_RATE_WINDOW_S = 60.0


class WarmUpRate:
    """Rate of events over the last minute.

    Older observations are dropped: a backlog read at the start does not predict the rate of new events.
    """

    def __init__(self) -> None:
        self._observations: deque[tuple[float, int]] = deque()

    def remaining_s(self, now_s: float, n: int, wanted: int) -> float | None:
        """Record `n` events at `now_s` and return the estimated remaining time; None while there is no rate."""
        self._observations.append((now_s, n))
        while now_s - self._observations[0][0] > _RATE_WINDOW_S:
            self._observations.popleft()
        then_s, n_then = self._observations[0]
        if n >= wanted:
            return 0.0
        return (wanted - n) * (now_s - then_s) / (n - n_then) if n > n_then else None


def format_progress(n: int, wanted: int, left_s: float | None) -> str:
    """Return the progress as text: warming up: 312 of 10,000 events, about 40 min left."""
    text = f"warming up: {min(n, wanted):,} of {wanted:,} events"
    if n >= wanted:
        return f"{text}, fitting"
    if left_s is None:
        return text if n else f"{text}, waiting for the first"
    return f"{text}, about {format_rough_duration(max(1.0, left_s))} left"
