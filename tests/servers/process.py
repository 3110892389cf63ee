"""Tests: what both servers share as processes: a port, a child that dies with us, a bounded wait."""

import ctypes
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Below the range from which Linux takes ports for outgoing connections (32768 up): a client that keeps
# knocking at a stopped server could otherwise be given that very port, connect to itself and hold it.
PORTS = range(20_000, 32_000)
_PR_SET_PDEATHSIG = 1


class ServerError(RuntimeError):
    """A test server did not do what it was told; the message ends with the tail of its log."""


def free_port() -> int:
    """Return a loopback port that nobody listens on now; the one who starts there must be ready to retry."""
    for port in random.SystemRandom().sample(PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError(f"no free loopback port in {PORTS}")


def make_server_directory(kind: str) -> Path:
    """Make a directory for one server, where others may reach it and with a path short enough for sockets."""
    base = Path(tempfile.gettempdir()).resolve()
    if len(str(base)) > 40 or not all(p.stat().st_mode & 0o001 for p in (base, *base.parents)):
        base = Path("/tmp")
    return Path(tempfile.mkdtemp(prefix=f"outrider-{kind}-", dir=base))


def die_with_parent(with_signal: signal.Signals) -> Callable[[], None] | None:
    """Return what a child does before it becomes the server, so that a killed test run leaves none behind."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask_for_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, int(with_signal))

    return ask_for_signal


def wait_until(condition: Callable[[], bool], *, within_s: float, what: str) -> None:
    """Wait until the condition holds, or raise `ServerError` that names what was waited for."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"waited {within_s:g} s for {what}")
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    """Tell whether somebody accepts connections on the loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def stop_process(process: subprocess.Popen[bytes], with_signal: signal.Signals, *, within_s: float) -> None:
    """Signal a child and wait for its end; kill it when it takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.send_signal(with_signal)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def last_lines(path: Path, lines: int = 30) -> str:
    """Return the last lines of a log file."""
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
