"""Check of the Host header: a page of another site cannot reach the server under its own name (DNS rebinding)."""

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from config.metrics import split_address
from config.server import ServerSettings, is_loopback
from monitor.server.problems import problem_response

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not listened on


def allowed_hosts(server: ServerSettings, port: int) -> frozenset[str]:
    """Return the accepted values of the Host header, in lower case, of a server that listens on a port."""
    host = split_address(server.listen)[0]
    names = {f"[{host}]" if ":" in host else host} if host not in _ANY_ADDRESS else set()
    if is_loopback(host) or host in _ANY_ADDRESS:
        names.update(_LOOPBACK_NAMES)
    allowed = {f"{name}:{port}" for name in names}
    if port == 80:
        allowed |= names
    if server.url is not None:
        allowed |= _host_forms(urlsplit(server.url).netloc, urlsplit(server.url).scheme)
    for each in server.hosts:
        allowed |= {each, f"{each}:{port}"} if ":" not in each.rpartition("]")[2] else {each}
    return frozenset(each.lower() for each in allowed)


def _host_forms(netloc: str, scheme: str) -> set[str]:
    """Return a host with and without the port that the scheme implies."""
    default = ":443" if scheme == "https" else ":80"
    has_port = ":" in netloc.rpartition("]")[2]
    return {netloc, netloc.removesuffix(default)} if has_port else {netloc, netloc + default}


class HostCheck:
    """ASGI middleware that answers requests for the accepted hosts only.

    Args:
        app: The application.
        hosts: The accepted values of the Host header, in lower case.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 421."""
        if scope["type"] == "http":
            found = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
            if len(found) != 1 or found[0] not in self._hosts:
                answer = problem_response(HTTPConnection(scope), 421, _REFUSED)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


_REFUSED = (
    "this server does not answer under the host name of the request; add the name to server.hosts, or use the address "
    "in server.listen or server.url"
)
