"""Acceptance: a person at a terminal: what is typed runs on a pseudo-terminal, and what it shows is kept."""

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
    """A command on a terminal of its own, from its start to its end."""

    def __init__(self, line: str, folder: Path) -> None:
        """Start a line as a shell would; `outrider` and `python` are those of these tests."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, _COLUMNS, 0, 0))
        command = re.sub(r"^outrider\b", f"exec {sys.executable} -m monitor.cli.main", line)
        command = re.sub(r"^python\b", f"exec {sys.executable}", command)
        self.line = line
        self.process = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=_environment(folder)
        )
        os.close(theirs)
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()

    def _read(self, terminal: int) -> None:
        try:
            while chunk := os.read(terminal, 65_536):
                self._shown += chunk
        except OSError:  # the other side has ended
            pass
        os.close(terminal)

    def shown(self) -> str:
        """Return all that was shown, without colours; what was drawn over stays, as lines of its own."""
        return _CONTROL.sub("", bytes(self._shown).decode(errors="replace")).replace("\r", "\n")

    def wait_for_success(self, within_s: float = 120) -> str:
        """Wait for a good end; return what was shown."""
        assert self.process.wait(within_s) == 0, f"{self.line}: {self.shown()}"
        self._reader.join(10)
        return self.shown()

    def wait_until(self, condition: Callable[[], bool], what: str, within_s: float = 120) -> None:
        """Wait for a condition while the command lives."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert self.process.poll() is None, f"{self.line} ended: {self.shown()}"
            assert time.monotonic() < deadline_s, f"waited {within_s:g} s for: {what}\n{self.shown()}"
            time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a child that finds the packages wherever these tests found them."""
    import monitor

    home = str(Path(monitor.__file__).resolve().parents[1])
    # Where the environment forbids to keep byte-code, each command would compile torch anew: half of its time.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    bytecode = {"PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode")}
    return {
        **kept, **bytecode, "PYTHONPATH": home, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": str(_COLUMNS)
    }  # fmt: skip
