"""One HTTP POST with a timeout for the whole exchange: name lookup, connection, request and response.

The timeout of urllib3 applies to each read, so a server that sends single bytes could hold a request indefinitely.
Each request therefore runs in a separate thread. At the timeout its sockets are shut down and the caller continues.
"""

import base64
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ProxyError

from monitor.notify.delivery import FailureReason

_EXCERPT_BYTES = 2_000
_BODY_TIMEOUT_S = 1.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


class PostError(Exception):
    """The request got no answer; the message holds no secret.

    Attributes:
        reason: `timeout`, `connection` or `tls`.
    """

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PostTarget:
    """The address of a request, without the credentials that the configured URL may contain.

    `authorization` is the Basic credentials from the URL's user and password, or None.
    """

    scheme: str
    host: str
    port: int
    authority: str
    path: str
    authorization: str | None

    @classmethod
    def from_url(cls, url: str) -> "PostTarget":
        """Return the target of a URL that the configuration has validated."""
        parts = urlsplit(url)
        user_info, at, authority = parts.netloc.rpartition("@")
        return cls(
            scheme=parts.scheme,
            host=parts.hostname or "",
            port=parts.port or _DEFAULT_PORTS[parts.scheme],
            authority=authority,
            path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            authorization=f"Basic {base64.b64encode(unquote_to_bytes(user_info)).decode()}" if at else None,
        )

    @property
    def place(self) -> str:
        """Return the host and the port, for messages."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Return the URL without credentials."""
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """The answer to a request.

    `headers` are by lower-case name. `body_excerpt` is the beginning of the body, as far as it arrived within a second.
    """

    status: int
    headers: Mapping[str, str]
    body_excerpt: str


def post(
    target: PostTarget,
    body: bytes,
    headers: Mapping[str, str],
    timeout_s: float,
    *,
    max_body_bytes: int | None = None,
) -> HttpResponse:
    """Send a request and return the answer; redirects are not followed.

    The request goes through the proxy of HTTP_PROXY or HTTPS_PROXY, unless NO_PROXY names the host or the host is this
    machine. The certificate of an https address is verified against the system's authorities, or those of
    SSL_CERT_FILE.

    Args:
        target: The address.
        body: The body of the request.
        headers: Its headers.
        timeout_s: Bound of the whole exchange.
        max_body_bytes: Wait for the body of the answer, up to this length, until `timeout_s`. None: an excerpt of the
            body, as far as it arrives within a second, is enough.

    Raises:
        PostError: No answer came within `timeout_s`, or none that is HTTP.
    """
    deadline_s = time.monotonic() + timeout_s
    proxy = find_proxy(target)
    exchange = _Exchange(target, proxy, body, headers, timeout_s, max_body_bytes or _EXCERPT_BYTES)
    # A daemon thread: a name server that does not answer must not delay the end of the process.
    threading.Thread(target=exchange.run, name=f"post-{target.host}", daemon=True).start()
    try:
        response = exchange.response.result(timeout_s)
        return HttpResponse(
            status=response.status,
            headers={name.lower(): value for name, value in response.headers.items()},
            body_excerpt=exchange.wait_for_excerpt(_find_body_wait(deadline_s, max_body_bytes)),
        )
    except TimeoutError as error:
        raise PostError(FailureReason.TIMEOUT, f"{target.place} has not answered within {timeout_s:g} s") from error
    except (HTTPError, http.client.HTTPException, OSError) as error:
        raise PostError(*_explain_failure(error, target, proxy, timeout_s)) from error
    finally:
        exchange.abort()


def _find_body_wait(deadline_s: float, max_body_bytes: int | None) -> float:
    left_s = max(0.0, deadline_s - time.monotonic())
    return left_s if max_body_bytes is not None else min(left_s, _BODY_TIMEOUT_S)


