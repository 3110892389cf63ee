"""A daemon on a synthetic stream with bursts and a drift, and the server of its page, in the process of the tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from config.server import ServerSettings
from config.settings import Settings

STREAM = "payments"
_HOURS = timedelta(hours=36, minutes=42)
"""The stream ends within a burst, which begins every 4 h, so that a spike stays open beside the drift."""
_RATE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningDemo:
    """A daemon whose stream runs and ends, and the address of its page without a slash at the end."""

    settings: Settings
    address: str
    daemon: threading.Thread


def demo_settings(url: str, seconds: float) -> Settings:
    """Return the settings of the stream: a day and a half of event time in a number of seconds."""
    start = datetime.now(UTC).replace(second=0, microsecond=0) - _HOURS
    source = {
        "type": "synthetic",
        "seed": 1,
        "rate": _RATE,
        "events": int(_RATE * _HOURS.total_seconds()),
        "speed": _HOURS.total_seconds() / seconds,
        "start": start.isoformat(),
        "first_burst": "4h30m",
        "burst_every": "4h",
        "burst_length": "12m",
        "burst_share": 0.3,
        "drift_after": "33h",
        "drift_shift": 0.5,
    }
    return Settings.model_validate(
        {
            "database": {"url": url},
            "streams": {
                STREAM: {
                    "source": source,
                    "event": {"time": {"field": "ts"}, "id": "id"},
                    "model": {"n_components": 3, "warm_up": 5_000},
                    "window": {"size": "6m", "idle_timeout": "1s"},
                    "threshold": {"refresh": "30m", "look_back": "6d", "adopt_after": "7d"},
                    "alerts": {"drift": {"horizons": ["30m"]}},
                }
            },
        }
    )


@contextmanager
def run_demo(url: str, seconds: float) -> Iterator[RunningDemo]:
    """Run the daemon and the server of the page; both are stopped after the block."""
    # Imported here: the Kafka client warns at its import, which conftest.py cannot ignore while it is read itself.
    from monitor.daemon.daemon import Daemon
    from monitor.server.context import ServerContext
    from monitor.server.serve import PageServer

    settings = demo_settings(url, seconds)
    daemon = Daemon(settings)
    thread = threading.Thread(target=daemon.run, name="daemon")
    thread.start()
    server = PageServer(ServerContext(settings, ServerSettings(listen="127.0.0.1:0")))
    server.start()
    try:
        yield RunningDemo(settings=settings, address=server.address.rstrip("/"), daemon=thread)
    finally:
        daemon.stop()
        thread.join(60)
        server.stop()
