"""A receiver of webhooks: a real HTTP server that records requests and answers with a scripted reaction."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """A received request; `headers` are by lower-case name."""

    line: str
    headers: Mapping[str, str]
    body: bytes
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RespondReaction:
    """Answer at once."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DripReaction:
    """Send `head` at once, then one byte every `every_s`, without end."""

    head: bytes = b""
    every_s: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class HangReaction:
    """Send no answer until the receiver is closed."""


Reaction = RespondReaction | DripReaction | HangReaction


class WebhookReceiver:
    """A receiver on the loopback, on a free port unless one is given.

    `react` returns the reaction to a request, and may be replaced at any time.
    """

    def __init__(self, *, port: int = 0, certificate: Path | None = None) -> None:
        self.react: Callable[[ReceivedRequest], Reaction] = lambda _: RespondReaction()
        self.requests: list[ReceivedRequest] = []
        self._closing = threading.Event()
        self._certificate = certificate
        self._server: ThreadingHTTPServer | None = None
        self._scheme = "http" if certificate is None else "https"
        self.port = port
        self._start()

    @property
    def url(self) -> str:
        """Return the URL to post to."""
        return f"{self._scheme}://127.0.0.1:{self.port}/hook?team=ops"

    @property
    def idempotency_keys(self) -> list[str]:
        """Return the idempotency keys in the order of arrival."""
        return [request.headers["idempotency-key"] for request in self.requests]

    def _start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = ReceivedRequest(line=self.requestline, headers=headers, body=body, at_s=time.monotonic())
                receiver.requests.append(request)
                self.close_connection = True
                receiver._react(self, receiver.react(request))

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: Any) -> None:
                pass  # the client may close the connection at any time

        self._server = Server(("127.0.0.1", self.port), Handler)
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def _react(self, handler: BaseHTTPRequestHandler, reaction: Reaction) -> None:
        match reaction:
            case RespondReaction():
                handler.send_response(reaction.status)
                for name, value in reaction.headers.items():
                    handler.send_header(name, value)
                handler.send_header("Content-Length", str(len(reaction.body)))
                handler.end_headers()
                handler.wfile.write(reaction.body)
            case DripReaction():
                handler.wfile.write(reaction.head)
                while not self._closing.wait(reaction.every_s):
                    handler.wfile.write(b"x")
            case HangReaction():
                self._closing.wait()

    def close(self) -> None:
        """Stop the server and end all hanging requests."""
        self._closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def refusing_port() -> Iterator[int]:
    """Yield a port that refuses connections."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
