"""How fast a warm-up gets on, and how that is said. Pure."""

from collections import deque

_RATE_WINDOW_S = 60.0


class WarmUpRate:
    """How fast events have come of late: what lay in the log when the warm-up began says nothing of the rest."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def remaining_s(self, now_s: float, n: int, wanted: int) -> float | None:
        """Return how long the rest will take, None while nothing tells it."""
        self._seen.append((now_s, n))
        while now_s - self._seen[0][0] > _RATE_WINDOW_S:
            self._seen.popleft()
        then_s, before = self._seen[0]
        if n >= wanted:
            return 0.0
        return (wanted - n) * (now_s - then_s) / (n - before) if n > before else None


def format_progress(n: int, wanted: int, left_s: float | None) -> str:
    """Say how far a warm-up is: warming up: 312 of 10,000 events, about 40 min left."""
    said = f"warming up: {min(n, wanted):,} of {wanted:,} events"
    if n >= wanted:
        return f"{said}, fitting"
    if left_s is None:
        return said if n else f"{said}, waiting for the first"
    return f"{said}, about {format_rough_duration(left_s)} left"


def format_rough_duration(seconds: float) -> str:
    """Return a length of time as a person says it."""
    for unit_s, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{max(1.0, seconds):.0f} s"
