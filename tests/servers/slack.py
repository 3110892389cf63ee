"""A server that answers like Slack's Web API and its incoming webhooks: a workspace in memory."""

import itertools
import json
from collections.abc import Callable
from typing import Any

from tests.servers.receiver import Reaction, ReceivedRequest, RespondReaction, WebhookReceiver

TOKEN = "xoxb-not-a-real-token"
CHANNEL_ID = "C0000000001"


class SlackWorkspace:
    """The messages of a channel `#ops`, changed by the requests of a receiver.

    `answers` are reactions that are used up before the workspace answers itself.
    """

    def __init__(self, receiver: WebhookReceiver) -> None:
        self._receiver = receiver
        self._numbers = itertools.count(1)
        self.messages: dict[str, dict[str, Any]] = {}
        self.replies: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.answers: list[Reaction] = []
        self.before_answer: Callable[[str], None] = lambda method: None
        receiver.react = self._react

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._receiver.port}/api"

    def _react(self, request: ReceivedRequest) -> Reaction:
        method = request.line.split()[1].rpartition("/")[2]
        self.calls.append(method)
        if self.answers:
            return self.answers.pop(0)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return refuse("invalid_auth")
        content = json.loads(request.body)
        answer = self._post(content) if method == "chat.postMessage" else self._update(content)
        self.before_answer(method)
        return answer

    def _post(self, content: dict[str, Any]) -> Reaction:
        if content["channel"] not in {"#ops", CHANNEL_ID}:
            return refuse("channel_not_found")
        if len(content["blocks"]) > 50:
            return refuse("invalid_blocks")
        ts = f"1700000000.{next(self._numbers):06}"
        if "thread_ts" in content:
            if content["thread_ts"] not in self.messages:
                return refuse("thread_not_found")
            self.replies.append(content)
        else:
            self.messages[ts] = content
        return accept({"channel": CHANNEL_ID, "ts": ts, "message": {"text": "x" * 5_000}})

    def _update(self, content: dict[str, Any]) -> Reaction:
        # Unlike chat.postMessage it takes the id of a channel only.
        if content["channel"] != CHANNEL_ID:
            return refuse("channel_not_found")
        if content["ts"] not in self.messages:
            return refuse("message_not_found")
        self.messages[content["ts"]] |= content
        return accept({"channel": CHANNEL_ID, "ts": content["ts"], "text": content["text"]})


def accept(content: dict[str, Any]) -> RespondReaction:
    return RespondReaction(status=200, body=json.dumps({"ok": True} | content).encode())


def refuse(error: str) -> RespondReaction:
    return RespondReaction(status=200, body=json.dumps({"ok": False, "error": error}).encode())
