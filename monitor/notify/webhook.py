"""The webhook channel: a message as a signed POST, and the interpretation of the answer."""

import hashlib
import hmac
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib import metadata

from config.masking import MASK
from config.notify import WebhookChannelSettings as WebhookSettings
from monitor.notify.channel import DeliveryResult
from monitor.notify.http_post import HttpResponse, PostError, PostTarget, post
from monitor.notify.payload import build_body
from storage.control.outbox import Message

_RETRYABLE_STATUSES = frozenset({408, 425, 429})
_MAX_QUOTE_CHARACTERS = 200
_MIN_SECRET_CHARACTERS = 4


class Webhook:
    """A channel that posts messages to one URL."""

    def __init__(self, settings: WebhookSettings) -> None:
        self.timeout_s = settings.timeout.total_seconds()
        self.concurrency = settings.concurrency
        self._settings = settings
        self._target = PostTarget.from_url(settings.url)
        self._agent = f"Outrider/{metadata.version('outrider')}"

    def send(self, message: Message) -> DeliveryResult:
        """Post a message; the idempotency key is the same at every attempt."""
        body = build_body(message)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": self._agent,
            "Idempotency-Key": message.id,
        }
        timestamp = int(time.time())
        headers["Outrider-Timestamp"] = str(timestamp)
        if self._settings.secret:
            headers["Outrider-Signature"] = sign_request(self._settings.secret, timestamp, body)
        try:
            response = post(self._target, body, headers | self._settings.headers, self.timeout_s)
        except PostError as error:
            return DeliveryResult(outcome="retry", reason=str(error))
        return interpret_response(response, now_s=time.time(), quote=self._quote(response.body_excerpt))

    def _quote(self, text: str) -> str:
        """Return the receiver's text on one line, with our own secrets masked, which the receiver may repeat."""
        secrets = [self._settings.secret, self._settings.url, self._target.path, *self._settings.headers.values()]
        for secret in sorted((each for each in secrets if len(each) >= _MIN_SECRET_CHARACTERS), key=len, reverse=True):
            text = text.replace(secret, MASK)
        line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return line if len(line) <= _MAX_QUOTE_CHARACTERS else line[:_MAX_QUOTE_CHARACTERS] + "..."


def sign_request(secret: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a request: HMAC-SHA256, in hex, of the timestamp, a dot and the body.

    The timestamp allows a receiver to reject a request that was recorded and is replayed much later.
    """
    signed = str(timestamp).encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def interpret_response(response: HttpResponse, *, now_s: float, quote: str) -> DeliveryResult:
    """Return the result of an attempt from the HTTP answer.

    A 2xx status is a delivery. Temporary failures (5xx, 408, 425, 429) are retried. Any other status is final, because
    only a user can correct a wrong address or a wrong secret.

    Args:
        response: The answer.
        now_s: The time of the answer, in seconds since 1970.
        quote: The beginning of the body, to be quoted in the reason.
    """
    reason = f"answered {response.status}" + (f": {quote}" if quote else "")
    if 200 <= response.status < 300:
        return DeliveryResult(outcome="delivered", reason=f"answered {response.status}")
    if response.status >= 500 or response.status in _RETRYABLE_STATUSES:
        return DeliveryResult(
            outcome="retry", reason=reason, retry_after_s=parse_retry_after(response.headers.get("retry-after"), now_s)
        )
    if 300 <= response.status < 400:
        reason = (
            f"answered {response.status}, which leads elsewhere: redirects are not followed, put the address into url"
        )
    return DeliveryResult(outcome="refused", reason=reason)


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
