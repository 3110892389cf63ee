"""Settings of the heartbeats, which a receiver misses when a stream no longer makes progress."""

from datetime import timedelta
from pathlib import Path

from pydantic import Field, model_validator

from config.channels.http import url_problems
from config.masking import mask_webhook
from config.section import Section, raise_problems
from config.units import PositiveDuration


class HeartbeatSettings(Section):
    """A request that is sent at an interval, only while every stream of the process provably makes progress."""

    url: str = Field(default="", repr=False, description="The URL to post to, http:// or https://.")
    url_file: Path | None = Field(default=None, description="A file with the URL.")
    every: PositiveDuration = Field(default=timedelta(minutes=1), description="The interval of the requests.")

    @model_validator(mode="after")
    def _check_url(self) -> "HeartbeatSettings":
        raise_problems(url_problems(self.url, "url", "is missing; a heartbeat needs url or url_file"))
        return self

    @property
    def target(self) -> str:
        """Return the scheme and the host of the receiver."""
        return mask_webhook(self.url)
