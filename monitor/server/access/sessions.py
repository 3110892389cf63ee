"""Sessions of the page: a signed cookie that expires, and tokens of forms that belong to it."""

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass

from monitor.server.tokens import TokenList

SESSION_LENGTH_S = 12 * 3600
_SECURE_COOKIE = "__Host-outrider"
_PLAIN_COOKIE = "outrider"
_MAX_COOKIE_LENGTH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A verified session: the name of its token and the time at which it ends, in seconds since 1970."""

    token_name: str
    ends_at_s: int


def cookie_name(*, is_https: bool) -> str:
    """Return the name of the cookie; the prefix __Host- lets no other host of a domain set it."""
    return _SECURE_COOKIE if is_https else _PLAIN_COOKIE


def issue_session(tokens: TokenList, name: str, now_s: float) -> str:
    """Return the value of the cookie of a new session of a token."""
    key = tokens.session_key(name)
    assert key is not None, "a session is issued for a token that was found"
    payload = f"{_encode(name.encode())}.{int(now_s) + SESSION_LENGTH_S}.{secrets.token_urlsafe(12)}"
    return f"{payload}.{_sign(key, payload)}"


def verify_session(tokens: TokenList, cookie: str, now_s: float) -> Session | None:
    """Return the session of a cookie, or None if it is forged, expired, or of a token that no longer exists."""
    if len(cookie) > _MAX_COOKIE_LENGTH or not cookie.isascii():
        return None
    payload, _, signature = cookie.rpartition(".")
    parts = payload.split(".")
    if len(parts) != 3 or not parts[1].isdecimal():
        return None
    name = _decode(parts[0])
    key = None if name is None else tokens.session_key(name)
    if name is None or key is None or not hmac.compare_digest(signature, _sign(key, payload)):
        return None
    ends_at_s = int(parts[1])
    return Session(token_name=name, ends_at_s=ends_at_s) if now_s < ends_at_s else None


def form_token(tokens: TokenList, cookie: str, name: str) -> str:
    """Return the hidden token of the forms of a person, which another site cannot know.

    Args:
        tokens: The tokens of the server.
        cookie: The cookie of the session; empty without one.
        name: The name of the person.
    """
    return _sign(tokens.form_key, f"{cookie}\0{name}")


def is_form_token(tokens: TokenList, presented: str, cookie: str, name: str) -> bool:
    """Return whether a form has the token of its person and session."""
    expected = form_token(tokens, cookie, name)
    return presented.isascii() and hmac.compare_digest(presented, expected)


def _sign(key: bytes, text: str) -> str:
    return _encode(hmac.digest(key, text.encode("utf-8", "surrogateescape"), "sha256"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _decode(text: str) -> str | None:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return None
