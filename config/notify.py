"""Settings of notifications: channels by name, and routes of incidents to them."""

import re
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from config.channels.log import LogChannelSettings
from config.channels.registration import ChannelSettings
from config.heartbeats import HeartbeatSettings
from config.section import Names, Section, raise_problems, split_list
from config.units import PositiveDuration

_CHANNEL_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_-]*$")

IncidentKind = Literal[
    "spike", "slow_rise", "drift", "calibration", "silence", "stopped", "dead_letters", "late", "stalled", "gap"
]
Severity = Literal["warning", "critical"]


class MatchSettings(Section):
    """The incidents of a route: every given key must match. A list matches any of its entries."""

    stream: Names | None = Field(default=None, description="Streams. null: all.")
    kind: Annotated[tuple[IncidentKind, ...], BeforeValidator(split_list)] | None = Field(
        default=None, description="Kinds of incident. null: all."
    )
    severity: Annotated[tuple[Severity, ...], BeforeValidator(split_list)] | None = Field(
        default=None, description="Severities. null: all."
    )

    def matches(self, *, stream: str, kind: str, severity: str) -> bool:
        """Return True if an incident of this stream, kind and severity matches."""
        wanted = ((self.stream, stream), (self.kind, kind), (self.severity, severity))
        return all(accepted is None or value in accepted for accepted, value in wanted)


class RouteSettings(Section):
    """A route of incidents to channels."""

    match: MatchSettings = Field(default=MatchSettings(), description="The incidents of the route.")
    channels: Names = Field(description="The channels of the route.")


class NotifySettings(Section):
    """Notifications of incidents."""

    max_age: PositiveDuration = Field(
        default=timedelta(hours=1),
        description="Incidents with an older event time are stored without a notification.",
    )
    deadline: PositiveDuration = Field(
        default=timedelta(hours=24), description="The time after which a failed message is no longer retried."
    )
    channels: dict[str, ChannelSettings] = Field(default={}, description="Channels by name.")
    routes: tuple[RouteSettings, ...] = Field(
        default=(), description="Routes of incidents to channels. Without routes every incident goes to every channel."
    )
    heartbeats: tuple[HeartbeatSettings, ...] = Field(
        default=(), description="Requests that are sent only while every stream provably makes progress."
    )

    @field_validator("channels")
    @classmethod
    def _check_channel_names(cls, channels: dict[str, ChannelSettings]) -> dict[str, ChannelSettings]:
        for name, channel in channels.items():
            if not _CHANNEL_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a channel name; use letters, digits, _ and -, a letter first")
            if name == "log" and not isinstance(channel, LogChannelSettings):
                raise ValueError("'log' is always the log; give the channel another name")
        return channels

    @model_validator(mode="after")
    def _check_route_channels(self) -> "NotifySettings":
        known = {"log", *self.channels}
        raise_problems(
            (f"routes.{number}.channels", f"there is no channel {name!r}; {suggest_channel(name, self.channels)}")
            for number, route in enumerate(self.routes)
            for name in route.channels
            if name not in known
        )
        return self

    def channels_for(self, *, stream: str, kind: str, severity: str) -> tuple[str, ...]:
        """Return the channels of an incident, each once, sorted by name."""
        if not self.routes:
            return tuple(sorted(self.channels))
        matching = (route for route in self.routes if route.match.matches(stream=stream, kind=kind, severity=severity))
        return tuple(sorted({name for route in matching for name in route.channels}))


def suggest_channel(name: str, channels: Mapping[str, ChannelSettings]) -> str:
    """Return a hint for an unknown channel: the nearest name, or the known channels."""
    matches = get_close_matches(name, [*channels, "log"], n=1, cutoff=0.6)
    return f"did you mean {matches[0]}?" if matches else f"known channels: {', '.join(channels) or 'none'}"
