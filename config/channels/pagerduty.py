"""Settings of the channel `pagerduty`."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from config.channels.base import ChannelSection
from config.channels.http import RequestTimeout, url_problems
from config.masking import mask_webhook
from config.section import raise_problems


class PagerDutyChannelSettings(ChannelSection):
    """A channel that triggers, acknowledges and resolves incidents in PagerDuty (Events API v2)."""

    secret_keys: ClassVar = ("routing_key",)

    type: Literal["pagerduty"]
    routing_key: str = Field(default="", repr=False, description="The integration key of a service (Events API v2).")
    routing_key_file: Path | None = Field(default=None, description="A file with the integration key.")
    url: str = Field(
        default="https://events.pagerduty.com/v2/enqueue",
        description="The address of the API; in the EU https://events.eu.pagerduty.com/v2/enqueue.",
    )
    timeout: RequestTimeout = Field(default=timedelta(seconds=10), description="Timeout of one whole request.")
    template: str = Field(default="", description="Jinja2 template of the summary. Empty: the default.")

    @model_validator(mode="after")
    def _check_channel(self) -> "PagerDutyChannelSettings":
        raise_problems(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        if not self.routing_key:
            yield "routing_key", "is missing; pagerduty needs routing_key or routing_key_file"
        yield from url_problems(self.url, "url", "must not be empty")

    @property
    def target(self) -> str:
        """Return the scheme and the host of the API."""
        return mask_webhook(self.url)
