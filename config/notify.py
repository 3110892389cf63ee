"""Configuration: whom to tell about incidents, and by which way."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from config.section import Names, Section, raise_problems, split_list
from config.units import PositiveDuration

_CHANNEL = re.compile(r"^[A-Za-z][A-Za-z0-9_-]*$")

IncidentKind = Literal["spike", "slow_rise", "drift", "calibration", "silence", "dead_letters", "gap"]
Severity = Literal["warning", "critical"]


class LogChannel(Section):
    """Writes each notification to the log."""

    type: Literal["log"]


class WebhookChannel(Section):
    """Posts each notification to an address."""

    type: Literal["webhook"]
    url: str = Field(default="", repr=False, description="Where to post.")
    url_file: Path | None = Field(default=None, description="A file that holds the address.")

    @model_validator(mode="after")
    def _address_is_one(self) -> "WebhookChannel":
        # The address itself is a secret: it is not repeated.
        if not self.url:
            raise_problems([("url", "is missing; a webhook needs url or url_file")])
        elif not re.match(r"^https?://[^/\s]+", self.url):
            raise_problems([("url", "must be an http:// or https:// address")])
        return self


ChannelSettings = Annotated[LogChannel | WebhookChannel, Field(discriminator="type")]


class MatchSettings(Section):
    """What a route takes: each key given must match; a list matches any of its entries."""

    stream: Names | None = Field(default=None, description="Streams; null is every one.")
    kind: Annotated[tuple[IncidentKind, ...], BeforeValidator(split_list)] | None = Field(
        default=None, description="Kinds of incident; null is every one."
    )
    severity: Annotated[tuple[Severity, ...], BeforeValidator(split_list)] | None = Field(
        default=None, description="Severities; null is every one."
    )

    def takes(self, *, stream: str, kind: str, severity: str) -> bool:
        """Return whether an incident of this stream, kind and severity matches."""
        wanted = ((self.stream, stream), (self.kind, kind), (self.severity, severity))
        return all(accepted is None or value in accepted for accepted, value in wanted)


class RouteSettings(Section):
    """Which incidents go to which channels."""

    match: MatchSettings = Field(default=MatchSettings(), description="What the route takes.")
    channels: Names = Field(description="Channels that are told.")


class NotifySettings(Section):
    """Whom to tell about incidents."""

    max_age: PositiveDuration = Field(
        default=timedelta(hours=1),
        description="An incident of older event time is stored, and nobody is told.",
    )
    channels: dict[str, ChannelSettings] = Field(default={}, description="Channels by name.")
    routes: tuple[RouteSettings, ...] = Field(
        default=(), description="Which incidents go where; none sends everything to every channel."
    )

    @field_validator("channels")
    @classmethod
    def _names_are_plain(cls, channels: dict[str, ChannelSettings]) -> dict[str, ChannelSettings]:
        for name in channels:
            if not _CHANNEL.fullmatch(name):
                raise ValueError(f"{name!r} is no channel name; use letters, digits, _ and -, a letter first")
        return channels

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> "NotifySettings":
        known = ", ".join(self.channels) or "none"
        raise_problems(
            (f"routes.{number}.channels", f"there is no channel {name!r}; known channels: {known}")
            for number, route in enumerate(self.routes)
            for name in route.channels
            if name not in self.channels
        )
        return self

    def channels_for(self, *, stream: str, kind: str, severity: str) -> tuple[str, ...]:
        """Return the channels that are told of such an incident, each once, in the order of their names."""
        if not self.routes:
            return tuple(sorted(self.channels))
        taken = (route for route in self.routes if route.match.takes(stream=stream, kind=kind, severity=severity))
        return tuple(sorted({name for route in taken for name in route.channels}))
