"""`outrider run`: run the daemon."""

import logging
import threading
from collections.abc import Sequence

import click

from config.masking import mask_url
from config.settings import LoggingSettings, Settings
from monitor.cli.output.logs import set_up_logging
from monitor.cli.run_status_line import show_status_line
from monitor.cli.server_beside import serve_beside
from monitor.cli.settings import load_settings, require_stream
from monitor.daemon.signals import stop_on_signals

log = logging.getLogger(__name__)


@click.command(name="run")
@click.argument("streams", nargs=-1)
@click.option(
    "--upgrade", is_flag=True, help="Upgrade the database also while processes of an earlier version run on it."
)
@click.option("--fail-fast", is_flag=True, help="End when one stream fails, instead of starting it again.")
@click.pass_context
def command(ctx: click.Context, streams: tuple[str, ...], *, upgrade: bool, fail_fast: bool) -> None:
    """Run the daemon for STREAMS (default: all) until every source ends or SIGTERM.

    A stream that fails starts again after a back-off, and the other streams go on. The command ends with an error when
    no stream can go on.

    SIGHUP reloads the notification channels and routes, the retention and the log from the configuration file.
    """
    settings = load_settings(ctx)
    names = [require_stream(settings, name) for name in streams] or list(settings.streams)
    with show_status_line(settings, names):
        # After the status line redirects standard error, so that the log scrolls above it.
        _set_up_logging(ctx, settings.logging)
        _log_start(settings, names)
        stop, reload = threading.Event(), threading.Event()
        # Before torch is loaded, so that a signal during the import is handled.
        with stop_on_signals(stop.set, reload=reload.set), serve_beside(settings):
            from monitor.daemon.daemon import Daemon

            Daemon(
                settings,
                names,
                stop=stop,
                reload=reload,
                load=lambda: load_settings(ctx),
                beside_older=upgrade,
                set_up_logging=lambda changed: _set_up_logging(ctx, changed),
                fail_fast=fail_fast,
            ).run()
        log.info("Stopped; `outrider status` shows the positions.", extra={"action": "end"})


def _set_up_logging(ctx: click.Context, settings: LoggingSettings) -> None:
    set_up_logging("debug" if ctx.obj["debug"] else settings.level, settings.format)


def _log_start(settings: Settings, names: Sequence[str]) -> None:
    """Log the start before torch is loaded, which takes seconds."""
    log.info(
        "Starting %s; results go to %s. Ctrl-C or SIGTERM stops it; the next run resumes from there.",
        f"stream {names[0]}" if len(names) == 1 else f"{len(names)} streams",
        mask_url(settings.database.url),
        extra={"action": "start", "streams": names},
    )
