"""ETags: answers that have not changed are not sent again, and verbs name the basis that the person has seen."""

import hashlib
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from monitor.server.problems import ApiError
from storage.control.verbs import Basis

_BASIS = re.compile(r'^(?:W/)?"(?P<tick>-|[0-9]{1,18})\.(?P<revision>[0-9]{1,18})"$')
_ANY = "*"


class CachedRoute(APIRoute):
    """A route whose answers have an ETag of their content: 304 if the client has them already."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route."""
        handle = super().get_route_handler()

        async def handle_with_etag(request: Request) -> Response:
            answer = await handle(request)
            body = getattr(answer, "body", None)
            if request.method != "GET" or answer.status_code != 200 or not isinstance(body, bytes):
                return answer
            etag = answer.headers.setdefault("ETag", f'W/"{hashlib.sha256(body).hexdigest()[:24]}"')
            answer.headers["Cache-Control"] = "private, no-cache"
            if _matches(request.headers.get("if-none-match"), etag):
                headers = {name: answer.headers[name] for name in ("ETag", "Cache-Control")}
                return Response(status_code=304, headers=headers)
            return answer

        return handle_with_etag


def _matches(header: str | None, etag: str) -> bool:
    """Return whether a header If-None-Match names an ETag, by weak comparison."""
    if header is None:
        return False
    known = [each.strip().removeprefix("W/") for each in header.split(",")]
    return header.strip() == _ANY or etag.removeprefix("W/") in known


def basis_etag(basis: Basis) -> str:
    """Return the ETag of a preview: the state of the stream that it was computed from."""
    return f'"{"-" if basis.tick_us is None else basis.tick_us}.{basis.revision}"'


def parse_basis_etag(header: str | None) -> Basis | None:
    """Return the basis that a header If-Match names; None for `*`, any basis.

    Raises:
        ApiError: The header is missing (428), or is not the ETag of a preview (412).
    """
    if header is None:
        raise ApiError(428, "the header If-Match is missing: send the ETag of the preview, or * to act without one")
    if header.strip() == _ANY:
        return None
    found = _BASIS.match(header.strip())
    if found is None:
        raise ApiError(412, "If-Match is not the ETag of a preview of this incident: ask for the preview again")
    tick = found["tick"]
    return Basis(tick_us=None if tick == "-" else int(tick), revision=int(found["revision"]))
