"""A daemon under a service manager: ready after it has claimed its source, alive, stopping."""

import socket
import threading
from pathlib import Path

import pytest

from config.settings import Settings
from monitor.daemon.daemon import Daemon

_TIMEOUT_S = 60.0


def test_a_daemon_tells_when_it_is_ready_alive_and_stopping(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/notify")
        manager.settimeout(_TIMEOUT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")
        stream = {
            "source": {"type": "synthetic", "seed": 3, "rate": 20, "speed": 1000, "start": "2026-01-01T00:00:00Z"},
            "model": {"warm_up": 300, "n_components": 1},
        }
        settings = {"database": {"url": sqlite_url}, "device": "cpu", "streams": {"payments": stream}}
        daemon = Daemon(Settings.model_validate(settings))
        thread = threading.Thread(target=daemon.run)
        thread.start()
        told: list[str] = []
        try:
            while not {"READY=1", "WATCHDOG=1"} <= set(told):
                told += manager.recv(4096).decode().split("\n")
            assert "STOPPING=1" not in told
        finally:
            daemon.stop()
        while "STOPPING=1" not in told:
            told += manager.recv(4096).decode().split("\n")
        thread.join(_TIMEOUT_S)
        assert not thread.is_alive()
    assert told.count("READY=1") == 1
