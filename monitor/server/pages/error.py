"""Errors as pages, for people with a browser. No database is read, so that it also works when that cannot be."""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from monitor.server.access.headers import SECURITY_HEADERS
from monitor.server.pages.render import PageFrame, render_page

_TITLES = {
    403: "This is not allowed",
    404: "There is no such page",
    405: "This address cannot be used in this way",
    409: "This is not possible now",
    413: "The form is too large",
    422: "The address or the form is not valid",
    500: "The server could not answer",
    503: "The page cannot be shown now",
}


def render_error(
    connection: HTTPConnection, status: int, detail: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the page of an error with its reason and links to go on.

    Args:
        connection: The request.
        status: The HTTP status.
        detail: The problem, its place and a remedy.
        headers: Additional headers of the answer.
    """
    may_repeat = status >= 500 and connection.scope["method"] in {"GET", "HEAD"}
    page = render_page(
        "error.html",
        PageFrame(),
        view="error",
        title=_TITLES.get(status, HTTPStatus(status).phrase.capitalize()),
        status=status,
        code=status,
        reason=f"{detail[:1].upper()}{detail[1:].rstrip('.')}.",
        back=_find_page_before(connection),
        again=_path_of(*_address(connection)) if may_repeat else None,
    )
    # An unexpected error is answered outside of the middleware that adds these.
    page.headers.update(SECURITY_HEADERS)
    page.headers.update(headers or {})
    return page


def _find_page_before(connection: HTTPConnection) -> str | None:
    """Return the page of this server that led to the request; None without one, or if it is the failed page itself."""
    try:
        before = urlsplit(connection.headers.get("referer", ""))
    except ValueError:
        return None
    if before.netloc != connection.headers.get("host") or (before.path, before.query) == _address(connection):
        return None
    return _path_of(before.path, before.query)


def _address(connection: HTTPConnection) -> tuple[str, str]:
    """Return the path and the query of a request, both encoded."""
    return quote(connection.scope["path"]), connection.scope["query_string"].decode("latin-1")


def _path_of(path: str, query: str) -> str:
    """Return the address of a page on this server; two slashes at its begin would name another host."""
    return "/" + path.lstrip("/\\") + (f"?{query}" if query else "")
