"""Configuration: where a stream's events come from, and where a source without a stored position begins."""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, field_validator, model_validator

from config.section import Int, Names, Number, Section, Text, raise_problems
from config.time_format import format_time
from config.units import (
    Duration,
    PositiveDuration,
    Time,
    format_duration,
    parse_duration,
    parse_time,
    to_us,
)

_TOPIC_NAME = re.compile(r"^[A-Za-z0-9._-]{1,249}$")
_LAYOUTS: dict[str, Literal["jsonl", "csv", "parquet"]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPosition:
    """Where reading begins: at an end of the log, a while before now, or at a time."""

    kind: Literal["earliest", "latest", "ago", "at"]
    us: int = 0

    def resolve(self, now_us: int) -> Literal["earliest", "latest"] | int:
        """Return the end of the log, or the time in microseconds, that is meant at `now_us`."""
        if self.kind == "ago":
            return max(0, now_us - self.us)
        return self.us if self.kind == "at" else self.kind

    def __str__(self) -> str:
        if self.kind == "ago":
            return f"{format_duration(timedelta(microseconds=self.us))} ago"
        return format_time(self.us) if self.kind == "at" else self.kind


EARLIEST = StartPosition(kind="earliest")


def parse_start_position(text: str) -> StartPosition:
    """Read where to begin: earliest, latest, a duration before now, or an RFC 3339 time.

    Raises:
        ValueError: The text is none of these.
    """
    if text in {"earliest", "latest"}:
        return StartPosition(kind="earliest" if text == "earliest" else "latest")
    forms = "write earliest, latest, a duration (24h ago) or a time (2026-01-31T08:00:00Z)"
    try:
        if re.match(r"^\d{4}-", text):
            return StartPosition(kind="at", us=parse_time(text))
        return StartPosition(kind="ago", us=to_us(parse_duration(re.sub(r"\s+ago$", "", text))))
    except ValueError as error:
        raise ValueError(f"{text!r} is no place to start: {forms}") from error


def _validate_start(value: object) -> StartPosition:
    if isinstance(value, StartPosition):
        return value
    return parse_start_position(value if isinstance(value, str) else repr(value))


StartField = Annotated[
    StartPosition,
    PlainValidator(_validate_start),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["earliest", "latest", "24h ago", "2026-01-31T08:00:00Z"]}),
]


def _remove_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


class KafkaSourceSettings(Section):
    """Events come from topics of the Kafka cluster named under `kafka`."""

    type: Literal["kafka"]
    topics: Names = Field(description="Topics that feed this stream.")
    group_id: Text = Field(
        default="outrider",
        description="Consumer group; outrider-<stream> when not given.",
        json_schema_extra=_remove_default,
    )
    start: StartField = Field(default=EARLIEST, description="Where to begin when no position is stored.")

    @field_validator("topics")
    @classmethod
    def _check_topic_names(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        for topic in topics:
            if not _TOPIC_NAME.fullmatch(topic) or topic in {".", ".."}:
                raise ValueError(f"{topic!r} is no topic name; Kafka allows letters, digits, dots, _ and -")
        return topics

    @property
    def initial_position(self) -> StartPosition:
        """Return where a partition without a stored position begins."""
        return self.start


class FileSourceSettings(Section):
    """Events come from one file, whose suffix says its format, or from standard input."""

    type: Literal["file"]
    path: Path = Field(description='A .jsonl, .ndjson, .json (one object a line), .csv or .parquet file, or "-".')

    @field_validator("path")
    @classmethod
    def _check_suffix(cls, path: Path) -> Path:
        if str(path) != "-" and path.suffix.lower() not in _LAYOUTS:
            raise ValueError(
                f"the suffix of {str(path)!r} names no format; use {', '.join(_LAYOUTS)}, "
                "or - for JSON lines on standard input"
            )
        return path

    @property
    def file_format(self) -> Literal["jsonl", "csv", "parquet"]:
        """Return how the file is laid out."""
        return "jsonl" if self.is_stdin else _LAYOUTS[self.path.suffix.lower()]

    @property
    def is_stdin(self) -> bool:
        """Return whether the events come from standard input."""
        return str(self.path) == "-"

    @property
    def initial_position(self) -> StartPosition:
        """Return where a file without a stored position begins."""
        return EARLIEST


class SyntheticSourceSettings(Section):
    """Events are made from a seed, with bursts of outliers and, if asked for, a lasting drift."""

    type: Literal["synthetic"]
    seed: Int = Field(default=1, ge=0, description="The same seed makes the same events.")
    rate: Number = Field(default=500.0, gt=0, description="Events in a second of event time.")
    events: Int | None = Field(default=None, ge=1, description="How many in all; null is without end.")
    speed: Number = Field(default=1.0, ge=0, description="Seconds of event time in a second; 0 is unpaced.")
    start: Time | None = Field(default=None, description="Event time of the first event (RFC 3339); null is now.")
    features: Int = Field(default=4, ge=1, le=1000, description="Numeric features of an event.")
    partitions: Int = Field(default=1, ge=1, le=1000, description="Partitions that the events are dealt to.")
    first_burst: Duration = Field(default=timedelta(minutes=10), description="From the start to the first burst.")
    burst_every: PositiveDuration = Field(
        default=timedelta(minutes=30), description="From one burst's begin to the next one's."
    )
    burst_length: PositiveDuration = Field(default=timedelta(minutes=1), description="How long a burst lasts.")
    burst_share: Number = Field(default=0.1, ge=0, le=1, description="Share of outliers inside a burst; 0 is none.")
    drift_after: Duration | None = Field(default=None, description="From the start to the drift; null is never.")
    drift_shift: Number = Field(default=0.5, description="How far the drift moves, in standard deviations.")

    @model_validator(mode="after")
    def _check_bursts(self) -> "SyntheticSourceSettings":
        if self.burst_length >= self.burst_every:
            raise_problems([("burst_length", "must be shorter than burst_every, else one burst runs into the next")])
        return self

    @property
    def initial_position(self) -> StartPosition:
        """Return where made events without a stored position begin."""
        return EARLIEST


SourceSettings = Annotated[
    KafkaSourceSettings | FileSourceSettings | SyntheticSourceSettings, Field(discriminator="type")
]
