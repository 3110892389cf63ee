"""`outrider run`: the daemon."""

import click

from monitor.cli.logs import set_up_logging
from monitor.cli.settings import settings_of, stream_of


@click.command(name="run")
@click.argument("streams", nargs=-1)
@click.pass_context
def command(ctx: click.Context, streams: tuple[str, ...]) -> None:
    """Run the daemon for STREAMS (default: all); ends when every source ends, or on SIGTERM."""
    settings = settings_of(ctx)
    names = [stream_of(settings, name) for name in streams]
    set_up_logging(debug=ctx.obj["debug"])
    from monitor.daemon import Daemon, stop_on_signals

    daemon = Daemon(settings, names or None)
    with stop_on_signals(daemon.stop):
        daemon.run()
