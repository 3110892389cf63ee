"""The settings of the channels `slack` and `email`."""

from typing import Any

import pytest
from pydantic import ValidationError

from config.channels.email import EmailChannelSettings
from config.channels.slack import SlackChannelSettings

BOT = {"type": "slack", "token": "xoxb-1", "channel": "#ops"}
MAIL = {"type": "email", "server": "smtp://mail.example.org", "from": "a@example.org", "to": ["b@example.org"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": ""}, "token: is missing"),
        ({"channel": ""}, "channel: is missing"),
        ({"token": "two words"}, "token: must be printable"),
        ({"webhook_url": "https://hooks.example/x"}, "webhook_url: is given together"),
        ({"api_url": "slack.com"}, "api_url: must be"),
        ({"timeout": "1h"}, "must be at most"),
    ],
)
def test_an_incomplete_slack_channel_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SlackChannelSettings.model_validate(BOT | change)


def test_the_secrets_of_slack_are_masked() -> None:
    assert SlackChannelSettings.model_validate(BOT).masked()["token"] == "***"
    webhook = SlackChannelSettings(type="slack", webhook_url="https://hooks.slack.com/services/T/B/x")
    assert webhook.target == webhook.masked()["webhook_url"] == "https://hooks.slack.com/***"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"server": "mail.example.org"}, "server: must be smtp://"),
        ({"server": "smtp://user:secret@mail.example.org"}, "server: must be smtp://"),
        ({"tls": "none"}, "tls: none is possible for a server on this machine only"),
        ({"username": "u"}, "password: is missing"),
        ({"password": "p"}, "username: is missing"),
        ({"from": "a@example.org\r\nBcc: c@example.org"}, "from: is not an address"),
        ({"from": "no address"}, "from: is not an address"),
        ({"to": ["b@example.org\nBcc: c@example.org"]}, "is not an address"),
        ({"to": ["B <b@example.org>"]}, "is not an address"),
        ({"to": []}, "at least one entry"),
    ],
)
def test_a_mail_channel_that_cannot_work_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EmailChannelSettings.model_validate(MAIL | change)


@pytest.mark.parametrize(("tls", "port"), [("starttls", 587), ("implicit", 465), ("none", 25)])
def test_the_port_follows_from_tls(tls: str, port: int) -> None:
    settings = EmailChannelSettings.model_validate(MAIL | {"tls": tls, "server": "smtp://localhost"})
    assert (settings.host, settings.port) == ("localhost", port)
    given = EmailChannelSettings.model_validate(MAIL | {"tls": tls, "server": "smtp://localhost:2525"})
    assert given.port == 2525


def test_the_masked_settings_have_the_form_of_the_file() -> None:
    settings = EmailChannelSettings.model_validate(
        MAIL | {"username": "u", "password": "p", "from": "A <a@example.org>"}
    )
    assert settings.masked()["from"] == "A <a@example.org>"
    assert settings.masked()["password"] == "***"
    assert "'p'" not in repr(settings)
