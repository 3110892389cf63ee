"""Settings of a stream's source, and the start position of a source without a stored position."""

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
FILE_FORMATS: dict[str, Literal["jsonl", "csv", "parquet"]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
"""The format of a file by its suffix in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPosition:
    """A start position: an end of the log, a duration before now, or a time.

    `us` is the duration ("ago") or the time since 1970 ("at") in microseconds.
    """

    kind: Literal["earliest", "latest", "ago", "at"]
    us: int = 0

    def resolve(self, now_us: int) -> Literal["earliest", "latest"] | int:
        """Return the end of the log, or the time in microseconds since 1970, relative to `now_us`."""
        if self.kind == "ago":
            return max(0, now_us - self.us)
        return self.us if self.kind == "at" else self.kind

    def __str__(self) -> str:
        if self.kind == "ago":
            return f"{format_duration(timedelta(microseconds=self.us))} ago"
        return format_time(self.us) if self.kind == "at" else self.kind


EARLIEST = StartPosition(kind="earliest")


def parse_start_position(text: str) -> StartPosition:
    """Parse a start position: earliest, latest, a duration before now, or an RFC 3339 time.

    Raises:
        ValueError: The text has none of these forms.
    """
    if text in {"earliest", "latest"}:
        return StartPosition(kind="earliest" if text == "earliest" else "latest")
    forms = "write earliest, latest, a duration (24h ago) or a time (2026-01-31T08:00:00Z)"
    try:
        if re.match(r"^\d{4}-", text):
            return StartPosition(kind="at", us=parse_time(text))
        return StartPosition(kind="ago", us=to_us(parse_duration(re.sub(r"\s+ago$", "", text))))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a start position: {forms}") from error


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
    """A source of topics of the Kafka cluster in the section `kafka`."""

    type: Literal["kafka"]
    topics: Names = Field(description="The topics of the stream.")
    group_id: Text = Field(
        default="outrider",
        description="The consumer group. Default: outrider-<stream>.",
        json_schema_extra=_remove_default,
    )
    start: StartField = Field(default=EARLIEST, description="The start position if no position is stored.")

    @field_validator("topics")
    @classmethod
    def _check_topic_names(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        for topic in topics:
            if not _TOPIC_NAME.fullmatch(topic) or topic in {".", ".."}:
                raise ValueError(f"{topic!r} is not a topic name; Kafka allows letters, digits, dots, _ and -")
        return topics

    @property
    def initial_position(self) -> StartPosition:
        """The start position of a partition without a stored position."""
        return self.start


class FileSourceSettings(Section):
    """A source of one file, with the format given by its suffix, or of standard input."""

    type: Literal["file"]
    path: Path = Field(description='A .jsonl, .ndjson, .json (one object a line), .csv, .tsv or .parquet file, or "-".')

    @field_validator("path")
    @classmethod
    def _check_suffix(cls, path: Path) -> Path:
        if str(path) != "-" and path.suffix.lower() not in FILE_FORMATS:
            raise ValueError(
                f"the suffix of {str(path)!r} is not a known format; use {', '.join(FILE_FORMATS)}, "
                "or - for JSON lines on standard input"
            )
        return path

    @property
    def file_format(self) -> Literal["jsonl", "csv", "parquet"]:
        """The format of the file."""
        return "jsonl" if self.is_stdin else FILE_FORMATS[self.path.suffix.lower()]

    @property
    def is_stdin(self) -> bool:
        """True if the source is standard input."""
        return str(self.path) == "-"

    @property
    def initial_position(self) -> StartPosition:
        """The start position of a file without a stored position."""
        return EARLIEST


class SyntheticSourceSettings(Section):
    """A source of generated events with bursts of outliers and an optional lasting drift."""

    type: Literal["synthetic"]
    seed: Int = Field(default=1, ge=0, description="The seed of the generator. Equal seeds give equal events.")
    rate: Number = Field(default=500.0, gt=0, description="Events per second of event time.")
    events: Int | None = Field(default=None, ge=1, description="The total number of events. null: unlimited.")
    speed: Number = Field(default=1.0, ge=0, description="Seconds of event time per second. 0: unpaced.")
    start: Time | None = Field(default=None, description="Event time of the first event (RFC 3339). null: now.")
    features: Int = Field(default=4, ge=1, le=1000, description="The number of features.")
    partitions: Int = Field(default=1, ge=1, le=1000, description="The number of partitions.")
    first_burst: Duration = Field(default=timedelta(minutes=10), description="Time from the start to the first burst.")
    burst_every: PositiveDuration = Field(
        default=timedelta(minutes=30), description="Time between the starts of consecutive bursts."
    )
    burst_length: PositiveDuration = Field(default=timedelta(minutes=1), description="Duration of a burst.")
    burst_share: Number = Field(default=0.1, ge=0, le=1, description="Share of outliers in a burst. 0: no bursts.")
    drift_after: Duration | None = Field(default=None, description="Time from the start to the drift. null: no drift.")
    drift_shift: Number = Field(default=0.5, description="Shift of the drift in standard deviations.")

    @model_validator(mode="after")
    def _check_bursts(self) -> "SyntheticSourceSettings":
        if self.burst_length >= self.burst_every:
            raise_problems([("burst_length", "must be shorter than burst_every, else one burst runs into the next")])
        return self

    @property
    def initial_position(self) -> StartPosition:
        """The start position of generated events without a stored position."""
        return EARLIEST


SourceSettings = Annotated[
    KafkaSourceSettings | FileSourceSettings | SyntheticSourceSettings, Field(discriminator="type")
]
