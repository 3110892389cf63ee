"""The webhook: a message as a signed POST, and what its answer means."""

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
    """Posts messages to one address."""

    def __init__(self, settings: WebhookSettings) -> None:
        self.timeout_s = settings.timeout.total_seconds()
        self.concurrency = settings.concurrency
        self._settings = settings
        self._target = PostTarget.from_url(settings.url)
        self._agent = f"Outrider/{metadata.version('outrider')}"

    def send(self, message: Message) -> DeliveryResult:
        """Post the message; it has the same key at every attempt."""
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
            reply = post(self._target, body, headers | self._settings.headers, self.timeout_s)
        except PostError as error:
            return DeliveryResult(outcome="retry", reason=str(error))
        return interpret_response(reply, now_s=time.time(), quote=self._quote(reply.body_excerpt))

    def _quote(self, text: str) -> str:
        """Return what the receiver says, on one line and without our own secrets, which it may repeat."""
        secrets = [self._settings.secret, self._settings.url, self._target.path, *self._settings.headers.values()]
        for secret in sorted((each for each in secrets if len(each) >= _MIN_SECRET_CHARACTERS), key=len, reverse=True):
            text = text.replace(secret, MASK)
        line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
        return line if len(line) <= _MAX_QUOTE_CHARACTERS else line[:_MAX_QUOTE_CHARACTERS] + "..."


def sign_request(secret: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a request: HMAC-SHA256, in hex, of the timestamp, a dot and the body.

    The timestamp lets a receiver refuse a request that somebody has recorded and sends again much later.
    """
    signed = str(timestamp).encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def interpret_response(reply: HttpResponse, *, now_s: float, quote: str) -> DeliveryResult:
    """Return what an answer means.

    What the receiver may overcome by itself (5xx, 408, 425, 429) is tried again; what only a person can mend, a
    wrong address or a refused secret, is not.
    """
    said = f"answered {reply.status}" + (f": {quote}" if quote else "")
    if 200 <= reply.status < 300:
        return DeliveryResult(outcome="delivered", reason=f"answered {reply.status}")
    if reply.status >= 500 or reply.status in _RETRYABLE_STATUSES:
        return DeliveryResult(
            outcome="retry", reason=said, retry_after_s=parse_retry_after(reply.headers.get("retry-after"), now_s)
        )
    if 300 <= reply.status < 400:
        said = f"answered {reply.status}, which leads elsewhere: redirects are not followed, put the address into url"
    return DeliveryResult(outcome="refused", reason=said)


def parse_retry_after(text: str | None, now_s: float) -> float | None:
    """Read a Retry-After header, seconds or a date; None where it says nothing that can be read."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text.strip()[:12])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_s)
