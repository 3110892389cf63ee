"""Helpers for server processes: a free port, a child that ends with its parent, a bounded wait."""

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

# Below Linux's range of ephemeral ports (from 32768): a client that retries a stopped server could otherwise be given
# the server's port as its own, connect to itself and occupy it.
PORTS = range(20_000, 32_000)
_PR_SET_PDEATHSIG = 1


class ServerError(RuntimeError):
    """A test server failed; the message ends with the last lines of its log."""


def free_port() -> int:
    """Return a free loopback port; another process may take it, so the caller must be prepared to retry."""
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
    """Create a directory for a server, accessible to other accounts and with a path short enough for sockets."""
    base = Path(tempfile.gettempdir()).resolve()
    if len(str(base)) > 40 or not all(p.stat().st_mode & 0o001 for p in (base, *base.parents)):
        base = Path("/tmp")
    return Path(tempfile.mkdtemp(prefix=f"outrider-{kind}-", dir=base))


def die_with_parent(with_signal: signal.Signals) -> Callable[[], None] | None:
    """Return a `preexec_fn` that ends the child with its parent, so that a killed test run leaves no server behind."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask_for_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, int(with_signal))

    return ask_for_signal


def wait_until(condition: Callable[[], bool], *, within_s: float, what: str) -> None:
    """Wait until the condition holds; raise `ServerError` with `what` after `within_s`."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise ServerError(f"waited {within_s:g} s for {what}")
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    """Return whether a server accepts connections on the loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def stop_process(process: subprocess.Popen[bytes], with_signal: signal.Signals, *, within_s: float) -> None:
    """Signal a child and wait for its end; kill it after `within_s`."""
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