def find_proxy(target: PostTarget) -> str | None:
    """Return the URL of the proxy that the environment names for a target, or None for a direct connection."""
    if _is_loopback(target.host) or urllib.request.proxy_bypass(target.place):
        return None
    proxy = urllib.request.getproxies().get(target.scheme)
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Exchange:
    """One request and its answer, run in a thread; `abort` ends it from another thread.

    `response` is set when the status and the headers have arrived. The status decides the outcome; the body is read
    only for error messages, so a slow body does not change the outcome.
    """

    def __init__(
        self,
        target: PostTarget,
        proxy: str | None,
        body: bytes,
        headers: Mapping[str, str],
        timeout_s: float,
        max_body_bytes: int,
    ) -> None:
        self.response: Future[urllib3.BaseHTTPResponse] = Future()
        self._excerpt: Future[bytes] = Future()
        self._target = target
        self._proxy = proxy
        self._body = body
        self._headers = headers
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._aborted = False

    def run(self) -> None:
        """Send the request, then read the beginning of the body."""
        try:
            manager = _build_manager(self._target.scheme, self._proxy, self)
            response = manager.request(
                "POST",
                self._target.url,
                body=self._body,
                headers=self._merge_headers(),
                timeout=self._timeout_s,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except Exception as error:  # noqa: BLE001 - raised in the waiting thread
            self.response.set_exception(error)
            return
        self.response.set_result(response)
        try:
            self._excerpt.set_result(response.read(self._max_body_bytes, decode_content=False))
        except Exception as error:  # noqa: BLE001 - raised in the waiting thread
            self._excerpt.set_exception(error)
        finally:
            response.close()
            manager.clear()

    def _merge_headers(self) -> dict[str, str]:
        own = {"Connection": "close"}
        if self._target.authorization is not None and "authorization" not in {name.lower() for name in self._headers}:
            own["Authorization"] = self._target.authorization
        return own | dict(self._headers)

    def wait_for_excerpt(self, timeout_s: float) -> str:
        """Return the beginning of the body; empty if it does not arrive within the time."""
        try:
            return self._excerpt.result(timeout_s).decode("utf-8", "replace")
        except (HTTPError, http.client.HTTPException, OSError):
            return ""

    def watch(self, sock: socket.socket) -> socket.socket:
        """Register a connection for `abort`, which shuts it down; return the socket.

        The duplicate stays valid when TLS takes the socket over.
        """
        with self._lock:
            duplicate = sock.dup()
            self._sockets.append(duplicate)
            if self._aborted:
                self._close_sockets()
        return sock

    def abort(self) -> None:
        """Shut down every connection of the request, and those that it opens later."""
        with self._lock:
            self._aborted = True
            self._close_sockets()

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # The other side has closed the connection already.
            finally:
                sock.close()
        self._sockets.clear()


def _build_manager(scheme: str, proxy: str | None, exchange: _Exchange) -> urllib3.PoolManager:
    """Return a pool manager; the exchange can shut its connections down."""

    class WatchedHTTPConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return exchange.watch(super()._new_conn())

    class WatchedHTTPSConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return exchange.watch(super()._new_conn())

    class HTTPPool(urllib3.HTTPConnectionPool):
        ConnectionCls = WatchedHTTPConnection

    class HTTPSPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = WatchedHTTPSConnection

    tls = ssl.create_default_context() if "https" in {scheme, urlsplit(proxy or "").scheme} else None
    if proxy is None:
        manager = urllib3.PoolManager(ssl_context=tls)
    else:
        manager = urllib3.ProxyManager(
            proxy, proxy_headers=_build_proxy_headers(proxy), ssl_context=tls, proxy_ssl_context=tls
        )
    manager.pool_classes_by_scheme = {"http": HTTPPool, "https": HTTPSPool}
    return manager


def _build_proxy_headers(proxy: str) -> dict[str, str]:
    user_info, at, _ = urlsplit(proxy).netloc.rpartition("@")
    if not at:
        return {}
    return {"Proxy-Authorization": f"Basic {base64.b64encode(unquote_to_bytes(user_info)).decode()}"}


def _explain_failure(
    error: Exception, target: PostTarget, proxy: str | None, timeout_s: float
) -> tuple[FailureReason, str]:
    """Return why a request failed, without the path and the credentials of its address."""
    host, place = target.host, target.place
    if isinstance(error, ProxyError) and proxy is not None:
        parts = urlsplit(proxy)
        host = parts.hostname or ""
        place = f"the proxy {host}" if parts.port is None else f"the proxy {host}:{parts.port}"
    match _root_cause(error):
        case TimeoutError():
            return FailureReason.TIMEOUT, f"{place} has not answered within {timeout_s:g} s"
        case socket.gaierror() as cause:
            text = f"the host {host} cannot be found: {cause.strerror}"
        case ssl.SSLCertVerificationError() as cause:
            advice = "SSL_CERT_FILE may name another authority"
            return FailureReason.TLS, f"the certificate of {place} is not accepted: {cause.verify_message}; {advice}"
        case ssl.SSLError() as cause:
            return FailureReason.TLS, f"TLS with {place} failed: {cause.reason or cause}"
        case http.client.HTTPException() as cause:
            text = f"the answer of {place} is not HTTP: {type(cause).__name__}"
        case OSError() as cause:
            text = f"{place}: {cause.strerror or cause}"
        case cause:
            # The text of other errors may quote the address, which can be a secret.
            text = f"{place}: {type(cause).__name__}"
    return FailureReason.CONNECTION, text


def _root_cause(error: BaseException) -> BaseException:
    """Return the error of the system or of `http.client` that urllib3 has wrapped."""
    while True:
        wrapped = next((each for each in error.args if isinstance(each, BaseException)), None)
        cause = error.__cause__ or wrapped
        if cause is None:
            return error
        error = cause
