"""The person or script behind a request, and the scopes that it has."""

from dataclasses import dataclass
from typing import Annotated, get_args

from fastapi import Depends

from config.errors import ConfigError
from config.metrics import split_address
from config.server import Scope, ServerSettings, is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The author of a request: its name is stored with actions."""

    name: str
    scopes: frozenset[Scope]


LOCAL = Person(name="local", scopes=frozenset(get_args(Scope)))
"""Anyone on this machine, where the server has no tokens."""


def require_loopback(server: ServerSettings) -> None:
    """Check that only this machine can reach the server.

    Raises:
        ConfigError: The server has tokens or another address than loopback.
    """
    if server.tokens or server.auth_proxy is not None or not is_loopback(split_address(server.listen)[0]):
        raise ConfigError("server: only a loopback address without tokens is supported")


def _find_person() -> Person:
    return LOCAL


Reader = Annotated[Person, Depends(_find_person)]
"""A person that may read."""
