"""The server in a thread: of `outrider serve`, or of the daemon."""

import logging
import socket
import threading

import uvicorn

from config.errors import ConfigError
from config.metrics import split_address
from monitor.server.app import create_app
from monitor.server.context import ServerContext
from monitor.server.pages.rehearsal import rehearse

log = logging.getLogger(__name__)

_DRAIN_TIMEOUT_S = 3
_STOP_TIMEOUT_S = 8.0
_REHEARSAL_LIMIT_S = 15.0
_KEEP_ALIVE_S = 15
_BACKLOG = 128
_MAX_CONNECTIONS = 256
"""Connections beyond it are answered 503."""


class PageServer:
    """Serves the API and the page from `start` to `stop`.

    Args:
        context: The shared values of all requests; closed by `stop`.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.address = ""
        """The address in a browser, after `start`."""

    @property
    def is_running(self) -> bool:
        """Return whether the thread of the server runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen, rehearse the views, and answer requests in a thread.

        Requests that arrive during the rehearsal wait for its end, but not for a database that hangs.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        host, port = split_address(self._context.server.listen)
        listener = _listen(host, port)
        rehearsal = threading.Thread(target=rehearse, args=(self._context,), name="server-rehearsal", daemon=True)
        rehearsal.start()
        rehearsal.join(_REHEARSAL_LIMIT_S)
        port = int(listener.getsockname()[1])
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        config = uvicorn.Config(
            create_app(self._context, port=port),
            log_config=None,
            access_log=False,
            # Only `server.auth_proxy` trusts headers of a proxy.
            proxy_headers=False,
            server_header=False,
            lifespan="off",
            ws="none",
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_DRAIN_TIMEOUT_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="server", daemon=True)
        self._thread.start()
        log.info("API and page at %s.", self.address, extra={"action": "server"})

    def stop(self) -> None:
        """End live connections, wait for the requests in progress, and close the database."""
        self._context.stopping.set()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_TIMEOUT_S)
        self._context.close()


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"server.listen: cannot listen on {host}:{port}: {error.strerror or error}; stop the other process, or "
            "choose another port"
        ) from error
    return listener
