"""Masking of secrets in settings."""

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(r"password|passwd|secret|token|credential|api_?key", re.IGNORECASE)
_URL = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>.*)$", re.DOTALL)


class Secret(str):
    """A text from a secret file. It behaves as a text, but its representation is masked."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK)


def mask_url(url: str) -> str:
    """Return the URL with its password and the secrets among its parameters masked.

    A password may contain unescaped characters that make parsing ambiguous. Everything from the first colon to
    the last at-sign is therefore masked: hiding too much is safer than hiding too little.
    """
    match = _URL.match(url)
    if match is None:
        return MASK if "@" in url else url
    rest = match["rest"]
    user_info, at, place = rest.rpartition("@")
    if at:
        user, colon, _ = user_info.partition(":")
        rest = user + (f":{MASK}" if colon else "") + at + place
    rest = re.sub(r"([?&])([^=&?]*)=([^&]*)", _mask_parameter, rest)
    return match["scheme"] + rest


def _mask_parameter(match: re.Match[str]) -> str:
    lead, name, value = match.groups()
    return f"{lead}{name}={MASK if _SECRET_NAME.search(name) else value}"


def mask_webhook(url: str) -> str:
    """Return scheme and host of a webhook URL. Its path is a secret."""
    match = re.match(r"^(https?://)(?:[^/]*@)?([^/?#@]+)", url)
    return f"{match[1]}{match[2]}/{MASK}" if match else MASK


def mask_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return client options with secrets masked, which are recognised by name or by origin (a secret file)."""
    return {name: _mask_option(name, value) for name, value in options.items()}


def _mask_option(name: str, value: object) -> object:
    if value is None:
        return None
    if isinstance(value, Secret) or _SECRET_NAME.search(name):
        return MASK
    return mask_url(value) if isinstance(value, str) and "://" in value else value
