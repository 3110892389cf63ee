"""Rules for the URLs, headers and time limits of channels that send HTTP requests."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from config.units import PositiveDuration, format_duration

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


def _check_timeout(timeout: timedelta) -> timedelta:
    if timeout > _MAX_TIMEOUT:
        raise ValueError(f"must be at most {format_duration(_MAX_TIMEOUT)}")
    return timeout


RequestTimeout = Annotated[PositiveDuration, AfterValidator(_check_timeout)]
"""The time limit of one whole attempt to deliver a message, at most 5 minutes."""


def url_problems(url: str, key: str, missing: str) -> Iterator[tuple[str, str]]:
    """Yield the problems of a URL. The URL may be a secret and is not included in the messages.

    Args:
        url: The URL.
        key: Key of the URL, for the messages.
        missing: The message if the URL is empty.
    """
    if not url:
        yield key, missing
        return
    if not _URL_CHARACTERS.fullmatch(url):
        yield key, "contains a space or a non-ASCII character; write it percent-encoded"
        return
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        yield key, "has a port or a bracket that cannot be read; write http://HOST:PORT/PATH"
        return
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        yield key, "must be an http:// or https:// address"


def header_problems(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
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
