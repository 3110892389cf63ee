"""A real Alertmanager from Debian's package, which is unpacked into the cache and not installed."""

import json
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.servers.downloads import alertmanager_binary
from tests.servers.process import (
    ServerError,
    die_with_parent,
    free_port,
    last_lines,
    make_server_directory,
    stop_process,
    wait_until,
)


class AlertmanagerServer:
    """An Alertmanager on a loopback port that sends every notification to a webhook; it keeps port and data.

    Args:
        webhook: The address of the webhook.
    """

    def __init__(self, webhook: str) -> None:
        self._binary = alertmanager_binary()
        self.directory = make_server_directory("alertmanager")
        self._log_path = self.directory / "server.log"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        config = {
            "route": {"receiver": "all", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"},
            "receivers": [{"name": "all", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
        }
        (self.directory / "alertmanager.yml").write_text(json.dumps(config))

    @property
    def url(self) -> str:
        """Return the address of the server."""
        return f"http://127.0.0.1:{self._port}"

    def start(self, *, within_s: float = 20) -> None:
        """Start the server and wait until it is ready."""
        self._port = self._port or free_port()
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._binary),
                    f"--config.file={self.directory / 'alertmanager.yml'}",
                    f"--storage.path={self.directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--cluster.listen-address=",
                ],
                stdout=log,
                stderr=log,
                cwd=self._binary.parents[2],
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- calls prctl, nothing else
            )
        try:
            wait_until(self._is_ready, within_s=within_s, what="Alertmanager")
        except ServerError as error:
            raise ServerError(f"{error}\n{last_lines(self._log_path)}") from error

    def kill(self) -> None:
        """Kill the server, as a crash would."""
        if self._process is not None:
            stop_process(self._process, signal.SIGKILL, within_s=10)

    def alerts(self) -> list[dict[str, Any]]:
        """Return the active alerts of Outrider."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts?filter=alertname=OutriderIncident", timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def close(self) -> None:
        """Kill the server and remove its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise ServerError("Alertmanager has ended")
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def find_alertmanager() -> Path | None:
    """Return the program, or None where it cannot be had."""
    try:
        return alertmanager_binary()
    except ServerError:
        return None
