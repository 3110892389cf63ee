"""Slots of a connection pool that waiting threads get in the order in which they asked."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class FairSlots:
    """A first-in, first-out semaphore: a pool gives a free connection to any thread, so that some could starve.

    A thread that holds a slot gets another one without waiting: it would otherwise wait for itself.

    Args:
        n: The number of threads that may hold a slot at a time.
    """

    def __init__(self, n: int) -> None:
        self._mutex = threading.Lock()
        self._free = n
        self._waiting: deque[threading.Event] = deque()
        self._depths: dict[int, int] = {}

    @property
    def n_waiting(self) -> int:
        """Return the number of threads in the queue."""
        with self._mutex:
            return len(self._waiting)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold a slot during the block; wait for it in the order of the calls."""
        # The thread that leaves the block may be another one: the garbage collector closes abandoned generators.
        thread_id = threading.get_ident()
        self._acquire(thread_id)
        try:
            yield
        finally:
            with self._mutex:
                self._depths[thread_id] -= 1
                if not self._depths[thread_id]:
                    del self._depths[thread_id]
                    self._release_to_next()

    def _acquire(self, thread_id: int) -> None:
        with self._mutex:
            if thread_id in self._depths:
                self._depths[thread_id] += 1
                return
            if self._free and not self._waiting:
                self._free -= 1
                self._depths[thread_id] = 1
                return
            granted = threading.Event()
            self._waiting.append(granted)
        acquired = False
        try:
            granted.wait()
            acquired = True
        finally:
            # An interrupt while waiting must leave the queue, or pass on a slot that was granted in the meantime.
            with self._mutex:
                if acquired:
                    self._depths[thread_id] = 1
                elif granted in self._waiting:
                    self._waiting.remove(granted)
                else:
                    self._release_to_next()

    def _release_to_next(self) -> None:
        if self._waiting:
            # The slot is never free in between, so that no other thread can overtake the first one.
            self._waiting.popleft().set()
        else:
            self._free += 1
