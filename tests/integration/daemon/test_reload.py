"""SIGHUP in a running daemon: notifications are reloaded, other changes wait for a restart, errors change nothing."""

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.daemon.process import DaemonProcess
from tests.daemon.settings import STREAM
from tests.servers.receiver import WebhookReceiver

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


def _settings(url: str, channels: dict[str, str], **stream: Any) -> dict[str, Any]:
    """Return the settings of an endless stream with a burst of outliers every 20 minutes, which pass in 4 s."""
    source = {
        "type": "synthetic",
        "rate": 10,
        "speed": 300,
        "start": (datetime.now(UTC) - timedelta(hours=12)).date().isoformat() + "T00:00:00Z",
        "first_burst": "20m",
        "burst_every": "20m",
        "burst_length": "4m",
        "burst_share": 0.5,
    }
    return {
        "database": {"url": url},
        "device": "cpu",
        "streams": {
            STREAM: {
                "source": source,
                "event": {"time": {"field": "ts"}, "id": "id"},
                "model": {"n_components": 1, "warm_up": 2_000},
                "window": {"size": "1m", "idle_timeout": "1s"},
                "threshold": {"refresh": "10m", "percentile": 99},
                "alerts": {"resolve_after": 1},
                **stream,
            }
        },
        "notify": {
            "max_age": "10d",
            "channels": {name: {"type": "webhook", "url": address} for name, address in channels.items()},
        },
    }


def _write_and_reload(daemon: DaemonProcess, settings: dict[str, Any] | str) -> None:
    daemon.config.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    daemon.send(signal.SIGHUP)


def test_sighup_replaces_the_channels_and_names_what_needs_a_restart(
    sqlite_url: str, run_daemon: Callable[..., DaemonProcess]
) -> None:
    with WebhookReceiver() as first, WebhookReceiver() as second:
        daemon = run_daemon(_settings(sqlite_url, {"first": first.url}))
        daemon.wait_until(lambda: bool(first.requests), "the first channel receives an incident")

        _write_and_reload(daemon, "streams: {")
        daemon.wait_until(lambda: "was not reloaded" in daemon.log, "the invalid file is refused")
        received = len(first.requests)
        daemon.wait_until(lambda: len(first.requests) > received, "the first channel still receives incidents")

        changed = _settings(sqlite_url, {"second": second.url}, window={"size": "2m", "idle_timeout": "1s"})
        _write_and_reload(daemon, changed | {"logging": {"level": "warning"}})
        daemon.wait_until(lambda: "Reloaded the configuration" in daemon.log, "the valid file is applied")
        daemon.wait_until(lambda: bool(second.requests), "the second channel receives an incident")
        received = len(first.requests)
        later = len(second.requests)
        daemon.wait_until(lambda: len(second.requests) > later + 1, "the second channel receives more")
        assert len(first.requests) == received, "the former channel receives nothing more"

        (line,) = [line for line in daemon.log.splitlines() if "Reloaded" in line]
        applied = ["logging.level", "notify.channels.first", "notify.channels.second"]
        assert json.loads(line)["applied"] == applied
        assert json.loads(line)["scheduled"] == [f"streams.{STREAM}.window.size"]
        assert json.loads(line)["pending"] == []
        assert first.url not in daemon.log
        assert daemon.terminate() == 0
        after = daemon.log.partition("Reloaded")[2].splitlines()[1:]
        assert [each for each in after if '"level": "info"' in each] == []
