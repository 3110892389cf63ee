"""`outrider serve`: the API and the page beside the daemon, from SQL."""

import threading

import click

from config.errors import ConfigError
from config.server import ServerSettings
from config.settings import Settings
from monitor.cli.output.logs import set_up_logging
from monitor.cli.server_beside import load_page_server
from monitor.cli.settings import load_settings
from monitor.daemon.signals import stop_on_signals

_POLL_S = 0.5


@click.command(name="serve")
@click.option("--listen", help="Address to listen on (default: server.listen, or 127.0.0.1:8080).")
@click.pass_context
def command(ctx: click.Context, listen: str | None) -> None:
    """Serve the API and the page from the database until SIGTERM, with or without a daemon."""
    settings = load_settings(ctx)
    set_up_logging("debug" if ctx.obj["debug"] else settings.logging.level, settings.logging.format)
    server = load_page_server(settings, resolve_server(settings, listen))
    stop = threading.Event()
    with stop_on_signals(stop.set):
        server.start()
        click.echo(f"Outrider serves the page at {server.address} (API: {server.address}api/v1/); Ctrl-C stops it.")
        while not stop.wait(_POLL_S) and server.is_running:
            pass
        server.stop()


def resolve_server(settings: Settings, listen: str | None) -> ServerSettings:
    """Return the settings of the server with another address.

    Raises:
        ConfigError: The address is not valid, or needs tokens.
    """
    from pydantic import ValidationError

    own = settings.server or ServerSettings()
    if listen is None:
        return own
    try:
        return ServerSettings.model_validate(own.model_dump() | {"listen": listen})
    except ValidationError as error:
        reasons = "; ".join(str(each["msg"]).removeprefix("Value error, ") for each in error.errors(include_url=False))
        raise ConfigError(f"--listen {listen}: {reasons}") from None
