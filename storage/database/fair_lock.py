"""Storage room: a lock that serves waiting threads in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """First come, first served; `threading.Lock` promises no order, and one writer could starve others."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._holder: int | None = None

    @property
    def n_waiting(self) -> int:
        """Return how many threads stand in the queue now."""
        with self._mutex:
            return len(self._waiting)

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._mutex:
            if self._holder == me:
                message = "a write transaction was begun inside a write transaction of the same thread"
                raise RuntimeError(message)
            if self._holder is None and not self._waiting:
                self._holder = me
                return
            called = threading.Event()
            self._waiting.append(called)
        mine = False
        try:
            called.wait()
            mine = True
        finally:
            # An interrupt while waiting must leave the queue, or pass on a turn that was given meanwhile.
            with self._mutex:
                if mine:
                    self._holder = me
                elif called in self._waiting:
                    self._waiting.remove(called)
                else:
                    self._release_to_next()

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self._release_to_next()

    def _release_to_next(self) -> None:
        self._holder = None
        if self._waiting:
            # Nobody may slip in between this call and the moment at which the called thread runs.
            self._holder = -1
            self._waiting.popleft().set()
