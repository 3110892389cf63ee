"""Settings of notification channels and routes."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from config.section import Int, Names, Section, raise_problems, split_list
from config.units import PositiveDuration, format_duration

_CHANNEL_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_-]*$")
_HEADER_NAME = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
_HEADER_VALUE = re.compile(r"^[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?$")
_URL_CHARACTERS = re.compile(r"^[\x21-\x7e]+$")
_MAX_TIMEOUT = timedelta(minutes=5)
_RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "idempotency-key",
        "outrider-signature",
        "outrider-timestamp",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
"""Headers set by Outrider. A second value of one of these would make a request ambiguous."""

IncidentKind = Literal[
    "spike", "slow_rise", "drift", "calibration", "silence", "stopped", "dead_letters", "late", "stalled", "gap"
]
Severity = Literal["warning", "critical"]


class LogChannelSettings(Section):
    """A channel that writes each notification to the log."""

    type: Literal["log"]


class WebhookChannelSettings(Section):
    """A channel that posts each notification to a URL as JSON."""

    type: Literal["webhook"]
    url: str = Field(default="", repr=False, description="The URL to post to, http:// or https://.")
    url_file: Path | None = Field(default=None, description="A file with the URL.")
    secret: str = Field(
        default="",
        repr=False,
        description="The secret that signs each request (HMAC-SHA256). Empty: requests are not signed.",
    )
    secret_file: Path | None = Field(default=None, description="A file with the secret.")
    headers: dict[str, str] = Field(
        default={}, repr=False, description="Additional headers. NAME_file: PATH reads the value of NAME from a file."
    )
    timeout: PositiveDuration = Field(default=timedelta(seconds=10), description="Timeout of one whole request.")
    concurrency: Int = Field(default=4, ge=1, le=32, description="The maximum number of simultaneous requests.")

    @model_validator(mode="after")
    def _check_request(self) -> "WebhookChannelSettings":
        raise_problems([*_url_problems(self.url), *_header_problems(self.headers), *self._timeout_problems()])
        return self

    def _timeout_problems(self) -> Iterator[tuple[str, str]]:
        if self.timeout > _MAX_TIMEOUT:
            yield "timeout", f"must be at most {format_duration(_MAX_TIMEOUT)}"


def _url_problems(url: str) -> Iterator[tuple[str, str]]:
    """Yield the problems of a URL. The URL is a secret and is not included in the messages."""
    if not url:
        yield "url", "is missing; a webhook needs url or url_file"
        return
    if not _URL_CHARACTERS.fullmatch(url):
        yield "url", "contains a space or a non-ASCII character; write it percent-encoded"
        return
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        yield "url", "has a port or a bracket that cannot be read; write http://HOST:PORT/PATH"
        return
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        yield "url", "must be an http:// or https:// address"


def _header_problems(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the problems of headers. Their values may be secrets and are not included in the messages."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            yield "headers", f"{name!r} is not a valid header name; use letters, digits and -"
        elif name.lower() in _RESERVED_HEADERS:
            yield f"headers.{name}", "is set by Outrider itself; leave it out"
        elif not _HEADER_VALUE.fullmatch(value):
            yield f"headers.{name}", "has an invalid value; use one line of ASCII"
    lower = [name.lower() for name in headers]
    for duplicate in sorted({name for name in lower if lower.count(name) > 1}):
        yield "headers", f"contains {duplicate!r} twice; leave one out"


ChannelSettings = Annotated[LogChannelSettings | WebhookChannelSettings, Field(discriminator="type")]


class MatchSettings(Section):
    """The incidents of a route: every given key must match. A list matches any of its entries."""

    stream: Names | None = Field(default=None, description="Streams. null: all.")
    kind: Annotated[tuple[IncidentKind, ...], BeforeValidator(split_list)] | None = Field(
        default=None, description="Kinds of incident. null: all."
    )
    severity: Annotated[tuple[Severity, ...], BeforeValidator(split_list)] | None = Field(
        default=None, description="Severities. null: all."
    )

    def matches(self, *, stream: str, kind: str, severity: str) -> bool:
        """Return True if an incident of this stream, kind and severity matches."""
        wanted = ((self.stream, stream), (self.kind, kind), (self.severity, severity))
        return all(accepted is None or value in accepted for accepted, value in wanted)


class RouteSettings(Section):
    """A route of incidents to channels."""

    match: MatchSettings = Field(default=MatchSettings(), description="The incidents of the route.")
    channels: Names = Field(description="The channels of the route.")


class NotifySettings(Section):
    """Notifications of incidents."""

    max_age: PositiveDuration = Field(
        default=timedelta(hours=1),
        description="Incidents with an older event time are stored without a notification.",
    )
    deadline: PositiveDuration = Field(
        default=timedelta(hours=24), description="The time after which a failed message is no longer retried."
    )
    channels: dict[str, ChannelSettings] = Field(default={}, description="Channels by name.")
    routes: tuple[RouteSettings, ...] = Field(
        default=(), description="Routes of incidents to channels. Without routes every incident goes to every channel."
    )

    @field_validator("channels")
    @classmethod
    def _check_channel_names(cls, channels: dict[str, ChannelSettings]) -> dict[str, ChannelSettings]:
        for name, channel in channels.items():
            if not _CHANNEL_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a channel name; use letters, digits, _ and -, a letter first")
            if name == "log" and not isinstance(channel, LogChannelSettings):
                raise ValueError("'log' is always the log; give the webhook another name")
        return channels

    @model_validator(mode="after")
    def _check_route_channels(self) -> "NotifySettings":
        known = {"log", *self.channels}
        raise_problems(
            (f"routes.{number}.channels", f"there is no channel {name!r}; {suggest_channel(name, self.channels)}")
            for number, route in enumerate(self.routes)
            for name in route.channels
            if name not in known
        )
        return self

    def channels_for(self, *, stream: str, kind: str, severity: str) -> tuple[str, ...]:
        """Return the channels of an incident, each once, sorted by name."""
        if not self.routes:
            return tuple(sorted(self.channels))
        matching = (route for route in self.routes if route.match.matches(stream=stream, kind=kind, severity=severity))
        return tuple(sorted({name for route in matching for name in route.channels}))


def suggest_channel(name: str, channels: Mapping[str, ChannelSettings]) -> str:
    """Return a hint for an unknown channel: the nearest name, or the known channels."""
    matches = get_close_matches(name, [*channels, "log"], n=1, cutoff=0.6)
    return f"did you mean {matches[0]}?" if matches else f"known channels: {', '.join(channels) or 'none'}"
