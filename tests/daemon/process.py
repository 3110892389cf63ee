"""The daemon as a process: start it, watch its rows, and kill, freeze or stop it by its process id."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers.process import ServerError, die_with_parent, last_lines

TIMEOUT_S = 120.0
"""An upper bound, not an expected time: the machine may be busy."""

_POLL_INTERVAL_S = 0.05


class DaemonProcess:
    """`outrider run` with one configuration. It can be started again after every exit.

    Args:
        folder: Folder of the configuration file and the log.
        settings: The configuration.
        name: Name of the files; distinguishes two daemons of one test.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], name: str = "outrider") -> None:
        self.config = folder / f"{name}.yaml"
        self.log_path = folder / f"{name}.log"
        self.config.write_text(json.dumps(settings))  # JSON is YAML
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the process and return without waiting."""
        assert not self.is_running, "one process at a time"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "monitor.cli.main", "-c", str(self.config), "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- calls prctl, nothing else
                # One thread for linear algebra: several daemons and two servers share the machine.
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
            )
        return self

    @property
    def is_running(self) -> bool:
        """Whether the process exists; a frozen process counts as running."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """The log of all runs of this daemon."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self._signal_and_wait(signal.SIGKILL)

    def terminate(self, within_s: float = TIMEOUT_S) -> int:
        """Stop the process with SIGTERM; return its exit code."""
        return self._signal_and_wait(signal.SIGTERM, within_s)

    def wait(self, within_s: float = TIMEOUT_S) -> int:
        """Wait for the process to exit; return its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise ServerError(f"the daemon did not exit within {within_s:g} s\n{self.tail()}") from None

    def runs_for(self, for_s: float) -> bool:
        """Let the process run for `for_s` seconds; return whether it is still running."""
        assert self._process is not None
        try:
            self._process.wait(for_s)
        except subprocess.TimeoutExpired:
            return True
        return False

    def wait_until(self, condition: Callable[[], bool], what: str, within_s: float = TIMEOUT_S) -> None:
        """Wait for a condition; raise with the end of the log if the daemon exits or the time is over."""
        deadline = time.monotonic() + within_s
        while not condition():
            if not self.runs_for(_POLL_INTERVAL_S) and not condition():
                raise ServerError(f"the daemon exited before {what}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"waited {within_s:g} s for {what}\n{self._abort_and_tail()}")

    def tail(self, lines: int = 40) -> str:
        """Return the last lines of the log."""
        return last_lines(self.log_path, lines)

    def _abort_and_tail(self) -> str:
        """Abort the process so that it logs the stack of every thread; return the end of the log."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGABRT)
        self.wait()
        return self.tail(150)

    def _signal_and_wait(self, with_signal: signal.Signals, within_s: float = TIMEOUT_S) -> int:
        if self.is_running:
            self.send(with_signal)
        return self.wait(within_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the process if it is still running, frozen or not."""
        if self.is_running:
            self.kill()
