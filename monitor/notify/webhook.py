"""The webhook: a message as a signed POST, and what its answer means."""

import hashlib
import hmac
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib import metadata

from config.masking import MASK
from config.notify import WebhookChannel as WebhookSettings
from monitor.notify.channel import Answer
from monitor.notify.http_post import PostError, Reply, Target, post
from monitor.notify.payload import body_of
from storage.outbox import Message

_MAY_PASS = frozenset({408, 425, 429})
_LONGEST_QUOTE = 200
_SHORTEST_SECRET = 4


class Webhook:
    """Posts messages to one address."""

    def __init__(self, settings: WebhookSettings) -> None:
        self.timeout_s = settings.timeout.total_seconds()
        self.concurrency = settings.concurrency
        self._settings = settings
        self._target = Target.of(settings.url)
        self._agent = f"Outrider/{metadata.version('outrider')}"

    def send(self, message: Message) -> Answer:
        """Post the message; it has the same key at every attempt."""
        body = body_of(message)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": self._agent,
            "Idempotency-Key": message.id,
        }
        timestamp = int(time.time())
        headers["Outrider-Timestamp"] = str(timestamp)
        if self._settings.secret:
            headers["Outrider-Signature"] = signature(self._settings.secret, timestamp, body)
        try:
            reply = post(self._target, body, headers | self._settings.headers, self.timeout_s)
        except PostError as error:
            return Answer(outcome="retry", reason=str(error))
        return answer_of(reply, now_s=time.time(), quote=self._quote(reply.excerpt))

    def _quote(self, text: str) -> str:
        """Return what the receiver says, on one line and without our own secrets, which it may repeat."""
        secrets = [self._settings.secret, self._settings.url, self._target.path, *self._settings.headers.values()]
        for secret in sorted((each for each in secrets if len(each) >= _SHORTEST_SECRET), key=len, reverse=True):
            text = text.replace(secret, MASK)
        line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
        return line if len(line) <= _LONGEST_QUOTE else line[:_LONGEST_QUOTE] + "..."


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a request: HMAC-SHA256, in hex, of the timestamp, a dot and the body.

    The timestamp lets a receiver refuse a request that somebody has recorded and sends again much later.
    """
    signed = str(timestamp).encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def answer_of(reply: Reply, *, now_s: float, quote: str) -> Answer:
    """Return what an answer means.

    What the receiver may overcome by itself (5xx, 408, 425, 429) is tried again; what only a person can mend, a
    wrong address or a refused secret, is not.
    """
    said = f"answered {reply.status}" + (f": {quote}" if quote else "")
    if 200 <= reply.status < 300:
        return Answer(outcome="delivered", reason=f"answered {reply.status}")
    if reply.status >= 500 or reply.status in _MAY_PASS:
        return Answer(outcome="retry", reason=said, wait_s=retry_after_s(reply.headers.get("retry-after"), now_s))
    if 300 <= reply.status < 400:
        said = f"answered {reply.status}, which leads elsewhere: redirects are not followed, put the address into url"
    return Answer(outcome="refused", reason=said)


def retry_after_s(text: str | None, now_s: float) -> float | None:
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
