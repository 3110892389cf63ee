"""Retrying calls to a database that is unavailable, with exponential backoff."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from config.errors import StorageUnavailable
from storage.database.errors import CommitUnknown

log = logging.getLogger(__name__)
T = TypeVar("T")

_INITIAL_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 5.0


class StorageRetry:
    """Retries the storage calls of one thread until the drain timeout after the stop event has passed."""

    def __init__(self, stop: threading.Event, drain_timeout_s: float) -> None:
        self._stop = stop
        self.drain_timeout_s = drain_timeout_s
        self._stop_seen_s: float | None = None

    def retry_until_answered(self, call: Callable[[], T], *, repeatable: bool = True) -> T:
        """Call until the database answers and return the result; only `StorageUnavailable` is retried.

        Args:
            call: The call.
            repeatable: Whether the call may be repeated after a transaction of unknown outcome.

        Raises:
            CommitUnknown: The call is not repeatable, and the outcome of its commit is unknown; the caller has to read
                the stored position first.
            StorageUnavailable: The stop event is set and the drain timeout has passed.
        """
        pause_s = _INITIAL_BACKOFF_S
        while True:
            try:
                return call()
            except StorageUnavailable as error:
                is_unknown = isinstance(error, CommitUnknown) and not repeatable
                if is_unknown or self._drain_time_elapsed():
                    raise
                log.warning("%s; trying again in %.1f s.", error, pause_s, extra={"action": "store"})
                self._stop.wait(pause_s) if not self._stop.is_set() else time.sleep(pause_s)
                pause_s = min(2 * pause_s, _MAX_BACKOFF_S)

    def _drain_time_elapsed(self) -> bool:
        """Return whether the drain timeout has passed since the stop event was first seen.

        The inbox message that ends the worker cannot serve for this: it may be queued behind the current call.
        """
        if not self._stop.is_set():
            return False
        now_s = time.monotonic()
        if self._stop_seen_s is None:
            self._stop_seen_s = now_s
        return now_s - self._stop_seen_s > self.drain_timeout_s
