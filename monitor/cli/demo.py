"""`outrider demo`: run the daemon on a synthetic stream with planted bursts and a drift, and compare the results."""

import logging
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from config.masking import mask_url
from monitor.cli.settings import refuse_shadowed_packages

if TYPE_CHECKING:
    from config.settings import Settings
    from monitor.daemon.daemon import Daemon
    from storage.history import History

_EVENTS = 432_000
_EVENT_HOURS = 36  # a drift test needs a baseline of a whole day
_REFRESH_S = 0.5
_PLAIN_REFRESH_S = 5.0
_LISTEN = "127.0.0.1:8080"
_ANY_PORT = "127.0.0.1:0"
"""For a demo beside a process that has the usual port."""


@click.command(name="demo")
@click.option("--seconds", default=40.0, show_default=True, type=click.FloatRange(min=5), help="Duration of the demo.")
@click.option("--database", "url", help="URL of the database (default: a new SQLite file in a temporary folder).")
@click.option("--seed", default=1, show_default=True, help="Seed of the synthetic events.")
@click.pass_context
def command(ctx: click.Context, seconds: float, url: str | None, seed: int) -> None:
    """Run the daemon on a synthetic stream: a day and a half of events in about a minute."""
    refuse_shadowed_packages()
    url = url or f"sqlite:///{Path(tempfile.mkdtemp(prefix='outrider-demo-')) / 'demo.db'}"
    name = f"demo_{datetime.now(UTC):%Y%m%d%H%M%S}"
    settings = build_demo_settings(name, url, seconds, seed)
    logging.getLogger().setLevel(logging.DEBUG if ctx.obj["debug"] else logging.CRITICAL)
    click.echo(f"A day and a half of synthetic events in about {seconds:.0f} s; stored in {mask_url(url)}")
    with _serve_page(settings):
        _run_demo(settings, name)


@contextmanager
def _serve_page(settings: "Settings") -> Iterator[None]:
    """Serve the page of the demo during the block and print its address, where the page is installed."""
    from config.errors import ConfigError
    from config.server import ServerSettings
    from monitor.cli.server_beside import load_page_server

    for listen in (_LISTEN, _ANY_PORT):
        try:
            server = load_page_server(settings, ServerSettings(listen=listen))
            server.start()
        except ConfigError as error:
            reason = str(error)
        else:
            click.echo(f"Its page is at {server.address} while it runs.")
            try:
                yield
            finally:
                server.stop()
            return
    click.echo(f"Without a page: {reason}")
    yield


def build_demo_settings(name: str, url: str, seconds: float, seed: int) -> "Settings":
    """Build the settings of the demo from the keys of a configuration file."""
    from config.settings import Settings

    hours = timedelta(hours=_EVENT_HOURS)
    start = datetime.now(UTC).replace(second=0, microsecond=0) - hours - timedelta(minutes=30)
    return Settings.model_validate(
        {
            "database": {"url": url},
            "streams": {
                name: {
                    "source": {
                        "type": "synthetic",
                        "seed": seed,
                        "rate": _EVENTS / hours.total_seconds(),
                        "events": _EVENTS,
                        "speed": hours.total_seconds() / seconds,
                        "start": start.isoformat(),
                        "first_burst": "4h30m",
                        "burst_every": "4h",
                        "burst_length": "12m",
                        "burst_share": 0.1,
                        "drift_after": "34h",
                        "drift_shift": 0.5,
                    },
                    "event": {"time": {"field": "ts"}, "id": "id"},
                    "model": {"n_components": 3, "warm_up": 10_000},
                    "window": {"size": "6m", "idle_timeout": "1s"},
                    "threshold": {"refresh": "30m", "look_back": "6d"},
                    "alerts": {"drift": {"horizons": ["30m"]}},
                }
            },
        }
    )


def _run_demo(settings: "Settings", name: str) -> None:
    """Run the daemon in a thread beside the view; Ctrl-C stops both and prints the summary so far."""
    from monitor.cli.demo_summary import format_summary, summarise_demo
    from monitor.daemon.daemon import Daemon
    from monitor.daemon.signals import stop_on_signals

    daemon = Daemon(settings)
    failure: list[BaseException] = []
    thread = threading.Thread(target=lambda: _run_daemon(daemon, failure), name="daemon")
    with stop_on_signals(daemon.stop):
        thread.start()
        _show_progress(settings, name, thread)
        thread.join()
    if failure:
        raise failure[0]
    for line in format_summary(summarise_demo(settings, name), settings.database.url, name):
        click.echo(line)


def _run_daemon(daemon: "Daemon", failure: list[BaseException]) -> None:
    try:
        daemon.run()
    except Exception as error:  # noqa: BLE001 - raised again in the main thread
        failure.append(error)


def _show_progress(settings: "Settings", name: str, daemon: threading.Thread) -> None:
    """Show the state in the database until the daemon ends."""
    history = _wait_for_history(settings, name, daemon)
    if history is None:
        return
    with history:
        if sys.stdout.isatty():
            _show_live(settings, history, name, daemon)
        else:
            _show_plain(history, name, daemon)


def _wait_for_history(settings: "Settings", name: str, daemon: threading.Thread) -> "History | None":
    """Open the history once the daemon has created the tables and the stream; None if it ended earlier."""
    from config.errors import OutriderError
    from storage.history import History

    while daemon.is_alive():
        try:
            history = History(settings.database.url)
            if name in history.streams():
                return history
            history.close()
        except OutriderError:
            pass
        daemon.join(_REFRESH_S)
    return None


def _show_live(settings: "Settings", history: "History", name: str, daemon: threading.Thread) -> None:
    from rich.live import Live

    from monitor.cli.demo_screen import CommitReader, read_snapshot, render_screen

    with Live(refresh_per_second=4, transient=False) as live, CommitReader(settings, name) as commits:
        started_s = time.monotonic()
        while True:
            live.update(
                render_screen(read_snapshot(history, name), time.monotonic() - started_s, *commits.read_newest())
            )
            if not daemon.is_alive():
                return
            daemon.join(_REFRESH_S)


def _show_plain(history: "History", name: str, daemon: threading.Thread) -> None:
    from monitor.cli.demo_screen import format_plain_line, read_snapshot

    started_s = time.monotonic()
    shown_ids: set[int] = set()
    while True:
        snapshot = read_snapshot(history, name)
        click.echo(format_plain_line(snapshot, time.monotonic() - started_s))
        for incident in [each for each in snapshot.incidents if each.id not in shown_ids]:
            shown_ids.add(incident.id)
            click.echo(f"  {incident.kind} {incident.status}: {incident.summary}")
        if not daemon.is_alive():
            return
        daemon.join(_PLAIN_REFRESH_S)
