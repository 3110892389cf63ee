"""The Slack channel against a real HTTP server that answers like Slack."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from config.channels.slack import SlackChannelSettings
from config.errors import StorageUnavailable
from monitor.notify.channel import Channel
from monitor.notify.delivery import FailureReason
from monitor.notify.links import PageLinks
from monitor.notify.slack.channel import build_slack
from monitor.notify.slack.posted import PostedInMemory
from storage.control.posted_messages import PostedMessage
from tests.servers.receiver import HangReaction, RespondReaction, WebhookReceiver, refusing_port
from tests.servers.slack import CHANNEL_ID, TOKEN, SlackWorkspace, refuse
from tests.unit.monitor.notify.messages import make_message

LINKS = PageLinks(server_url="https://outrider.example")
OPENED = make_message()
ESCALATED = make_message(id="2", transition="escalated", severity="critical", summary="more outliers")
RESOLVED = make_message(id="3", transition="resolved", summary="5 clean windows")


@pytest.fixture
def workspace() -> Iterator[SlackWorkspace]:
    with WebhookReceiver() as receiver:
        yield SlackWorkspace(receiver)


def make_bot(workspace: SlackWorkspace, posted: Any = None, **settings: Any) -> Channel:
    values = {"type": "slack", "token": TOKEN, "channel": "#ops", "api_url": workspace.api_url, "timeout": "3s"}
    made = SlackChannelSettings.model_validate(values | settings)
    return build_slack(made, LINKS, posted or PostedInMemory())


def test_an_incident_is_one_message_that_changes_and_its_changes_are_in_its_thread(workspace: SlackWorkspace) -> None:
    bot = make_bot(workspace)
    assert [bot.send(each).outcome for each in (OPENED, ESCALATED)] == ["delivered", "delivered"]
    assert workspace.calls == ["chat.postMessage", "chat.update", "chat.postMessage"]
    ((ts, message),) = workspace.messages.items()
    assert "open, more severe" in json.dumps(message)
    assert "<https://outrider.example/incidents/7|Incident 7>" in json.dumps(message)
    (reply,) = workspace.replies
    assert (reply["thread_ts"], reply["reply_broadcast"]) == (ts, True)
    assert "more outliers" in json.dumps(reply)


def test_a_resolution_changes_the_message_and_is_told_in_the_thread_only(workspace: SlackWorkspace) -> None:
    bot = make_bot(workspace)
    bot.send(OPENED)
    assert bot.send(RESOLVED).outcome == "delivered"
    assert ":white_check_mark:" in json.dumps(list(workspace.messages.values()))
    assert workspace.replies[0]["reply_broadcast"] is False


def test_incidents_have_messages_of_their_own(workspace: SlackWorkspace) -> None:
    bot = make_bot(workspace)
    for number in (7, 8):
        bot.send(make_message(id=f"n{number}", incident_id=number))
    assert len(workspace.messages) == 2


def test_a_delivery_that_was_recorded_is_not_repeated(workspace: SlackWorkspace) -> None:
    posted = PostedInMemory()
    for message in (OPENED, ESCALATED):
        make_bot(workspace, posted).send(message)
        before = len(workspace.calls)
        # Killed before the outbox has recorded the delivery: a new process sends the message again.
        assert make_bot(workspace, posted).send(message).outcome == "delivered"
        assert len(workspace.calls) == before


def test_a_message_that_was_deleted_is_posted_again(workspace: SlackWorkspace) -> None:
    bot = make_bot(workspace)
    bot.send(OPENED)
    workspace.messages.clear()
    assert bot.send(RESOLVED).outcome == "delivered"
    assert len(workspace.messages) == 1
    assert bot.send(make_message(id="4", transition="reopened")).outcome == "delivered"
    assert len(workspace.messages) == 1


def test_another_channel_in_the_settings_gets_a_message_of_its_own(workspace: SlackWorkspace) -> None:
    posted = PostedInMemory()
    make_bot(workspace, posted).send(OPENED)
    make_bot(workspace, posted, channel=CHANNEL_ID).send(RESOLVED)
    assert len(workspace.messages) == 2


class UnavailableOnce(PostedInMemory):
    """A record whose database does not answer once after each message."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 1

    def record(self, channel: str, incident_id: int, posted: PostedMessage) -> None:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("away")
        super().record(channel, incident_id, posted)


def test_a_message_that_could_not_be_recorded_is_not_posted_twice(workspace: SlackWorkspace) -> None:
    bot = make_bot(workspace, UnavailableOnce())
    assert bot.send(OPENED).outcome == "retry"
    assert bot.send(OPENED).outcome == "delivered"
    assert len(workspace.messages) == 1
    assert workspace.calls == ["chat.postMessage"]


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        ("invalid_auth", "refused", "auth"),
        ("token_revoked", "refused", "auth"),
        ("missing_scope", "refused", "auth"),
        ("not_in_channel", "refused", "client_error"),
        ("invalid_blocks", "refused", "client_error"),
        ("internal_error", "retry", "server_error"),
        ("an_error_of_the_future", "retry", "server_error"),
        ("ratelimited", "retry", "rate_limited"),
    ],
)
def test_an_answer_that_is_not_ok_has_a_reason(
    workspace: SlackWorkspace, error: str, outcome: str, reason: str
) -> None:
    workspace.answers = [refuse(error)]
    result = make_bot(workspace).send(OPENED)
    assert (result.outcome, result.reason) == (outcome, reason)
    assert TOKEN not in result.detail


