"""The interpretation of an HTTP answer as the result of an attempt, shared by the channels that send HTTP requests."""

from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib import metadata

from config.masking import MASK
from monitor.notify.delivery import DeliveryResult, FailureReason, delivered, refuse, retry
from monitor.notify.http_post import HttpResponse

_RETRYABLE_STATUSES: Mapping[int, FailureReason] = {
    408: FailureReason.TIMEOUT,
    425: FailureReason.SERVER_ERROR,
    429: FailureReason.RATE_LIMITED,
}
_AUTH_STATUSES = frozenset({401, 403, 407})
_MAX_QUOTE_CHARACTERS = 200
_MIN_SECRET_CHARACTERS = 4


def user_agent() -> str:
    """Return the User-Agent header of requests."""
    return f"Outrider/{metadata.version('outrider')}"


def interpret_response(response: HttpResponse, *, now_s: float, quote: str) -> DeliveryResult:
    """Return the result of an attempt from the HTTP answer.

    A 2xx status is a delivery. Temporary failures (5xx, 408, 425, 429) are retried. Any other status is final, because
    only a user can correct a wrong address or a wrong secret.

    Args:
        response: The answer.
        now_s: The time of the answer, in seconds since 1970.
        quote: The beginning of the body, to be quoted in the detail.
    """
    status = response.status
    detail = f"answered {status}" + (f": {quote}" if quote else "")
    if 200 <= status < 300:
        return delivered(f"answered {status}")
    if status >= 500 or status in _RETRYABLE_STATUSES:
        wait_s = parse_retry_after(response.headers.get("retry-after"), now_s)
        return retry(_RETRYABLE_STATUSES.get(status, FailureReason.SERVER_ERROR), detail, wait_s)
    if 300 <= status < 400:
        detail = f"answered {status}, which leads elsewhere: redirects are not followed, put the address into url"
    return refuse(FailureReason.AUTH if status in _AUTH_STATUSES else FailureReason.CLIENT_ERROR, detail)


def parse_retry_after(text: str | None, now_s: float) -> float | None:
    """Parse a Retry-After header, seconds or an HTTP date; return the delay in seconds, or None if it is invalid."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text.strip()[:12])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s)


def quote_answer(text: str, secrets: Iterable[str]) -> str:
    """Return the receiver's text on one line, with our own secrets masked, which the receiver may repeat."""
    for secret in sorted((each for each in secrets if len(each) >= _MIN_SECRET_CHARACTERS), key=len, reverse=True):
        text = text.replace(secret, MASK)
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _MAX_QUOTE_CHARACTERS else line[:_MAX_QUOTE_CHARACTERS] + "..."
