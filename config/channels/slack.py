"""Settings of the channel `slack`."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from config.channels.base import ChannelSection
from config.channels.http import RequestTimeout, url_problems
from config.masking import mask_webhook
from config.section import raise_problems


class SlackChannelSettings(ChannelSection):
    """A channel of Slack. With a bot token an incident is one message that is changed; a webhook can only post."""

    secret_keys: ClassVar = ("token", "webhook_url")

    type: Literal["slack"]
    token: str = Field(
        default="", repr=False, description="The token of a bot with the scope chat:write (xoxb-...). Needs `channel`."
    )
    token_file: Path | None = Field(default=None, description="A file with the token.")
    channel: str = Field(default="", description="The channel of Slack, by name (#ops) or by id (C0123456789).")
    webhook_url: str = Field(
        default="", repr=False, description="The URL of an incoming webhook, instead of a token and a channel."
    )
    webhook_url_file: Path | None = Field(default=None, description="A file with the URL of the webhook.")
    api_url: str = Field(
        default="https://slack.com/api",
        description="The address of Slack's Web API; https://slack-gov.com/api for GovSlack.",
    )
    template: str = Field(
        default="",
        description="Jinja2 template of the text of an incident and its changes, in mrkdwn. Empty: the default.",
    )
    timeout: RequestTimeout = Field(
        default=timedelta(seconds=20), description="Timeout of the one or two requests of a message together."
    )

    @model_validator(mode="after")
    def _check_access(self) -> "SlackChannelSettings":
        raise_problems(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from url_problems(self.api_url, "api_url", "is missing")
        if self.webhook_url:
            yield from url_problems(self.webhook_url, "webhook_url", "is missing")
            if self.token or self.channel:
                yield "webhook_url", "is given together with token or channel; leave one of the forms out"
            return
        if not self.token:
            yield "token", "is missing; Slack needs token or token_file with channel, or webhook_url_file"
        elif not self.token.isascii() or not self.token.isprintable() or " " in self.token:
            yield "token", "must be printable ASCII without spaces, since it is sent in a header"
        if not self.channel:
            yield "channel", "is missing; name a channel such as #ops"

    @property
    def target(self) -> str:
        """Return the channel of Slack, or the host of the webhook."""
        return f"Slack {self.channel}" if self.channel else mask_webhook(self.webhook_url)
