"""The Alertmanager channel against real HTTP servers: all of a cluster get each alert, and none delays another."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from config.channels.alertmanager import AlertmanagerChannelSettings
from monitor.notify.alertmanager.channel import Alertmanager
from monitor.notify.links import PageLinks
from storage.control.outbox import Message
from storage.queries.told_incidents import ToldIncident, ToldTransition
from tests.servers.receiver import HangReaction, RespondReaction, WebhookReceiver, refusing_port
from tests.unit.monitor.notify.messages import T0, make_message

MINUTE = 60_000_000


class StatesInMemory:
    """Incidents that the channel was told of, in the order of their ids."""

    def __init__(self, incidents: list[ToldIncident]) -> None:
        self.incidents = incidents

    def transitions_before(self, message: Message) -> list[ToldTransition]:
        found = [each for each in self.incidents if each.incident_id == message.incident_id]
        return list(found[0].transitions) if found else []

    def incidents_after(self, incident_id: int, *, recent_us: int, limit: int) -> tuple[int, list[ToldIncident]]:
        assert recent_us == 5 * MINUTE
        return T0 + MINUTE, [each for each in self.incidents if each.incident_id > incident_id][:limit]


def told_incident(incident_id: int) -> ToldIncident:
    opened = ToldTransition(transition="opened", severity="warning", recorded_at_us=T0, told_at_us=T0)
    return ToldIncident(incident_id=incident_id, transitions=[opened], latest=make_message(incident_id=incident_id))


def make_channel(*urls: str, states: StatesInMemory | None = None, **settings: Any) -> Alertmanager:
    given = {"type": "alertmanager", "urls": list(urls)} | settings
    links = PageLinks(server_url="https://outrider.example")
    return Alertmanager(AlertmanagerChannelSettings.model_validate(given), links, states or StatesInMemory([]))


def address(receiver: WebhookReceiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/base/"


def alerts_of(receiver: WebhookReceiver, number: int = -1) -> list[dict[str, Any]]:
    alerts: list[dict[str, Any]] = json.loads(receiver.requests[number].body)
    return alerts


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


def test_message_is_posted_as_an_alert_with_link_and_without_keys_in_labels(receiver: WebhookReceiver) -> None:
    message = make_message(details={"keys": [{"key": "terminal-7"}]})
    with closing(make_channel(address(receiver), labels={"team": "ops"})) as channel:
        result = channel.send(message)
    assert (result.outcome, result.detail) == ("delivered", "1 of 1 accepted")
    assert receiver.requests[0].line == "POST /base/api/v2/alerts HTTP/1.1"
    (alert,) = alerts_of(receiver)
    assert set(alert["labels"]) == {"alertname", "stream", "kind", "severity", "incident", "team"}
    assert "terminal-7" not in str(alert["labels"])
    assert alert["generatorURL"] == "https://outrider.example/incidents/7"
    assert alert["annotations"]["description"] == "30 outliers among 60 events"
    assert alert["startsAt"] == "2026-01-01T00:00:00.000000Z"
    assert alert["endsAt"] > alert["startsAt"]


def test_escalation_posts_the_end_of_the_former_label_set_first(receiver: WebhookReceiver) -> None:
    with closing(make_channel(address(receiver), states=StatesInMemory([told_incident(7)]))) as channel:
        channel.send(make_message(transition="escalated", severity="critical", created_at_us=T0 + MINUTE))
    former, present = alerts_of(receiver)
    assert (former["labels"]["severity"], former["endsAt"]) == ("warning", "2026-01-01T00:01:00.000000Z")
    assert present["labels"] == former["labels"] | {"severity": "critical"}


def test_event_text_cannot_command_a_chat(receiver: WebhookReceiver) -> None:
    with closing(make_channel(address(receiver))) as channel:
        channel.send(make_message(summary="<!channel> @here\nx"))
    assert not {"<!channel>", "@here", "\n"} & set(alerts_of(receiver)[0]["annotations"]["summary"].split())


def test_all_alertmanagers_get_the_alert_while_one_hangs_and_one_is_away(receiver: WebhookReceiver) -> None:
    with ExitStack() as stack:
        hanging, last = stack.enter_context(WebhookReceiver()), stack.enter_context(WebhookReceiver())
        port = stack.enter_context(refusing_port())
        hanging.react = lambda _: HangReaction()
        urls = [address(hanging), f"http://127.0.0.1:{port}", address(receiver), address(last)]
        channel = stack.enter_context(closing(make_channel(*urls, timeout="1s")))
        begin_s = time.monotonic()
        result = channel.send(make_message())
        assert [len(each.requests) for each in (receiver, last)] == [1, 1]
        assert max(each.requests[0].at_s for each in (receiver, last)) - begin_s < 0.5
    assert (result.outcome, result.reason) == ("delivered", None)
    assert result.detail.startswith("2 of 4 accepted; ")
    assert "Connection refused" in result.detail


@pytest.mark.parametrize(
    ("status", "outcome", "reason"),
    [
        (400, "refused", "client_error"),
        (401, "refused", "auth"),
        (429, "retry", "rate_limited"),
        (500, "retry", "server_error"),
    ],
)
def test_message_that_none_accepts_has_the_reason(
    receiver: WebhookReceiver, status: int, outcome: str, reason: str
) -> None:
    receiver.react = lambda _: RespondReaction(status=status, headers={"Retry-After": "9"})
    with closing(make_channel(address(receiver))) as channel:
        result = channel.send(make_message())
    assert (result.outcome, result.reason) == (outcome, reason)
    assert result.retry_after_s == (9 if outcome == "retry" else None)


def test_refusal_of_one_is_final_only_if_all_refuse(receiver: WebhookReceiver) -> None:
    receiver.react = lambda _: RespondReaction(status=401)
    with refusing_port() as port, closing(make_channel(address(receiver), f"http://127.0.0.1:{port}")) as channel:
        assert channel.send(make_message()).outcome == "retry"


def test_open_incidents_are_repeated_in_bounded_batches(receiver: WebhookReceiver) -> None:
    states = StatesInMemory([told_incident(number) for number in range(1, 251)])
    with closing(make_channel(address(receiver), states=states)) as channel:
        assert channel.repeat(lambda: True) == []
    batches = [alerts_of(receiver, number) for number in range(len(receiver.requests))]
    assert [len(batch) for batch in batches] == [100, 100, 50]
    assert {alert["endsAt"] for batch in batches for alert in batch} == {"2026-01-01T00:05:00.000000Z"}
    assert len({alert["labels"]["incident"] for batch in batches for alert in batch}) == 250


def test_repetition_ends_when_another_daemon_has_the_lease(receiver: WebhookReceiver) -> None:
    states = StatesInMemory([told_incident(number) for number in range(1, 251)])
    with closing(make_channel(address(receiver), states=states)) as channel:
        answers = iter([True, False])
        channel.repeat(lambda: next(answers))
    assert len(receiver.requests) == 1


def test_repetition_reports_the_attempts_that_failed(receiver: WebhookReceiver) -> None:
    states = StatesInMemory([told_incident(1)])
    with refusing_port() as port:
        channel = make_channel(address(receiver), f"http://127.0.0.1:{port}", states=states)
        with closing(channel):
            assert [each.reason for each in channel.repeat(lambda: True)] == ["connection"]


def test_nothing_is_posted_without_incidents(receiver: WebhookReceiver) -> None:
    with closing(make_channel(address(receiver))) as channel:
        assert channel.repeat(lambda: True) == []
    assert receiver.requests == []
