"""Signals: how the process is told to end, and that it does. Imports nothing that takes time."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

_SHUTDOWN_TIMEOUT_S = 28.0
"""The time to drain, the time to tell, and a little: below the 30 s after which supervisors kill."""


@contextmanager
def stop_on_signals(stop: Callable[[], None], *, end_within_s: float = _SHUTDOWN_TIMEOUT_S) -> Iterator[None]:
    """Call `stop` at the first SIGTERM or SIGINT; the second one ends the process at once.

    So does the time, once `end_within_s` have passed since the first: a database that accepts a statement and never
    answers would hold a thread for ever, and what is committed is kept either way.
    """
    seen = threading.Event()
    last = threading.Timer(end_within_s, _exit_now, (end_within_s,))
    last.daemon = True

    def handle(number: int, _frame: object) -> None:
        if seen.is_set():
            os._exit(128 + number)
        seen.set()
        last.start()
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        last.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_now(after_s: float) -> None:
    waiting = sorted(thread.name for thread in threading.enumerate() if not thread.daemon)
    log.error(
        "Told to stop %.0f s ago and still at work (%s): the database may not answer. Ending at once; what is "
        "committed is kept, and the next run goes on from there.",
        after_s,
        ", ".join(waiting),
        extra={"action": "stop"},
    )
    os._exit(1)
