"""One POST, and never longer than its time: connecting, sending and a dripping answer are bounded together.

The client libraries bound each read, so that a server which sends a byte now and then holds them for ever.
"""

import base64
import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote_to_bytes, urlsplit

_MAX_RESPONSE_BYTES = 256 * 1024
_EXCERPT_BYTES = 2_000
_BODY_TIMEOUT_S = 1.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


class PostError(Exception):
    """No answer came; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostTarget:
    """Where a request goes; `authorization` comes from a user and a password in the address."""

    use_tls: bool
    host: str
    port: int
    authority: str
    path: str
    authorization: str | None

    @classmethod
    def from_url(cls, url: str) -> "PostTarget":
        """Return the target of an address that the configuration has checked."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        user_info, at, authority = parts.netloc.rpartition("@")
        return cls(
            use_tls=parts.scheme == "https",
            host=host,
            port=parts.port or _DEFAULT_PORTS[parts.scheme],
            authority=authority,
            path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            authorization=f"Basic {base64.b64encode(unquote_to_bytes(user_info)).decode()}" if at else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """What came back; `excerpt` is the beginning of the body, as far as it came soon."""

    status: int
    headers: Mapping[str, str]
    body_excerpt: str


def post(target: PostTarget, body: bytes, headers: Mapping[str, str], timeout_s: float) -> HttpResponse:
    """Send a request and return the answer; redirects are not followed.

    Looking up the host's name is the system's, which bounds it by itself.

    Raises:
        PostError: No answer came within the time, or none that is HTTP.
    """
    deadline_s = time.monotonic() + timeout_s
    place = f"{target.host}:{target.port}"
    try:
        with _connect(target, deadline_s) as sock:
            _send_request(sock, _build_request(target, body, headers), deadline_s)
            return _read_response(sock, deadline_s)
    except TimeoutError as error:
        raise PostError(f"{place} has not answered within {timeout_s:g} s") from error
    except socket.gaierror as error:
        raise PostError(f"the host {target.host} cannot be found: {error.strerror}") from error
    except ssl.SSLCertVerificationError as error:
        advice = "SSL_CERT_FILE may name another authority"
        raise PostError(f"the certificate of {place} is not accepted: {error.verify_message}; {advice}") from error
    except ssl.SSLError as error:
        raise PostError(f"TLS with {place} failed: {error.reason or error}") from error
    except http.client.HTTPException as error:
        raise PostError(f"the answer of {place} is not HTTP: {type(error).__name__}") from error
    except OSError as error:
        raise PostError(f"{place}: {error.strerror or error}") from error


def _remaining_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _connect(target: PostTarget, deadline_s: float) -> socket.socket:
    """Return a connection to the first address that answers; each gets its share of the time."""
    places = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(places):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_remaining_s(deadline_s) / (len(places) - number))
            sock.connect(address)
            sock.settimeout(_remaining_s(deadline_s))
            if not target.use_tls:
                return sock
            return ssl.create_default_context().wrap_socket(sock, server_hostname=target.host)
        except OSError:
            sock.close()
            if number == len(places) - 1:
                raise
    raise OSError("the host has no address")


def _build_request(target: PostTarget, body: bytes, headers: Mapping[str, str]) -> bytes:
    own = {"Host": target.authority, "Content-Length": str(len(body)), "Connection": "close"}
    if target.authorization is not None and "authorization" not in {name.lower() for name in headers}:
        own["Authorization"] = target.authorization
    lines = [f"POST {target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in (own | dict(headers)).items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _send_request(sock: socket.socket, request: bytes, deadline_s: float) -> None:
    rest = memoryview(request)
    while rest:
        sock.settimeout(_remaining_s(deadline_s))
        rest = rest[sock.send(rest[:65_536]) :]


def _read_response(sock: socket.socket, deadline_s: float) -> HttpResponse:
    incoming = _BoundedResponseReader(sock, deadline_s)
    # The class reads from whatever has `makefile`; ours bounds the whole answer and not each read.
    response = http.client.HTTPResponse(cast("socket.socket", incoming), method="POST")
    try:
        response.begin()
        # The status is the answer. What follows it is read for people, so that a slow body decides nothing.
        incoming.deadline_s = min(deadline_s, time.monotonic() + _BODY_TIMEOUT_S)
        try:
            text = response.read(_EXCERPT_BYTES)
        except (OSError, http.client.HTTPException):
            text = b""
        return HttpResponse(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body_excerpt=text.decode("utf-8", "replace"),
        )
    finally:
        response.close()


class _BoundedResponseReader(io.RawIOBase):
    """The bytes of an answer, until its time or its largest size is reached."""

    def __init__(self, sock: socket.socket, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._sock = sock
        self._rest = _MAX_RESPONSE_BYTES

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._sock.settimeout(_remaining_s(self.deadline_s))
        count = self._sock.recv_into(buffer)
        self._rest -= count
        if self._rest < 0:
            raise OSError("the answer is too long")
        return count
