"""The PagerDuty channel against a real HTTP server: one key per incident, and the action of each transition."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from config.channels.pagerduty import PagerDutyChannelSettings
from monitor.notify.links import PageLinks
from monitor.notify.pagerduty import PagerDuty
from tests.servers.receiver import HangReaction, RespondReaction, WebhookReceiver
from tests.unit.monitor.notify.messages import make_message

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        running.react = lambda _: RespondReaction(status=202, body=b'{"status":"success"}')
        yield running


def make_channel(receiver: WebhookReceiver, server_url: str | None = None, **settings: Any) -> PagerDuty:
    given = {"type": "pagerduty", "routing_key": KEY, "url": receiver.url} | settings
    links = PageLinks(server_url=server_url)
    return PagerDuty(PagerDutyChannelSettings.model_validate(given), links, lambda: "5f0c")


def events_of(receiver: WebhookReceiver) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in receiver.requests]


def test_all_transitions_of_an_incident_have_one_key(receiver: WebhookReceiver) -> None:
    channel = make_channel(receiver)
    life = ("opened", "escalated", "repeated", "acknowledged", "resolved", "reopened")
    for transition in life:
        assert channel.send(make_message(transition=transition)).outcome == "delivered"
    events = events_of(receiver)
    assert [each["event_action"] for each in events] == [
        *("trigger", "trigger", "trigger"),
        *("acknowledge", "resolve", "trigger"),
    ]
    assert {each["dedup_key"] for each in events} == {"outrider/5f0c/7"}
    assert {each["routing_key"] for each in events} == {KEY}


def test_trigger_has_facts_details_and_links(receiver: WebhookReceiver) -> None:
    message = make_message(severity="critical", details={"p_value": float("nan"), "outliers": 30})
    make_channel(receiver, "https://outrider.example").send(message)
    (event,) = events_of(receiver)
    payload = event["payload"]
    assert payload["summary"] == "[critical] spike on payments opened: 30 outliers among 60 events"
    assert (payload["source"], payload["severity"], payload["class"]) == ("payments", "critical", "spike")
    assert payload["timestamp"] == "2026-01-01T00:01:00.000000Z"
    assert payload["custom_details"]["details"] == {"p_value": None, "outliers": 30}
    assert event["client_url"] == "https://outrider.example/incidents/7"
    assert [each["text"] for each in event["links"]] == ["Incident", "Stream"]


def test_large_details_are_left_out_and_the_summary_is_cut(receiver: WebhookReceiver) -> None:
    message = make_message(summary="x" * 5_000, details={"rows": ["y" * 1_000] * 600, "outliers": 3})
    assert make_channel(receiver).send(message).outcome == "delivered"
    (event,) = events_of(receiver)
    assert event["payload"]["custom_details"]["details"] == {"rows": "(left out: too large)", "outliers": 3}
    assert len(event["payload"]["summary"]) == 1_024


@pytest.mark.parametrize(
    ("status", "outcome", "reason"),
    [
        (400, "refused", "client_error"),
        (401, "refused", "auth"),
        (403, "refused", "auth"),
        (429, "retry", "rate_limited"),
        (500, "retry", "server_error"),
        (503, "retry", "server_error"),
    ],
)
def test_answer_decides_on_another_attempt(receiver: WebhookReceiver, status: int, outcome: str, reason: str) -> None:
    receiver.react = lambda _: RespondReaction(status=status, headers={"Retry-After": "30"}, body=KEY.encode())
    result = make_channel(receiver).send(make_message())
    assert (result.outcome, result.reason) == (outcome, reason)
    assert result.retry_after_s == (30 if outcome == "retry" else None)
    assert KEY not in result.detail


def test_hanging_service_is_given_up_at_the_timeout(receiver: WebhookReceiver) -> None:
    receiver.react = lambda _: HangReaction()
    result = make_channel(receiver, timeout="300ms").send(make_message())
    assert (result.outcome, result.reason) == ("retry", "timeout")


def test_template_replaces_the_summary(receiver: WebhookReceiver) -> None:
    make_channel(receiver, template="{{ kind }} of {{ stream }}").send(make_message())
    assert events_of(receiver)[0]["payload"]["summary"] == "spike of payments"
