"""Settings of the channel `webhook`."""

from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from config.channels.base import ChannelSection
from config.channels.http import RequestTimeout, header_problems, url_problems
from config.masking import mask_webhook
from config.section import Int, raise_problems


class WebhookChannelSettings(ChannelSection):
    """A channel that posts each notification to a URL as JSON."""

    secret_keys: ClassVar = ("url", "secret")
    secret_mappings: ClassVar = ("headers",)

    type: Literal["webhook"]
    url: str = Field(default="", repr=False, description="The URL to post to, http:// or https://.")
    url_file: Path | None = Field(default=None, description="A file with the URL.")
    secret: str = Field(
        default="",
        repr=False,
        description="The secret that signs each request (HMAC-SHA256). Empty: requests are not signed.",
    )
    secret_file: Path | None = Field(default=None, description="A file with the secret.")
    headers: dict[str, str] = Field(
        default={}, repr=False, description="Additional headers. NAME_file: PATH reads the value of NAME from a file."
    )
    timeout: RequestTimeout = Field(default=timedelta(seconds=10), description="Timeout of one whole request.")
    concurrency: Int = Field(default=4, ge=1, le=32, description="The maximum number of simultaneous requests.")

    @model_validator(mode="after")
    def _check_request(self) -> "WebhookChannelSettings":
        missing = "is missing; a webhook needs url or url_file"
        raise_problems([*url_problems(self.url, "url", missing), *header_problems(self.headers)])
        return self

    @property
    def target(self) -> str:
        """Return the scheme and the host of the receiver."""
        return mask_webhook(self.url)
