"""Results of computations that requests share, the newest ones."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class KeptResults(Generic[Result]):
    """Results by the facts that they were computed from, for all threads.

    Args:
        limit: The most results; the one that was asked for longest ago is dropped first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Result] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return the result of a key; compute it if it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        result = compute()
        with self._lock:
            self._kept[key] = result
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return result


class _Moment(Generic[Result]):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.results: list[tuple[float, Result]] = []
        """The time of the computation and its result; empty before it."""


class SharedMoments(Generic[Result]):
    """Results that are shared for a moment: requests for the same one at the same time wait for one computation.

    Args:
        limit: The most results.
        life_s: The age in seconds, counted from the begin of its computation, at which a result is computed again.
        clock_s: A clock that does not jump, in seconds.
    """

    def __init__(self, limit: int, life_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._life_s = life_s
        self._clock_s = clock_s
        self._moments = KeptResults[_Moment[Result]](limit)

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Return the result of a key, at most `life_s` old."""
        moment = self._moments.get(key, _Moment)
        with moment.lock:
            if not moment.results or self._clock_s() - moment.results[0][0] >= self._life_s:
                began_s = self._clock_s()
                moment.results = [(began_s, compute())]
            return moment.results[0][1]
