"""Patience with a store that is away: it is asked again until it answers, or the time to drain is over."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from config.errors import StorageUnavailable
from storage.database.engine import CommitUnknown

log = logging.getLogger(__name__)
T = TypeVar("T")

_INITIAL_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 5.0


class StorageRetry:
    """Used by one thread; `stop` says that the end was asked for."""

    def __init__(self, stop: threading.Event, drain_timeout_s: float) -> None:
        self._stop = stop
        self._drain_timeout_s = drain_timeout_s
        self._stop_seen_s: float | None = None

    def retry_until_answered(self, call: Callable[[], T]) -> T:
        """Call until the store answers; only what the store marks as passing is tried again.

        Raises:
            CommitUnknown: A commit of unknown outcome; the caller has to look before anything is repeated.
            StorageUnavailable: The end was asked for, and the time to drain is over.
        """
        pause_s = _INITIAL_BACKOFF_S
        while True:
            try:
                return call()
            except CommitUnknown:
                raise
            except StorageUnavailable as away:
                if self._drain_time_elapsed():
                    raise
                log.warning("%s; trying again in %.1f s.", away, pause_s, extra={"action": "store"})
                self._stop.wait(pause_s) if not self._stop.is_set() else time.sleep(pause_s)
                pause_s = min(2 * pause_s, _MAX_BACKOFF_S)

    def _drain_time_elapsed(self) -> bool:
        """Return whether the stop is older than the time to drain; the message to finish may wait behind this call."""
        if not self._stop.is_set():
            return False
        now_s = time.monotonic()
        if self._stop_seen_s is None:
            self._stop_seen_s = now_s
        return now_s - self._stop_seen_s > self._drain_timeout_s
