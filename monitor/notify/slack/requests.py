"""Requests to Slack at the rate that it accepts, and the results of its answers."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monitor.notify.delivery import DeliveryResult, FailureReason, delivered, refuse, retry
from monitor.notify.http_answer import interpret_response, parse_retry_after, quote_answer, user_agent
from monitor.notify.http_post import HttpResponse, PostError, PostTarget, post
from monitor.notify.slack.answers import classify_error, read_content, read_error
from monitor.notify.token_bucket import TokenBucket

_RATE_PER_S = 1.0
_BURST = 3
"""Slack accepts about one message a second in a channel, and short bursts."""

_DEFAULT_PAUSE_S = 30.0
"""Pause after a refusal for too many messages without Retry-After."""

_MAX_ANSWER_BYTES = 500_000
"""An answer of the Web API repeats the message with its blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackAnswer:
    """The answer to a request: the result, Slack's error as a word or None, and the JSON object, which may be empty."""

    result: DeliveryResult
    error: str | None
    content: Mapping[str, Any]

    @property
    def is_ok(self) -> bool:
        """Return whether Slack has done what the request asks for."""
        return self.result.outcome == "delivered"


class SlackRequests:
    """Sends the requests of one channel; for one thread at a time.

    Args:
        secrets: Texts that must not appear in results.
        is_api: Whether answers are those of the Web API, which says in the body whether it has accepted a request.
    """

    def __init__(self, secrets: list[str], *, is_api: bool) -> None:
        self._secrets = secrets
        self._is_api = is_api
        self._bucket = TokenBucket(rate_per_s=_RATE_PER_S, burst=_BURST)

    def send(self, url: str, content: Mapping[str, Any], headers: Mapping[str, str], deadline_s: float) -> SlackAnswer:
        """Send a request when the rate permits it; the answer comes before a deadline on the monotonic clock."""
        wait_s = self._bucket.take(time.monotonic())
        if wait_s:
            if time.monotonic() + wait_s >= deadline_s:
                detail = f"Slack accepts the next message in {wait_s:.0f} s"
                return _failed(retry(FailureReason.RATE_LIMITED, detail, wait_s))
            time.sleep(wait_s)
            self._bucket.take(time.monotonic())
        body = json.dumps(content).encode()
        own = {"Content-Type": "application/json; charset=utf-8", "User-Agent": user_agent()}
        try:
            response = post(
                PostTarget.from_url(url),
                body,
                own | dict(headers),
                max(deadline_s - time.monotonic(), 0.1),
                max_body_bytes=_MAX_ANSWER_BYTES if self._is_api else None,
            )
        except PostError as error:
            return _failed(retry(error.reason, str(error)))
        return self._interpret(response)

    def _interpret(self, response: HttpResponse) -> SlackAnswer:
        now_s = time.time()
        error = read_error(response) if self._is_api and response.status == 200 else None
        if response.status == 429 or error == "ratelimited":
            wait_s = parse_retry_after(response.headers.get("retry-after"), now_s)
            wait_s = _DEFAULT_PAUSE_S if wait_s is None else wait_s
            self._bucket.close(time.monotonic() + wait_s)
            return _failed(retry(FailureReason.RATE_LIMITED, "Slack asks for fewer messages", wait_s), error)
        if not self._is_api or response.status != 200:
            quote = quote_answer(response.body_excerpt, self._secrets)
            return _failed(interpret_response(response, now_s=now_s, quote=quote))
        if error is None:
            return SlackAnswer(result=delivered("posted"), error=None, content=read_content(response))
        reason, is_final = classify_error(error)
        detail = f"Slack answers {quote_answer(error, self._secrets)}"
        return _failed(refuse(reason, detail) if is_final else retry(reason, detail), error)


def _failed(result: DeliveryResult, error: str | None = None) -> SlackAnswer:
    return SlackAnswer(result=result, error=error, content={})
