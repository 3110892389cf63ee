"""`outrider run`: the daemon."""

import logging
import threading
from collections.abc import Sequence

import click

from config.masking import mask_url
from config.settings import Settings
from monitor.cli.output.logs import set_up_logging
from monitor.cli.run_status_line import show_status_line
from monitor.cli.settings import load_settings, require_stream
from monitor.daemon.signals import stop_on_signals

log = logging.getLogger(__name__)


@click.command(name="run")
@click.argument("streams", nargs=-1)
@click.pass_context
def command(ctx: click.Context, streams: tuple[str, ...]) -> None:
    """Run the daemon for STREAMS (default: all); ends when every source ends, or on SIGTERM."""
    settings = load_settings(ctx)
    names = [require_stream(settings, name) for name in streams] or list(settings.streams)
    with show_status_line(settings, names):
        set_up_logging(debug=ctx.obj["debug"])  # after the line has taken standard error, so that the log goes above it
        _log_start(settings, names)
        stop = threading.Event()
        with stop_on_signals(stop.set):  # before torch is loaded: a signal that comes meanwhile counts
            from monitor.daemon.daemon import Daemon

            Daemon(settings, names, stop=stop).run()
        log.info("Ended; `outrider status` says how far it came.", extra={"action": "end"})


def _log_start(settings: Settings, names: Sequence[str]) -> None:
    """Say what begins, before torch is loaded: that takes seconds."""
    log.info(
        "Starting %s; results go to %s. Ctrl-C or SIGTERM ends it, and the next run goes on from there.",
        f"stream {names[0]}" if len(names) == 1 else f"{len(names)} streams",
        mask_url(settings.database.url),
        extra={"action": "start", "streams": names},
    )
