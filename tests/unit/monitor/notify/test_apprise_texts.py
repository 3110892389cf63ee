"""The Apprise channel against a real HTTP server, by Apprise's own JSON service."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from config.channels.apprise import AppriseChannelSettings
from config.errors import ConfigError
from monitor.notify.apprise_texts import AppriseTexts
from monitor.notify.links import PageLinks
from tests.servers.receiver import HangReaction, RespondReaction, WebhookReceiver
from tests.unit.monitor.notify.messages import make_message

pytest.importorskip("apprise", reason="the extra `apprise` is not installed")
# Apprise imports modules that Python has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


def make_channel(url: str, **settings: Any) -> AppriseTexts:
    given = {"type": "apprise", "url": url} | settings
    return AppriseTexts(AppriseChannelSettings.model_validate(given), PageLinks(server_url="https://o.example"))


def test_message_is_sent_as_a_text_with_its_link(receiver: WebhookReceiver) -> None:
    result = make_channel(f"json://127.0.0.1:{receiver.port}/").send(make_message(summary="a <!channel>\nb"))
    assert (result.outcome, result.detail) == ("delivered", "Apprise reports that it was sent")
    sent = json.loads(receiver.requests[0].body)
    assert (sent["title"], sent["type"]) == ("[warning] spike on payments opened", "warning")
    assert "<!channel>" not in sent["message"]
    assert sent["message"].endswith("https://o.example/incidents/7")


def test_failure_without_a_reason_is_retried_as_unknown(receiver: WebhookReceiver) -> None:
    receiver.react = lambda _: RespondReaction(status=401)
    result = make_channel(f"json://127.0.0.1:{receiver.port}/").send(make_message())
    assert (result.outcome, result.reason) == ("retry", "unknown")


def test_service_that_hangs_is_given_up_at_the_timeout(receiver: WebhookReceiver) -> None:
    receiver.react = lambda _: HangReaction()
    result = make_channel(f"json://127.0.0.1:{receiver.port}/", timeout="300ms").send(make_message())
    assert (result.outcome, result.reason) == ("retry", "timeout")


def test_unknown_service_is_an_error_without_the_address() -> None:
    with pytest.raises(ConfigError, match="address of the service nosuch") as raised:
        make_channel("nosuch://secret-token@host/")
    assert "secret-token" not in str(raised.value)
