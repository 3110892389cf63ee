"""The server of the API and the page beside a daemon in the same process."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from config.errors import ConfigError
from config.server import ServerSettings
from config.settings import Settings

if TYPE_CHECKING:
    from monitor.server.serve import PageServer

log = logging.getLogger(__name__)

_RETRY_S = 10.0


def load_page_server(settings: Settings, server: ServerSettings) -> "PageServer":
    """Return the server; its packages are imported here.

    Raises:
        ConfigError: The packages of the extra `page` are not installed.
    """
    try:
        from monitor.server.context import ServerContext
        from monitor.server.serve import PageServer
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in {"config", "storage", "monitor"}:
            raise
        raise ConfigError(
            f"the server of the page needs {error.name}; install it with: pip install 'outrider[page]'"
        ) from None
    return PageServer(ServerContext(settings, server))


@contextmanager
def serve_beside(settings: Settings) -> Iterator[None]:
    """Serve the API and the page during the block, if the settings have a server.

    An address that cannot be listened on is an error in the log and is tried again: the daemon goes on without the
    page.

    Raises:
        ConfigError: The packages of the extra `page` are not installed.
    """
    if settings.server is None:
        yield
        return
    server = load_page_server(settings, settings.server)
    stop = threading.Event()
    starter = threading.Thread(target=_start, args=(server, stop), name="server-start", daemon=True)
    starter.start()
    try:
        yield
    finally:
        stop.set()
        starter.join()
        server.stop()


def _start(server: "PageServer", stop: threading.Event) -> None:
    told = ""
    while not stop.is_set():
        try:
            server.start()
        except ConfigError as error:
            if str(error) != told:
                log.error("%s. The daemon goes on without the page.", error, extra={"action": "server"})
            told = str(error)
            stop.wait(_RETRY_S)
        else:
            return
