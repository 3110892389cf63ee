"""The page in the process of the daemon (`server:`): it answers while streams run, and ends with the daemon."""

import re
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.daemon.process import DaemonProcess

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

STOP_WITHIN_S = 60.0
"""The stop of the page is bounded by 8 s, and that of the stream by its open batch; the machine may be busy."""


def test_sigterm_ends_the_page_of_a_daemon_with_an_open_viewer(tmp_path: Path) -> None:
    source = {"type": "synthetic", "seed": 3, "rate": 20, "start": "2026-01-01T00:00:00Z"}
    settings = {
        "database": {"url": f"sqlite:///{tmp_path / 'outrider.db'}"},
        "device": "cpu",
        "server": {"listen": "127.0.0.1:0"},
        "streams": {"payments": {"source": source, "model": {"warm_up": 200, "n_components": 1}}},
    }
    with DaemonProcess(tmp_path, settings).start() as daemon:
        daemon.wait_until(lambda: _address(daemon) is not None, "the page is announced")
        address = _address(daemon)
        daemon.wait_until(lambda: _shows_stream(f"{address}"), "the overview shows the stream")
        with urllib.request.urlopen(f"{address}api/v1/live", timeout=STOP_WITHIN_S) as live:
            assert live.readline().startswith(b"event: ")
            daemon.send(signal.SIGTERM)
            live.read()  # Returns at the end of the connection; the daemon does not wait for the viewer to leave.
            assert daemon.wait(STOP_WITHIN_S) == 0
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{address}", timeout=5)


def _address(daemon: DaemonProcess) -> str | None:
    found = re.search(r"http://127\.0\.0\.1:\d+/", daemon.log)
    return None if found is None else found.group()


def _shows_stream(address: str) -> bool:
    with urllib.request.urlopen(address, timeout=STOP_WITHIN_S) as page:
        return b"/streams/payments" in page.read()
