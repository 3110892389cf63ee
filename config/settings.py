"""All settings, their masked form, and their JSON Schema."""

import re
from collections.abc import Iterator
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from config.channels.log import LogChannelSettings
from config.channels.registration import ChannelSettings
from config.channels.webhook import WebhookChannelSettings
from config.kafka import KafkaSettings
from config.logs import LoggingSettings
from config.masking import MASK, mask_options, mask_url
from config.metrics import MetricsSettings
from config.notify import MatchSettings, NotifySettings, RouteSettings
from config.section import Int, Section, raise_problems
from config.server import AuthProxySettings, ServerSettings, TokenSettings
from config.sources import (
    FileSourceSettings,
    KafkaSourceSettings,
    SourceSettings,
    StartPosition,
    SyntheticSourceSettings,
    parse_start_position,
)
from config.streams import (
    AlertSettings,
    DriftSettings,
    EventSettings,
    ModelSettings,
    StreamSettings,
    ThresholdSettings,
    TimeSettings,
    WindowSettings,
)
from config.units import PositiveDuration, format_duration

__all__ = [
    "AlertSettings",
    "AuthProxySettings",
    "ChannelSettings",
    "DatabaseSettings",
    "DriftSettings",
    "EventSettings",
    "FileSourceSettings",
    "KafkaSettings",
    "KafkaSourceSettings",
    "LogChannelSettings",
    "LoggingSettings",
    "MatchSettings",
    "MetricsSettings",
    "ModelSettings",
    "NotifySettings",
    "RetentionSettings",
    "RouteSettings",
    "ServerSettings",
    "Settings",
    "SourceSettings",
    "StartPosition",
    "StreamSettings",
    "SyntheticSourceSettings",
    "ThresholdSettings",
    "TimeSettings",
    "TokenSettings",
    "WebhookChannelSettings",
    "WindowSettings",
    "config_schema",
    "parse_start_position",
]

_STREAM_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_POSTGRESQL_SCHEME = "postgresql+psycopg"
_SAMPLE_MARGIN = timedelta(days=1)
"""A refit reads its samples some time after the last window that they are of."""

_SCHEMES = ("sqlite", "postgresql", "postgres", _POSTGRESQL_SCHEME)


def _check_database_url(value: object) -> object:
    """Check the address of a database. It may contain a password and is not included in the messages."""
    if not isinstance(value, str):
        return value
    scheme, separator, rest = value.partition("://")
    forms = "write sqlite:///outrider.db or postgresql://user@host/database"
    if not separator or not re.match(r"^[A-Za-z][A-Za-z0-9+.-]*$", scheme):
        raise ValueError(f"is not a database address; {forms}")
    if scheme not in _SCHEMES:
        matches = get_close_matches(scheme.partition("+")[0].lower(), _SCHEMES[:3], n=1, cutoff=0.6)
        hint = f"did you mean {matches[0]}://?" if matches else forms
        raise ValueError(f"is an unknown kind of database, {scheme}://; {hint}")
    if scheme == "sqlite":
        path = rest.removeprefix("/").partition("?")[0]
        if not rest.startswith("/"):
            raise ValueError("has two slashes where sqlite has three; did you mean sqlite:///outrider.db?")
        if path in {"", ":memory:"}:
            raise ValueError(
                "is an in-memory database, which is lost when the process ends; name a file: sqlite:///outrider.db"
            )
    elif not rest.partition("/")[2].partition("?")[0]:
        raise ValueError("has no database name after the host; write postgresql://user@host/database")
    return value


class DatabaseSettings(Section):
    """The database of scores, windows, thresholds and incidents."""

    url: Annotated[str, BeforeValidator(_check_database_url)] = Field(
        default="sqlite:///outrider.db", repr=False, description="sqlite:/// with a path, or postgresql://."
    )
    url_file: Path | None = Field(default=None, description="A file with the address.")

    @property
    def sqlalchemy_url(self) -> str:
        """The address in SQLAlchemy's form, with the installed driver."""
        scheme, separator, rest = self.url.partition("://")
        return (scheme if scheme == "sqlite" else _POSTGRESQL_SCHEME) + separator + rest


class RetentionSettings(Section):
    """The retention of rows, by time of storing; of models, by number."""

    scores: PositiveDuration = Field(default=timedelta(days=7), description="Scores of all events.")
    outliers: PositiveDuration = Field(default=timedelta(days=90), description="Outliers with their features.")
    windows: PositiveDuration = Field(default=timedelta(days=400), description="Judged windows.")
    dead_letters: PositiveDuration = Field(default=timedelta(days=7), description="Dead letters.")
    thresholds: PositiveDuration = Field(
        default=timedelta(days=400),
        description="Superseded threshold rows that no kept window, score or outlier refers to, and calibrations.",
    )
    incidents: PositiveDuration = Field(
        default=timedelta(days=400), description="Resolved incidents with their transitions and notifications."
    )
    notifications: PositiveDuration = Field(
        default=timedelta(days=90), description="Notifications of resolved incidents."
    )
    gaps: PositiveDuration = Field(default=timedelta(days=400), description="Gaps.")
    samples: PositiveDuration = Field(
        default=timedelta(days=28),
        description="Samples of the events of windows, for fits; by event time before the last judged window.",
    )
    rollups: PositiveDuration = Field(
        default=timedelta(days=400), description="Sums of windows over 15 minutes and 6 hours, for charts."
    )
    drift_cells: PositiveDuration = Field(
        default=timedelta(days=90), description="All statistics of each tested drift horizon, for charts."
    )
    models: Int = Field(
        default=20, ge=1, description="Number of retired models, and of candidates, that are kept for each stream."
    )


