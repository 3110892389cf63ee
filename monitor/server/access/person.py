"""The person or script behind a request, and the scopes that it has."""

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Annotated, get_args

from fastapi import Depends
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.requests import HTTPConnection

from config.server import Scope
from monitor.server.access.sessions import cookie_name, verify_session
from monitor.server.context import Context, ServerContext
from monitor.server.problems import ApiError

log = logging.getLogger(__name__)

_MAX_NAME_LENGTH = 200
_BEARER = HTTPBearer(auto_error=False, description="A token of server.tokens.")
_COOKIE = APIKeyCookie(
    name="outrider",
    auto_error=False,
    description="The session of POST /login; under https the cookie is __Host-outrider.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The author of a request: its name is stored with actions."""

    name: str
    scopes: frozenset[Scope]
    cookie: str = ""
    """The cookie of the session, which the tokens of forms belong to."""

    def may(self, scope: Scope) -> bool:
        """Return whether the person has a scope."""
        return scope in self.scopes


LOCAL = Person(name="local", scopes=frozenset(get_args(Scope)))
"""Anyone on this machine, where the server has no tokens."""


def find_person(connection: HTTPConnection, context: ServerContext) -> Person | None:
    """Return the person of a request: by a bearer token, a trusted proxy or a session; None if there is none.

    Raises:
        ApiError: The token is wrong (401), or too many were wrong (429).
    """
    named = _name_of_proxy(connection, context)
    authorization = connection.headers.get("authorization")
    if authorization is not None:
        person = _check_bearer(connection, context, authorization)
        return person if named is None else replace(person, name=named)
    proxy = context.server.auth_proxy
    if named is not None and proxy is not None:
        return Person(name=named, scopes=frozenset(proxy.scopes))
    if context.tokens:
        return _find_session(connection, context)
    return LOCAL if proxy is None else None


def _check_bearer(connection: HTTPConnection, context: ServerContext, authorization: str) -> Person:
    scheme, _, presented = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise _not_known("the header Authorization needs the form: Bearer TOKEN")
    return check_token(connection, context, presented.strip())


def check_token(connection: HTTPConnection, context: ServerContext, presented: str) -> Person:
    """Return the person of a token.

    Raises:
        ApiError: The token is wrong (401), or too many from this address were wrong (429).
    """
    address = client_address(connection)
    wait_s = context.failures.wait_s(address, context.clock_s())
    if wait_s > 0:
        detail = f"too many wrong tokens from {address}; try again in {math.ceil(wait_s)} s"
        raise ApiError(429, detail, headers={"Retry-After": str(math.ceil(wait_s))})
    token = context.tokens.find(presented)
    if token is None:
        context.failures.add(address, context.clock_s())
        log.warning("A wrong token from %s.", address, extra={"action": "server", "address": address})
        raise _not_known("the token is wrong; use one of server.tokens")
    return Person(name=token.name, scopes=frozenset(token.scopes))


def _find_session(connection: HTTPConnection, context: ServerContext) -> Person | None:
    cookie = connection.cookies.get(cookie_name(is_https=context.is_https), "")
    session = verify_session(context.tokens, cookie, context.clock_s()) if cookie else None
    token = None if session is None else context.tokens.find_name(session.token_name)
    return None if token is None else Person(name=token.name, scopes=frozenset(token.scopes), cookie=cookie)


def _name_of_proxy(connection: HTTPConnection, context: ServerContext) -> str | None:
    """Return the name of the person that a trusted proxy gives; a header from any other address is ignored."""
    proxy = context.server.auth_proxy
    if proxy is None or not _is_trusted(client_address(connection), context):
        return None
    names = connection.headers.getlist(proxy.header)
    if not names:
        return None
    name = names[0].strip()
    if len(names) > 1 or not name or len(name) > _MAX_NAME_LENGTH or not name.isprintable():
        raise _not_known(f"the header {proxy.header} of the proxy must have one name")
    return name


def _is_trusted(address: str, context: ServerContext) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in context.trusted_proxies)


def client_address(connection: HTTPConnection) -> str:
    """Return the address of the client or of the proxy before it."""
    return connection.client.host if connection.client is not None else "unknown"


def _not_known(detail: str) -> ApiError:
    return ApiError(401, detail, headers={"WWW-Authenticate": "Bearer"})


def require(scope: Scope) -> Callable[..., Awaitable[Person]]:
    """Return a dependency that yields the person of a request with a scope."""

    async def check(
        connection: HTTPConnection,
        context: Context,
        _bearer: Annotated[object, Depends(_BEARER)],
        _session: Annotated[object, Depends(_COOKIE)],
    ) -> Person:
        person = find_person(connection, context)
        if person is None:
            raise _not_known("a token is needed: send Authorization: Bearer TOKEN, or log in at /login")
        if not person.may(scope):
            raise ApiError(403, f"{person.name} lacks the scope {scope}; add it to the scopes in server")
        return person

    return check


Reader = Annotated[Person, Depends(require("read"))]
"""A person that may read."""
Actor = Annotated[Person, Depends(require("act"))]
"""A person that may act on incidents and mutes."""
Promoter = Annotated[Person, Depends(require("promote"))]
"""A person that may change the active model."""
