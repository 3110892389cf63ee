"""A lock that waiting threads acquire in the order in which they asked for it."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """A first-in, first-out lock: `threading.Lock` guarantees no order, so that one writer could starve others.

    A context manager. It is not reentrant: entering it twice in one thread raises `RuntimeError`.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._holder: int | None = None

    @property
    def n_waiting(self) -> int:
        """Return the number of threads in the queue."""
        with self._mutex:
            return len(self._waiting)

    def __enter__(self) -> None:
        thread_id = threading.get_ident()
        with self._mutex:
            if self._holder == thread_id:
                message = "a write transaction was started inside a write transaction of the same thread"
                raise RuntimeError(message)
            if self._holder is None and not self._waiting:
                self._holder = thread_id
                return
            granted = threading.Event()
            self._waiting.append(granted)
        acquired = False
        try:
            granted.wait()
            acquired = True
        finally:
            # An interrupt while waiting must leave the queue, or release a lock that was granted in the meantime.
            with self._mutex:
                if acquired:
                    self._holder = thread_id
                elif granted in self._waiting:
                    self._waiting.remove(granted)
                else:
                    self._release_to_next()

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self._release_to_next()

    def _release_to_next(self) -> None:
        self._holder = None
        if self._waiting:
            # The lock stays taken until the next thread runs, so that no other thread can overtake it.
            self._holder = -1
            self._waiting.popleft().set()
