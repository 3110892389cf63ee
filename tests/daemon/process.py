"""Tests: the daemon as a process: started, watched through SQL, killed, frozen and told to stop by its id."""

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
"""A bound and no expectation: the machine that runs the tests may be busy with others."""

_POLL_INTERVAL_S = 0.05


class DaemonProcess:
    """`outrider run` under one configuration; may be started again after every end.

    Args:
        folder: Where the configuration and the log go.
        settings: The configuration.
        name: Tells two daemons of one test apart.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], name: str = "outrider") -> None:
        self.config = folder / f"{name}.yaml"
        self.log_path = folder / f"{name}.log"
        self.config.write_text(json.dumps(settings))  # JSON is YAML
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it; return at once."""
        assert not self.is_running, "one process at a time"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "monitor.cli.main", "-c", str(self.config), "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- calls prctl, nothing else
                # One thread for the matrices: several daemons and two servers share the machine.
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
            )
        return self

    @property
    def is_running(self) -> bool:
        """Whether the process lives (frozen counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """All that it has said, over all its lives."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash does."""
        self._signal_and_wait(signal.SIGKILL)

    def terminate(self, within_s: float = TIMEOUT_S) -> int:
        """Tell it to stop in good order; return its exit code."""
        return self._signal_and_wait(signal.SIGTERM, within_s)

    def wait(self, within_s: float = TIMEOUT_S) -> int:
        """Wait for its end; return its exit code."""
        assert self._process is not None
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise ServerError(f"the daemon did not end within {within_s:g} s\n{self.tail()}") from None

    def runs_for(self, for_s: float) -> bool:
        """Let it run for a while; return whether it still does."""
        assert self._process is not None
        try:
            self._process.wait(for_s)
        except subprocess.TimeoutExpired:
            return True
        return False

    def wait_until(self, condition: Callable[[], bool], what: str, within_s: float = TIMEOUT_S) -> None:
        """Wait for what the daemon brings about; raise with the end of its log when it ends or takes too long."""
        deadline = time.monotonic() + within_s
        while not condition():
            if not self.runs_for(_POLL_INTERVAL_S) and not condition():
                raise ServerError(f"the daemon ended before {what}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"waited {within_s:g} s for {what}\n{self._abort_and_tail()}")

    def tail(self, lines: int = 40) -> str:
        """Return the end of its log."""
        return last_lines(self.log_path, lines)

    def _abort_and_tail(self) -> str:
        """End it in a way that makes it say where every thread stands; return the end of its log."""
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
        """End it if it still lives, frozen or not."""
        if self.is_running:
            self.kill()
