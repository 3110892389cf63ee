"""Commands on a pseudo-terminal, with a record of their output."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLUMNS = 120


class Terminal:
    """Command on its own pseudo-terminal."""

    def __init__(self, line: str, folder: Path) -> None:
        """Start a shell command; `outrider` and `python` are those of the tests."""
        own_side, child_side = pty.openpty()
        fcntl.ioctl(child_side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, _COLUMNS, 0, 0))
        command = re.sub(r"^outrider\b", f"exec {sys.executable} -m monitor.cli.main", line)
        command = re.sub(r"^python\b", f"exec {sys.executable}", command)
        self.line = line
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            stdin=child_side,
            stdout=child_side,
            stderr=child_side,
            env=_environment(),
        )
        os.close(child_side)
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read, args=(own_side,), daemon=True)
        self._reader.start()

    def _read(self, terminal: int) -> None:
        try:
            while chunk := os.read(terminal, 65_536):
                self._shown += chunk
        except OSError:  # the other side is closed
            pass
        os.close(terminal)

    def shown(self) -> str:
        """Return the output without control sequences; overwritten text is kept as separate lines."""
        return _CONTROL.sub("", bytes(self._shown).decode(errors="replace")).replace("\r", "\n")

    def wait_for_success(self, within_s: float = 120) -> str:
        """Wait for exit code 0 and return the output."""
        assert self.process.wait(within_s) == 0, f"{self.line}: {self.shown()}"
        self._reader.join(10)
        return self.shown()

    def wait_until(self, condition: Callable[[], bool], description: str, within_s: float = 120) -> None:
        """Wait for a condition while the command runs."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert self.process.poll() is None, f"{self.line} ended: {self.shown()}"
            assert time.monotonic() < deadline_s, f"waited {within_s:g} s for: {description}\n{self.shown()}"
            time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _environment() -> dict[str, str]:
    """Return an environment in which the child imports the same packages as the tests."""
    import monitor

    home = str(Path(monitor.__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": home, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": str(_COLUMNS)}
