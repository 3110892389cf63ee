"""Settings of the channel `apprise`."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from config.channels.base import ChannelSection
from config.channels.http import RequestTimeout
from config.masking import MASK
from config.section import raise_problems

_OWN_CHANNEL = "type: pagerduty"
_NEEDS_RESOLUTION: Mapping[str, str] = {
    "pagerduty": _OWN_CHANNEL,
    **dict.fromkeys(
        ("opsgenie", "jira", "splunk", "victorops", "squadcast", "spike", "incidentio", "signl4", "pagertree"),
        "type: alertmanager or a webhook",
    ),
    **dict.fromkeys(("goalert", "goalerts"), "a webhook"),
}
"""Services whose incidents stay open until they are resolved by a key, which Apprise does not send; the alternative."""


class AppriseChannelSettings(ChannelSection):
    """A channel that sends texts by Apprise (the extra `apprise`). It cannot resolve an alert."""

    secret_keys: ClassVar = ("url",)

    type: Literal["apprise"]
    url: str = Field(default="", repr=False, description="The address in Apprise's form, such as ntfys://ntfy.sh/ops.")
    url_file: Path | None = Field(default=None, description="A file with the address.")
    timeout: RequestTimeout = Field(default=timedelta(seconds=30), description="Timeout of one attempt.")
    template: str = Field(default="", description="Jinja2 template of the text. Empty: the default.")

    @model_validator(mode="after")
    def _check_channel(self) -> "AppriseChannelSettings":
        raise_problems(self._problems())
        return self

    def _problems(self) -> Iterator[tuple[str, str]]:
        scheme, separator, rest = self.url.partition("://")
        if not self.url:
            yield "url", "is missing; apprise needs url or url_file"
        elif not separator or not rest:
            yield "url", "must be an address in Apprise's form, SERVICE://..."
        elif (alternative := _NEEDS_RESOLUTION.get(scheme.lower())) is not None:
            yield "url", f"Apprise cannot resolve an incident of {scheme.lower()}; use {alternative}"

    @property
    def target(self) -> str:
        """Return the service."""
        return f"{self.url.partition('://')[0]}://{MASK}"