@pytest.mark.parametrize(
    ("status", "outcome", "reason"),
    [
        (500, "retry", "server_error"),
        (503, "retry", "server_error"),
        (401, "refused", "auth"),
        (404, "refused", "client_error"),
    ],
)
def test_a_status_of_http_has_a_reason(workspace: SlackWorkspace, status: int, outcome: str, reason: str) -> None:
    workspace.answers = [RespondReaction(status=status, body=f"{TOKEN} <html>".encode())]
    result = make_bot(workspace).send(OPENED)
    assert (result.outcome, result.reason) == (outcome, reason)
    assert TOKEN not in result.detail


def test_retry_after_holds_back_the_whole_channel(workspace: SlackWorkspace) -> None:
    workspace.answers = [RespondReaction(status=429, headers={"Retry-After": "30"})]
    bot = make_bot(workspace)
    first = bot.send(OPENED)
    assert (first.outcome, first.reason, first.retry_after_s) == ("retry", FailureReason.RATE_LIMITED, 30)
    second = bot.send(make_message(id="8", incident_id=8))
    assert (second.outcome, second.reason) == ("retry", FailureReason.RATE_LIMITED)
    assert second.retry_after_s == pytest.approx(30, abs=2)
    assert len(workspace.calls) == 1, "no request is sent before the time"


def test_messages_are_sent_at_the_rate_of_slack(workspace: SlackWorkspace) -> None:
    bot, started_s = make_bot(workspace), time.monotonic()
    for number in range(4):
        assert bot.send(make_message(id=str(number), incident_id=number + 1)).outcome == "delivered"
    assert time.monotonic() - started_s >= 0.9, "after a burst of three the fourth waits a second"


def test_a_server_that_hangs_or_is_away_is_tried_again(workspace: SlackWorkspace) -> None:
    workspace.answers = [HangReaction()]
    started_s = time.monotonic()
    result = make_bot(workspace, timeout="500ms").send(OPENED)
    assert (result.outcome, result.reason) == ("retry", FailureReason.TIMEOUT)
    assert time.monotonic() - started_s < 2
    with refusing_port() as port:
        result = make_bot(workspace, api_url=f"http://127.0.0.1:{port}/api").send(OPENED)
    assert (result.outcome, result.reason) == ("retry", FailureReason.CONNECTION)


def make_webhook(receiver: WebhookReceiver) -> Channel:
    url = f"http://127.0.0.1:{receiver.port}/services/T0/B0/hidden"
    return build_slack(SlackChannelSettings(type="slack", webhook_url=url, timeout="2s"), LINKS, PostedInMemory())


def test_a_webhook_posts_each_transition() -> None:
    with WebhookReceiver() as receiver:
        receiver.react = lambda _: RespondReaction(status=200, body=b"ok")
        channel = make_webhook(receiver)
        assert [channel.send(each).outcome for each in (OPENED, RESOLVED)] == ["delivered", "delivered"]
        bodies = [json.loads(request.body) for request in receiver.requests]
    assert [key for key in ("text", "blocks") if key in bodies[0]] == ["text", "blocks"]
    assert "resolved" in bodies[1]["text"]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (403, b"invalid_token", "auth"),
        (404, b"no_service", "client_error"),
        (410, b"channel_is_archived", "client_error"),
    ],
)
def test_a_webhook_that_slack_refuses_is_given_up_without_its_address(status: int, body: bytes, reason: str) -> None:
    with WebhookReceiver() as receiver:
        receiver.react = lambda request: RespondReaction(status=status, body=body + request.line.encode())
        result = make_webhook(receiver).send(OPENED)
    assert (result.outcome, result.reason) == ("refused", reason)
    assert body.decode() in result.detail
    assert "hidden" not in result.detail


def test_a_test_message_is_marked(workspace: SlackWorkspace) -> None:
    bot = make_bot(workspace)
    test = replace(OPENED, test=True, incident_id=0, kind="test", stream="test")
    assert bot.send(test).outcome == "delivered"
    assert bot.send(replace(test, id="t2", transition="resolved")).outcome == "delivered"
    assert len(workspace.messages) == 1
    assert "Test message" in json.dumps(list(workspace.messages.values()))


def test_template_replaces_the_text_and_its_values_are_escaped(workspace: SlackWorkspace) -> None:
    bot = make_bot(workspace, template="*{{ stream }}* <https://runbook.example|runbook>\n{{ summary }}")
    bot.send(make_message(summary="<!channel> & more"))
    (opened,) = [section_of(each) for each in workspace.messages.values()]
    bot.send(RESOLVED)
    (change,) = [section_of(each) for each in workspace.replies]
    assert opened == "*payments* <https://runbook.example|runbook>\n&lt;!channel&gt; &amp; more"
    assert "*resolved*" in change
    assert change.endswith("*payments* <https://runbook.example|runbook>\n5 clean windows")


def test_template_that_fails_sends_the_built_in_text_and_is_reported(workspace: SlackWorkspace) -> None:
    failures: list[str] = []
    settings = SlackChannelSettings(
        type="slack", token=TOKEN, channel="#ops", api_url=workspace.api_url, template="{{ details.nothing }}"
    )
    bot = build_slack(settings, LINKS, PostedInMemory(), failures.append)
    assert bot.send(OPENED).outcome == "delivered"
    assert "30 outliers among 60 events" in str(workspace.messages)
    assert failures == ["UndefinedError: 'dict object' has no attribute 'nothing'"]


def section_of(message: dict[str, Any]) -> str:
    """Return the text of the only section of a message."""
    (section,) = [block for block in message["blocks"] if block["type"] == "section"]
    return str(section["text"]["text"])
