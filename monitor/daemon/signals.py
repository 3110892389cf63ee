"""Signal handling: stop on SIGTERM and SIGINT with a bound on the shutdown time, reload on SIGHUP.

This module imports nothing slow, so that the handlers are installed at once.
"""

import faulthandler
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

_SHUTDOWN_TIMEOUT_S = 28.0
"""The drain timeout, the delivery timeout and a margin: below the 30 s after which supervisors kill."""

_LOG_TIMEOUT_S = 0.5
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals(
    stop: Callable[[], None],
    *,
    reload: Callable[[], None] | None = None,
    end_within_s: float = _SHUTDOWN_TIMEOUT_S,
) -> Iterator[None]:
    """Call `stop` at the first SIGTERM or SIGINT, and `reload` at each SIGHUP.

    A second SIGTERM or SIGINT ends the process at once. The process also ends when `end_within_s` seconds have passed
    since the first one, even after the end of the block: a statement without an answer from the database, or a
    full pipe on standard error, would block a thread indefinitely. Committed data is safe in both cases.

    The callbacks run in a separate thread, which waits for signals at the level of the operating system. It does
    not depend on the main thread, which may be blocked.

    Args:
        stop: Request the stop; must not block.
        reload: Request the reload; must not block. None: SIGHUP is not handled.
        end_within_s: The bound on the shutdown time.
    """
    signals = (*_STOP_SIGNALS, signal.SIGHUP) if reload is not None else _STOP_SIGNALS
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watch = _SignalWatch(reader, stop, reload, end_within_s)
    before = {number: signal.signal(number, _leave_to_watch) for number in signals}
    previous_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watch.start()
    try:
        yield
    finally:
        if not watch.is_stopping:
            signal.set_wakeup_fd(previous_writer)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(writer)
            watch.join()


def _leave_to_watch(_number: int, _frame: object) -> None:
    """Do nothing: the interpreter has written the signal's number to the pipe of the watch."""


class _SignalWatch:
    """A thread that reads the numbers of signals from a pipe, and ends the process when the shutdown takes too long."""

    def __init__(
        self, reader: int, stop: Callable[[], None], reload: Callable[[], None] | None, end_within_s: float
    ) -> None:
        self._reader = reader
        self._stop = stop
        self._reload = reload
        self._end_within_s = end_within_s
        self._deadline_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)

    @property
    def is_stopping(self) -> bool:
        """Return whether a signal to stop has arrived."""
        return self._deadline_s is not None

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the thread, after the other end of the pipe was closed."""
        self._thread.join()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        while True:
            if not poll.poll(self._remaining_ms()):
                self._end_process()
            numbers = os.read(self._reader, 64)
            if not numbers:
                os.close(self._reader)
                return
            for number in numbers:
                self._handle(number)

    def _remaining_ms(self) -> float | None:
        return None if self._deadline_s is None else max(0.0, self._deadline_s - time.monotonic()) * 1000

    def _handle(self, number: int) -> None:
        if number in _STOP_SIGNALS:
            if self._deadline_s is not None:
                os._exit(128 + number)
            self._deadline_s = time.monotonic() + self._end_within_s
            _exit_later(self._end_within_s + 2 * _LOG_TIMEOUT_S)
            self._stop()
        elif number == signal.SIGHUP and self._reload is not None and self._deadline_s is None:
            self._reload()

    def _end_process(self) -> None:
        """End the process, after an error in the log if the log accepts it in time."""
        logging_thread = threading.Thread(target=_log_forced_end, args=(self._end_within_s,), daemon=True)
        logging_thread.start()
        logging_thread.join(_LOG_TIMEOUT_S)
        os._exit(1)


def _exit_later(after_s: float) -> None:
    """Have the process exit with 1 after a time, also if a thread does not return the interpreter's lock."""
    # The tracebacks go nowhere: standard error may block.
    null = Path(os.devnull).open("w")  # noqa: SIM115 - open until the process ends
    faulthandler.dump_traceback_later(after_s, exit=True, file=null)


def _log_forced_end(after_s: float) -> None:
    own = threading.current_thread()
    running = sorted(each.name for each in threading.enumerate() if not each.daemon and each is not own)
    log.error(
        "The shutdown has taken %.0f s and these threads still run: %s. The database or the reader of standard error "
        "may not answer. Ending the process now; committed data is kept, and the next run continues from it.",
        after_s,
        ", ".join(running),
        extra={"action": "stop"},
    )
