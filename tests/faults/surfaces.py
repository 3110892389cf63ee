"""The surfaces that may say that a stream is well, and the time that each takes to stop saying it after a fault."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from config.errors import OutriderError
from monitor.health.stream_health import HealthState, judge_streams
from storage.database.engine import Database
from storage.database.tables import HEALTH_REPORT_TTL_S
from storage.queries.health import read_health, read_health_facts
from tests.daemon.settings import STREAM
from tests.servers.process import free_port
from tests.servers.receiver import WebhookReceiver

STATED_INTERVAL_S = float(HEALTH_REPORT_TTL_S)
"""A proof of the state is at most this old. No surface may be green for twice as long after a fault."""

_HEARTBEAT_S = 1.0
_STAYS_S = 2.0
_POLL_S = 0.2


class Surfaces:
    """The view `health`, the state on the page, `status --check`, `/readyz` and the heartbeats of one daemon."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._port = free_port()
        self._receiver = WebhookReceiver()
        self._db: Database | None = None

    def settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of the daemon with probes and heartbeats."""
        heartbeat = {"url": self._receiver.url, "every": f"{_HEARTBEAT_S:g}s"}
        return {
            **settings,
            "metrics": {"listen": f"127.0.0.1:{self._port}"},
            "notify": {"heartbeats": [heartbeat]},
        }

    def close(self) -> None:
        """Close the receiver and the connections."""
        self._receiver.close()
        if self._db is not None:
            self._db.close()

    def find_green(self) -> set[str]:
        """Return the surfaces that say now that the stream is well."""
        green = self._find_green_rows()
        if self._is_ready():
            green.add("/readyz")
        requests = self._receiver.requests
        if requests and time.monotonic() - requests[-1].at_s < 2 * _HEARTBEAT_S + 1:
            green.add("heartbeats")
        return green

    def _find_green_rows(self) -> set[str]:
        """Return the surfaces that read the database; none of them is green while it does not answer."""
        try:
            self._db = self._db or Database(self._url, read_only=True)
            rows = [each for each in read_health(self._db) if each.stream == STREAM]
            health = judge_streams(read_health_facts(self._db)).get(STREAM)
        except (OutriderError, sa.exc.DBAPIError):
            return set()
        green = set()
        if rows and rows[0].state == "running" and all(each.is_well and each.state != "held" for each in rows):
            green.add("view health")
        if health is not None and health.state is HealthState.WELL:
            green.add("page")
        if health is not None and health.state is not HealthState.ENDED and health.first_obstacle is None:
            green.add("status --check")
        return green

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.HTTPError, OSError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            return False

    def is_all_green(self) -> bool:
        """Return whether every surface says that the stream is well, as before a fault."""
        return self.find_green() == ALL

    def measure_fault(
        self, fault: str, *, keep: Callable[[], None] = lambda: None, ignored: frozenset[str] = frozenset()
    ) -> dict[str, float]:
        """Wait until no surface is green for two seconds; return the seconds for which each still was.

        Args:
            fault: What happened just now, for messages.
            keep: Called at each look, to keep the fault up.
            ignored: Surfaces that the fault does not concern.
        """
        started_s = time.monotonic()
        green_s = dict.fromkeys(sorted(ALL - ignored), 0.0)
        last_s = started_s
        while time.monotonic() - last_s < _STAYS_S:
            keep()
            for surface in self.find_green() - ignored:
                last_s = time.monotonic()
                green_s[surface] = last_s - started_s
            late = {each: round(s, 1) for each, s in green_s.items() if s > 2 * STATED_INTERVAL_S}
            assert not late, f"{fault}: still green: {late}"
            time.sleep(_POLL_S)
        print(f"{fault}: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in green_s.items())}")
        return green_s


ALL = {"view health", "page", "status --check", "/readyz", "heartbeats"}
"""The names of all surfaces."""
