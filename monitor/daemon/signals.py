"""Signal handling: stop on SIGTERM and SIGINT, with a bound on the shutdown time.

This module imports nothing slow, so that the handlers are installed at once.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

_SHUTDOWN_TIMEOUT_S = 28.0
"""The drain timeout, the delivery timeout and a margin: below the 30 s after which supervisors kill."""


@contextmanager
def stop_on_signals(stop: Callable[[], None], *, end_within_s: float = _SHUTDOWN_TIMEOUT_S) -> Iterator[None]:
    """Call `stop` at the first SIGTERM or SIGINT; the second one ends the process at once.

    The process also ends at once when `end_within_s` seconds have passed since the first signal: a statement
    without an answer from the database would block a thread indefinitely. Committed data is safe in both cases.
    """
    seen = threading.Event()
    deadline = threading.Timer(end_within_s, _exit_now, (end_within_s,))
    deadline.daemon = True

    def handle(number: int, _frame: object) -> None:
        if seen.is_set():
            os._exit(128 + number)
        seen.set()
        deadline.start()
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        deadline.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_now(after_s: float) -> None:
    running = sorted(thread.name for thread in threading.enumerate() if not thread.daemon)
    log.error(
        "The shutdown has taken %.0f s and these threads still run: %s. The database may not answer. Ending the "
        "process now; committed data is kept, and the next run continues from it.",
        after_s,
        ", ".join(running),
        extra={"action": "stop"},
    )
    os._exit(1)