class Settings(Section):
    """All settings."""

    database: DatabaseSettings = Field(default_factory=DatabaseSettings, description="The database.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="The device that computes energies.")
    kafka: KafkaSettings = Field(default_factory=KafkaSettings, description="The Kafka cluster of the streams.")
    streams: dict[str, StreamSettings] = Field(min_length=1, description="Streams by name.")
    notify: NotifySettings = Field(default_factory=NotifySettings, description="Notifications of incidents.")
    retention: RetentionSettings = Field(default_factory=RetentionSettings, description="The retention of rows.")
    logging: LoggingSettings = Field(default_factory=LoggingSettings, description="The log.")
    metrics: MetricsSettings | None = Field(
        default=None, description="The endpoint of metrics and probes; absent: no endpoint."
    )
    server: ServerSettings | None = Field(
        default=None, description="The server of the API and the page in the daemon; absent: none in the daemon."
    )

    @model_validator(mode="before")
    @classmethod
    def _set_default_groups(cls, data: Any) -> Any:
        streams = data.get("streams") if isinstance(data, dict) else None
        if not isinstance(streams, dict):
            return data
        return data | {"streams": {name: _set_default_group(name, stream) for name, stream in streams.items()}}

    @model_validator(mode="after")
    def _check_streams(self) -> "Settings":
        raise_problems([*self._stream_problems(), *self._shared_group_problems(), *self._route_problems()])
        return self

    def _stream_problems(self) -> Iterator[tuple[str, str]]:
        for name, stream in self.streams.items():
            if not _STREAM_NAME.fullmatch(name):
                yield f"streams.{name}", "is not a stream name; use a-z, 0-9 and _, a letter first"
            look_back = stream.threshold.look_back
            if self.retention.windows < look_back:
                least = f"streams.{name}.threshold.look_back ({format_duration(look_back)})"
                yield "retention.windows", f"must be at least {least}: thresholds are computed from stored windows"
            refit = stream.model.refit
            if refit is not None and self.retention.samples < refit.over + _SAMPLE_MARGIN:
                least = f"streams.{name}.model.refit.over ({format_duration(refit.over)}) and a day"
                yield "retention.samples", f"must be at least {least}: refits read stored samples"

    def _shared_group_problems(self) -> Iterator[tuple[str, str]]:
        readers: dict[tuple[str, str], str] = {}
        for name, stream in self.streams.items():
            source = stream.source
            if not isinstance(source, KafkaSourceSettings):
                continue
            for topic in source.topics:
                other = readers.setdefault((source.group_id, topic), name)
                if other != name:
                    message = (
                        f"streams {other} and {name} read topic {topic!r} in one group, {source.group_id!r}, "
                        "so each would get a part of it; leave group_id out"
                    )
                    yield f"streams.{name}.source.group_id", message

    def _route_problems(self) -> Iterator[tuple[str, str]]:
        for number, route in enumerate(self.notify.routes):
            for stream in route.match.stream or ():
                if stream not in self.streams:
                    matches = get_close_matches(stream, self.streams, n=1)
                    hint = f"did you mean {matches[0]}?" if matches else f"known streams: {', '.join(self.streams)}"
                    yield f"notify.routes.{number}.match.stream", f"there is no stream {stream!r}; {hint}"

    def masked(self) -> dict[str, Any]:
        """Return the effective settings in the form of the file, with secrets masked."""
        shown = self.model_dump(mode="json")
        shown["database"]["url"] = mask_url(self.database.url)
        shown["kafka"]["client"] = mask_options(self.kafka.client)
        for name, channel in self.notify.channels.items():
            shown["notify"]["channels"][name] = channel.masked()
        for own, heartbeat in zip(shown["notify"]["heartbeats"], self.notify.heartbeats, strict=True):
            own["url"] = heartbeat.target
        if self.server is not None:
            shown["server"]["link_secret"] = MASK if self.server.link_secret else ""
            for token in shown["server"]["tokens"]:
                token["token"] = MASK
        return shown


def _set_default_group(name: object, stream: Any) -> Any:
    source = stream.get("source") if isinstance(stream, dict) else None
    if not isinstance(source, dict) or source.get("type") != "kafka" or "group_id" in source:
        return stream
    return stream | {"source": source | {"group_id": f"outrider-{name}"}}


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file."""
    schema = Settings.model_json_schema(mode="validation")
    written = Settings.model_json_schema(mode="serialization")
    for name, section in schema["$defs"].items():
        for key, described in section["properties"].items():
            # The schema for validation has defaults in pydantic's form (PT1M), not in the form of the file.
            if "default" in described:
                described["default"] = written["$defs"][name]["properties"][key]["default"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "Outrider configuration"}
