"""Settings of the channel `email`."""

import re
from collections.abc import Iterator
from datetime import timedelta
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from config.channels.base import ChannelSection
from config.channels.http import RequestTimeout
from config.section import Names, raise_problems
from config.server import is_loopback
from config.units import Duration, format_duration

MailTls = Literal["starttls", "implicit", "none"]

_DEFAULT_PORTS = {"starttls": 587, "implicit": 465, "none": 25}
_MAX_GROUP_WAIT = timedelta(minutes=10)


def _check_group_wait(wait: timedelta) -> timedelta:
    if wait > _MAX_GROUP_WAIT:
        raise ValueError(f"must be at most {format_duration(_MAX_GROUP_WAIT)}")
    return wait


GroupWait = Annotated[Duration, AfterValidator(_check_group_wait)]
_ADDRESS = re.compile(r"^[^\s<>@,;:\"()\[\]\\]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$")


class EmailChannelSettings(ChannelSection):
    """A channel that sends mails by SMTP. The mails of an incident are one thread."""

    model_config = ConfigDict(serialize_by_alias=True)
    secret_keys: ClassVar = ("password",)

    type: Literal["email"]
    server: str = Field(description="The mail server, smtp://HOST or smtp://HOST:PORT.")
    tls: MailTls = Field(
        default="starttls",
        description="starttls: TLS by the command STARTTLS, which the server must offer. implicit: TLS from the start. "
        "none: no TLS, for a server on this machine only. The default port is 587, 465 or 25.",
    )
    username: str | None = Field(default=None, description="The name for the login at the server; null: no login.")
    password: str = Field(default="", repr=False, description="The password for the login.")
    password_file: Path | None = Field(default=None, description="A file with the password.")
    sender: str = Field(
        alias="from", description="The address of the sender, such as `Outrider <outrider@example.org>`."
    )
    to: Names = Field(description="The addresses of the recipients.")
    group_wait: GroupWait = Field(
        default=timedelta(0),
        description="Time for which a new incident waits for others, at most 10m: all of them are one mail. A critical "
        "one does not wait, and takes the waiting ones along. 0s: one mail each.",
    )
    template: str = Field(
        default="",
        description="Jinja2 template of the text of a mail, in plain text; its links follow. Empty: the default.",
    )
    timeout: RequestTimeout = Field(
        default=timedelta(seconds=30), description="Timeout of the whole conversation with the server."
    )

    @model_validator(mode="after")
    def _check_mail(self) -> "EmailChannelSettings":
        raise_problems([*self._server_problems(), *self._login_problems(), *self._address_problems()])
        return self

    def _server_problems(self) -> Iterator[tuple[str, str]]:
        try:
            parts = urlsplit(self.server)
            is_valid = parts.scheme == "smtp" and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_valid = False
        if not is_valid or "@" in self.server or parts.path.strip("/") or parts.query or parts.fragment:
            yield "server", "must be smtp://HOST or smtp://HOST:PORT; the login has keys of its own"
        elif self.tls == "none" and not is_loopback(self.host):
            yield "tls", "none is possible for a server on this machine only (localhost): use starttls or implicit"

    def _login_problems(self) -> Iterator[tuple[str, str]]:
        if self.username and not self.password:
            yield "password", "is missing; a username needs password or password_file"
        if self.password and not self.username:
            yield "username", "is missing; a password needs a username"

    def _address_problems(self) -> Iterator[tuple[str, str]]:
        if not is_mail_address(self.sender):
            yield "from", "is not an address; write outrider@example.org or `Outrider <outrider@example.org>`"
        for each in self.to:
            if not _ADDRESS.fullmatch(each):
                yield "to", f"{each!r} is not an address; write name@example.org"

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.server)

    @property
    def host(self) -> str:
        """Return the host of the server."""
        return self._parts.hostname or ""

    @property
    def port(self) -> int:
        """Return the port of the server."""
        return self._parts.port or _DEFAULT_PORTS[self.tls]

    @property
    def target(self) -> str:
        """Return the server and the recipients."""
        return f"{', '.join(self.to)} by {self.host}:{self.port}"


def is_mail_address(text: str) -> bool:
    """Return whether a text is one address, with or without a name before it."""
    if not text.isprintable():
        return False
    name, address = parseaddr(text)
    if not _ADDRESS.fullmatch(address):
        return False
    try:
        Address(display_name=name, addr_spec=address)
    except (HeaderParseError, ValueError):
        return False
    return True
