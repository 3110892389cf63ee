"""Refusal of writes that a page of another site sends with the rights of the person in the browser (CSRF)."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from monitor.server.problems import problem_response

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})
_LINK_PREFIX = "/links/"
"""Pages of signed links: the address is the right to act, which no other site knows, and no cookie is read. Under their
`Referrer-Policy: no-referrer` a browser names no origin."""

_SIMPLE_TYPES = ("multipart/form-data", "text/plain")
"""Content types that a page of another site may send without asking first, and that no form of the page has."""


class OriginCheck:
    """ASGI middleware that passes writes on only from pages of this server, and from clients that are no browser.

    A request with a header Authorization carries no right of a browser and is passed on.

    Args:
        app: The application.
        hosts: The names of this server, as in the Host header, in lower case.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403 or 415."""
        is_link = scope.get("path", "").startswith(_LINK_PREFIX)
        if scope["type"] == "http" and scope["method"] not in _SAFE_METHODS and not is_link:
            headers = Headers(scope=scope)
            if "authorization" not in headers and not self._is_own(headers):
                await problem_response(HTTPConnection(scope), 403, _CROSS_SITE)(scope, receive, send)
                return
            if headers.get("content-type", "").lower().startswith(_SIMPLE_TYPES):
                await problem_response(HTTPConnection(scope), 415, _WRONG_TYPE)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_own(self, headers: Headers) -> bool:
        site = headers.get("sec-fetch-site")
        if site is not None:
            # The browser sets it, also where a page hides its origin.
            return site in _OWN_SITES
        return all(self._is_own_origin(origin) for origin in headers.getlist("origin"))

    def _is_own_origin(self, origin: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in {"http", "https"} and parts.netloc.lower() in self._hosts


_CROSS_SITE = "the request comes from a page of another site; open the page of this server"
_WRONG_TYPE = "the content type must be application/json (or that of a form, on the page)"
