"""The webhook channel: a message as a signed POST request."""

import hashlib
import hmac
import time

from config.channels.webhook import WebhookChannelSettings as WebhookSettings
from monitor.notify.delivery import DeliveryResult, retry
from monitor.notify.http_answer import interpret_response, quote_answer, user_agent
from monitor.notify.http_post import PostError, PostTarget, post
from monitor.notify.payload import build_body
from storage.control.outbox import Message


class Webhook:
    """A channel that posts messages to one URL."""

    def __init__(self, settings: WebhookSettings) -> None:
        self.timeout_s = settings.timeout.total_seconds()
        self.concurrency = settings.concurrency
        self._settings = settings
        self._target = PostTarget.from_url(settings.url)
        self._agent = user_agent()

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
            return retry(error.reason, str(error))
        quote = quote_answer(response.body_excerpt, self._secrets())
        return interpret_response(response, now_s=time.time(), quote=quote)

    def _secrets(self) -> list[str]:
        return [self._settings.secret, self._settings.url, self._target.path, *self._settings.headers.values()]


def sign_request(secret: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a request: HMAC-SHA256, in hex, of the timestamp, a dot and the body.

    The timestamp allows a receiver to reject a request that was recorded and is replayed much later.
    """
    signed = str(timestamp).encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
