"""Settings of the HTTP server of the API and the page."""

import re
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from config.metrics import ListenAddress, split_address
from config.section import Names, Section, raise_problems, split_list

Scope = Literal["read", "act", "promote"]
"""`read` all data; `act` on incidents and mutes; `promote` and roll back models."""

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")
_HEADER = re.compile(r"^[A-Za-z0-9-]+$")
_HOST = re.compile(r"^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?$")
_MAX_LINK_SECRETS = 2
_MIN_LINK_SECRET_CHARACTERS = 32
_LOCAL_NAME = "localhost"
_TRACE_ID = "{trace_id}"

Scopes = Annotated[tuple[Scope, ...], BeforeValidator(split_list)]


def is_loopback(host: str) -> bool:
    """Return whether a host name or address reaches this machine only."""
    if host.lower() == _LOCAL_NAME:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def fill_trace_url(template: str, trace_id: str) -> str:
    """Return the address of a trace. An id consists of hexadecimal digits, so that it needs no escapes."""
    return template.replace(_TRACE_ID, trace_id)


class TokenSettings(Section):
    """A token with its scopes, for scripts and for the login on the page."""

    name: str = Field(description="The name that is stored as the author of actions.")
    token: str = Field(default="", repr=False, description="The token; use at least 32 random characters.")
    token_file: Path | None = Field(default=None, description="A file with the token.")
    scopes: Scopes = Field(
        default=("read",),
        description="read: all data. act: verbs on incidents, and mutes. promote: change the active model.",
    )

    @model_validator(mode="after")
    def _check_token(self) -> "TokenSettings":
        raise_problems(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        if not _NAME.fullmatch(self.name):
            yield "name", "must consist of letters, digits and . _ @ -"
        if not self.token:
            yield "token", "is missing; a token needs token or token_file"
        elif not self.token.isascii() or not self.token.isprintable() or " " in self.token:
            yield "token", "must be printable ASCII without spaces, since it is sent in a header"


class AuthProxySettings(Section):
    """A proxy that knows the person of a request and names it in a header."""

    header: str = Field(description="The header with the name of the person, such as X-Forwarded-User.")
    trusted_proxies: Names = Field(
        description="The addresses or networks of the proxies; from any other address the header is ignored."
    )
    scopes: Scopes = Field(default=("read", "act"), description="The scopes of every person that the proxy names.")

    @model_validator(mode="after")
    def _check_proxy(self) -> "AuthProxySettings":
        raise_problems(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        if not _HEADER.fullmatch(self.header):
            yield "header", "is not the name of a header; write for example X-Forwarded-User"
        for each in self.trusted_proxies:
            try:
                ip_network(each, strict=False)
            except ValueError:
                yield "trusted_proxies", f"{each!r} is not an address or network, such as 10.0.0.7 or 10.0.0.0/24"

    def networks(self) -> list[IPv4Network | IPv6Network]:
        """Return the networks of the trusted proxies."""
        return [ip_network(each, strict=False) for each in self.trusted_proxies]


class ServerSettings(Section):
    """The HTTP server of the API (/api/v1) and the page (/)."""

    listen: ListenAddress = Field(
        default="127.0.0.1:8080",
        description="The address that the server listens on, host:port. Any other than loopback needs tokens.",
    )
    url: str | None = Field(
        default=None,
        description="The address under which people reach the server, for links in messages. Another host than "
        "loopback (a proxy stands before the server) needs tokens.",
    )
    hosts: Annotated[tuple[str, ...], BeforeValidator(lambda value: split_list(value) if value else ())] = Field(
        default=(), description="Further values of the Host header that are answered, beside `listen` and `url`."
    )
    tokens: tuple[TokenSettings, ...] = Field(default=(), description="The tokens. Without any, no login is needed.")
    auth_proxy: AuthProxySettings | None = Field(
        default=None, description="A proxy that names the person of a request; null: none."
    )
    link_secret: str = Field(
        default="",
        repr=False,
        description="The secret that signs the links in mails, at least 32 characters; a second line is the former "
        "secret, whose links stay valid. Empty: no such links.",
    )
    link_secret_file: Path | None = Field(
        default=None, description="A file with one or two secrets of the links, a line each."
    )
    trace_url: str | None = Field(
        default=None,
        description="The address of a trace with {trace_id} in it, for the outliers of records with the header "
        "`traceparent`; null: ids without links.",
    )

    @model_validator(mode="after")
    def _check_server(self) -> "ServerSettings":
        raise_problems(
            [
                *self._url_problems(),
                *self._host_problems(),
                *self._token_problems(),
                *self._link_problems(),
                *self._trace_problems(),
            ]
        )
        return self

    def _trace_problems(self) -> Iterator[tuple[str, str]]:
        if self.trace_url is None:
            return
        around = self.trace_url.split(_TRACE_ID)
        is_plain = self.trace_url.isascii() and self.trace_url.isprintable() and " " not in self.trace_url
        try:
            parts = urlsplit(around[0])
            is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
        except ValueError:
            is_valid = False
        is_behind_host = is_valid and bool(parts.path or parts.query or parts.fragment)
        has_one = len(around) == 2 and not any(brace in text for text in around for brace in "{}")
        if not (is_plain and is_behind_host and has_one):
            yield (
                "trace_url",
                (
                    "must be an http or https address with {trace_id} once behind the host, such as "
                    "https://jaeger.example/trace/{trace_id}"
                ),
            )

    @property
    def link_secrets(self) -> tuple[str, ...]:
        """Return the secrets of links: the first one signs, and all of them are valid."""
        return tuple(self.link_secret.split())

    def _link_problems(self) -> Iterator[tuple[str, str]]:
        if len(self.link_secrets) > _MAX_LINK_SECRETS:
            yield "link_secret", "has more than two lines; write the new secret and, while it is replaced, the old one"
        if any(len(each) < _MIN_LINK_SECRET_CHARACTERS for each in self.link_secrets):
            yield "link_secret", f"is too short; use at least {_MIN_LINK_SECRET_CHARACTERS} random characters"

    def _url_problems(self) -> Iterator[tuple[str, str]]:
        if self.url is None:
            return
        try:
            parts = urlsplit(self.url)
            is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_valid = False
        if not is_valid or parts.query or parts.fragment or parts.username or not self.url.isascii():
            yield "url", "must be an address such as https://outrider.example"
        elif parts.path not in {"", "/"}:
            yield "url", "has a path; the server is reached at the root of a host only, https://outrider.example"

    def _host_problems(self) -> Iterator[tuple[str, str]]:
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                yield "hosts", f"{host!r} is not a host name; write a name or address, with a port if needed"

    def _token_problems(self) -> Iterator[tuple[str, str]]:
        for name, number in Counter(each.name for each in self.tokens).items():
            if number > 1:
                yield "tokens", f"the name {name!r} is given twice; each token needs its own name"
        secrets = [each.token for each in self.tokens]
        if len(set(secrets)) < len(secrets):
            yield "tokens", "two names have the same token; give each its own"
        if self.tokens:
            return
        if not is_loopback(split_address(self.listen)[0]):
            yield "listen", f"{self.listen} can be reached from other machines, which needs server.tokens; {_ADVICE}"
        elif self.url is not None and not is_loopback(urlsplit(self.url).hostname or ""):
            yield "url", f"{self.url} can be reached from other machines, which needs server.tokens; {_ADVICE}"


_ADVICE = "add a token, or use a loopback address such as 127.0.0.1:8080"
