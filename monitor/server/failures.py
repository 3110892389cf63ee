"""A limit of the failed attempts of each address, so that tokens cannot be tried at speed."""

import threading
from collections import OrderedDict, deque

MAX_FAILURES = 10
PERIOD_S = 60.0
_MAX_ADDRESSES = 2_000


class FailureLimit:
    """Counts the failures of each address in the last minute. Bounded in memory; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str, now_s: float) -> float:
        """Return the seconds until the address may try again; 0 if it may try now."""
        with self._lock:
            times = self._failures.get(address)
            if times is None:
                return 0.0
            while times and times[0] <= now_s - PERIOD_S:
                times.popleft()
            if not times:
                del self._failures[address]
            return times[0] + PERIOD_S - now_s if len(times) >= MAX_FAILURES else 0.0

    def add(self, address: str, now_s: float) -> None:
        """Count a failure. The addresses with the oldest failures are forgotten beyond 2,000 addresses."""
        with self._lock:
            self._failures.setdefault(address, deque(maxlen=MAX_FAILURES)).append(now_s)
            self._failures.move_to_end(address)
            while len(self._failures) > _MAX_ADDRESSES:
                self._failures.popitem(last=False)
