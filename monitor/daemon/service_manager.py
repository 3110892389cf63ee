"""The protocol of systemd for services (sd_notify): ready, alive, stopping. Without systemd nothing is sent.

systemd names a datagram socket in NOTIFY_SOCKET and the interval of its watchdog in WATCHDOG_USEC. A message has lines
of KEY=VALUE and no answer.
"""

import logging
import os
import socket
from collections.abc import Mapping, Sequence

from monitor.metrics.probes import WELL_STATES, StreamCheck, probe_liveness

log = logging.getLogger(__name__)

MAX_INTERVAL_S = 1.0


class ServiceManager:
    """Tells the service manager the state of the process; one thread at a time calls `report`.

    The process is ready when one of its streams has claimed its sources, so that a unit that starts after it finds a
    monitor at work. It is alive as long as `/livez` is: a broker or a database that is away is no reason to kill it.
    """

    def __init__(self, environment: Mapping[str, str], process_id: int) -> None:
        self._address = _parse_address(environment.get("NOTIFY_SOCKET", ""))
        watched = environment.get("WATCHDOG_PID", str(process_id)) == str(process_id)
        self._has_watchdog = watched and environment.get("WATCHDOG_USEC", "0").strip("0") != ""
        self._is_ready = False
        self._is_stopping = False
        self._status = ""

    @classmethod
    def from_environment(cls) -> "ServiceManager":
        """Return the service manager of this process."""
        return cls(os.environ, os.getpid())

    @property
    def is_present(self) -> bool:
        """Return whether a service manager wants to be told."""
        return self._address is not None

    def report(self, checks: Sequence[StreamCheck]) -> None:
        """Tell that the process is ready, once, and that it is alive; tell a status that has changed."""
        if self._address is None:
            return
        lines = []
        if not self._is_ready and any(each.state in WELL_STATES for each in checks):
            self._is_ready = True
            lines.append("READY=1")
        status = describe_streams(checks)
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if self._has_watchdog and probe_liveness(checks, is_store_available=True).is_ok:
            lines.append("WATCHDOG=1")
        self._send(lines)

    def tell_stopping(self) -> None:
        """Tell that the process is about to end, once."""
        if not self._is_stopping:
            self._is_stopping = True
            self._send(["STOPPING=1", "STATUS=stopping"])

    def _send(self, lines: Sequence[str]) -> None:
        if self._address is None or not lines:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)  # noqa: FBT003 - the socket's own signature
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("The service manager cannot be told: %s.", error, extra={"action": "service"})


def describe_streams(checks: Sequence[StreamCheck]) -> str:
    """Return the states of the streams on one line."""
    states = sorted({each.state for each in checks})
    counts = [f"{sum(each.state == state for each in checks)} {state.replace('_', ' ')}" for state in states]
    return f"streams: {', '.join(counts)}"


def _parse_address(name: str) -> str | None:
    """Return the address of the socket; `@` stands for the NUL of an abstract one. None: there is none to tell."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None
