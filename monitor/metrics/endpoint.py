"""The HTTP endpoint of the daemon: `/metrics`, `/livez` and `/readyz`, without authentication.

A job renders the metrics at an interval, so that the cost of a scrape does not depend on the number of streams.
"""

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE

from config.errors import ConfigError
from config.metrics import MetricsSettings, split_address
from monitor.metrics.exposition import Exposition
from monitor.metrics.probes import ProbeResult

log = logging.getLogger(__name__)

_TEXT_TYPE = "text/plain; charset=utf-8"
_REQUEST_TIMEOUT_S = 5.0


class MetricsEndpoint:
    """Serves the newest exposition and the probes from `start` to `stop`.

    Args:
        settings: The address.
        live: Computes the liveness.
        ready: Computes the readiness.
    """

    def __init__(
        self, settings: MetricsSettings, *, live: Callable[[], ProbeResult], ready: Callable[[], ProbeResult]
    ) -> None:
        self._settings = settings
        self._live = live
        self._ready = ready
        self._exposition = Exposition(text=b"", open_metrics=b"# EOF\n")
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int | None:
        """Return the port that the endpoint listens on; None before `start`."""
        return None if self._server is None else int(self._server.server_address[1])

    def publish(self, exposition: Exposition) -> None:
        """Replace the exposition; may be called from any thread."""
        self._exposition = exposition

    def start(self) -> None:
        """Listen, and answer requests in threads of their own.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        host, port = split_address(self._settings.listen)
        server_class = _Ipv6Server if ":" in host else _Server
        try:
            self._server = server_class((host, port), self._make_handler())
        except OSError as error:
            raise ConfigError(f"metrics.listen: cannot listen on {self._settings.listen}: {error}") from error
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        log.info("Metrics and probes at http://%s:%d.", host, self.port, extra={"action": "metrics"})

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                status, content_type, body = endpoint.answer(self.path, self.headers.get("Accept", ""))
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                log.debug(format, *args)

        return Handler

    def answer(self, target: str, accept: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for a request."""
        parts = urlsplit(target)
        exposition = self._exposition
        match parts.path:
            case "/metrics" if "application/openmetrics-text" in accept:
                return 200, OPENMETRICS_TYPE, exposition.open_metrics
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, exposition.text
            case "/livez":
                return _probe_answer(self._live(), is_verbose=True)
            case "/readyz":
                is_verbose = "verbose" in parse_qs(parts.query, keep_blank_values=True)
                return _probe_answer(self._ready(), is_verbose=is_verbose)
            case _:
                return 404, _TEXT_TYPE, b"not found: /metrics, /livez and /readyz are served\n"


def _probe_answer(result: ProbeResult, *, is_verbose: bool) -> tuple[int, str, bytes]:
    lines = result.lines if is_verbose or not result.is_ok else ["ok"]
    return (200 if result.is_ok else 503), _TEXT_TYPE, ("\n".join(lines) + "\n").encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Ipv6Server(_Server):
    address_family = AF_INET6
