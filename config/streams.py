"""Configuration: one stream: its events, model, windows, threshold and alerts."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, field_validator, model_validator

from config.cron import check_cron
from config.section import AutoOrCount, AutoOrNames, Int, Number, Section, Text, raise_problems
from config.sources import FileSourceSettings, KafkaSourceSettings, SourceSettings
from config.units import Duration, PositiveDuration, Rate, Size, format_duration, parse_duration

_MIN_LOOK_BACK_WINDOWS = 10


class TimeSettings(Section):
    """Which field of an event is its time, and in which unit."""

    field: Text = Field(description="Name of the field, dotted for nested ones.")
    unit: Literal["auto", "s", "ms", "us", "ns"] = Field(
        default="auto",
        description="Unit of a number since 1970; auto tells by its size. RFC 3339 is always read.",
    )


class EventSettings(Section):
    """How a record becomes an event."""

    format: Literal["json", "float32", "msgpack"] = Field(default="json", description="How records are encoded.")
    features: AutoOrNames = Field(default="auto", description="Names of numeric fields, or auto.")
    time: TimeSettings | None = Field(default=None, description="The event's time; null is the broker's timestamp.")
    key: Text | None = Field(default=None, description="Field to keep as the key; null is the Kafka key.")
    id: Text | None = Field(default=None, description="Field to keep for joins.")
    missing: Literal["reject", "mean"] = Field(default="reject", description="What to do without a feature.")
    max_size: Size = Field(default=2**20, ge=1, description="Larger records are dead letters.")

    @field_validator("features")
    @classmethod
    def _check_feature_names(cls, features: Any) -> Any:
        for name in () if features == "auto" else features:
            if not all(name.split(".")):
                raise ValueError(f"{name!r} has an empty part; write nested names as card.age_days")
        return features

    @model_validator(mode="after")
    def _check_float32_fields(self) -> "EventSettings":
        if self.format == "float32":
            message = "cannot be a field: a float32 record holds features only; leave it out"
            raise_problems((key, message) for key in ("time", "key", "id") if getattr(self, key) is not None)
        return self


class ModelSettings(Section):
    """The density that energies are measured with."""

    kind: Literal["gaussian_mixture", "vaegmm", "aegmm", "class_conditional"] = Field(
        default="gaussian_mixture", description="Kind of detector."
    )
    n_components: AutoOrCount = Field(
        default="auto", description="Components; auto chooses 1 to 8 by held-out likelihood."
    )
    covariance_type: Literal["full", "tied", "diag", "spherical"] = Field(
        default="full", description="Shape of the components' covariances."
    )
    warm_up: Int = Field(default=10_000, ge=10, description="Events to fit on when no model is stored.")
    contamination: Number = Field(default=0.0, ge=0, lt=0.5, description="Share of strange training events.")
    random_state: Int = Field(default=0, ge=0, lt=2**32, description="Seed of everything that is drawn.")


def _default_ahead(data: dict[str, Any]) -> timedelta:
    size: timedelta = data["size"]
    return max(timedelta(minutes=10), 2 * size)


class WindowSettings(Section):
    """How event time is cut into windows, and what a window waits for."""

    size: PositiveDuration = Field(default=timedelta(minutes=1), description="Length of a window.")
    grace: PositiveDuration = Field(default=timedelta(seconds=10), description="Wait for late events.")
    idle_timeout: PositiveDuration = Field(
        default=timedelta(minutes=1), description="A caught-up partition without events waits no longer."
    )
    ahead: PositiveDuration = Field(
        default_factory=_default_ahead, description="Lead of a partition; by default 10m or two windows."
    )
    max_future: Duration = Field(default=timedelta(minutes=5), description="Clock skew allowed.")

    @model_validator(mode="after")
    def _check_ahead(self) -> "WindowSettings":
        if self.ahead < self.size:
            size = format_duration(self.size)
            raise_problems([("ahead", f"must be at least window.size ({size}), else no window fills; try {size}")])
        return self


def _check_percentile(value: object) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = float("nan")
    if 50 < number < 100:
        return number
    shown = f"{number:g}" if number == number else "this"  # noqa: PLR0124 - only nan differs from itself
    if 0.5 < number < 1:
        raise ValueError(f"{shown} is a fraction, percentiles go to 100; did you mean {100 * number:.10g}?")
    hint = "; did you mean 99.9?" if number <= 50 else ", such as 99.5"
    raise ValueError(f"{shown} is no percentile for a limit: it must lie between 50 and 100{hint}")


def _check_refresh(value: object) -> timedelta | str:
    if isinstance(value, str) and len(value.split()) > 1:
        return check_cron(value)
    duration = value
    if isinstance(value, str):
        duration = parse_duration(value)
    if not isinstance(duration, timedelta) or duration <= timedelta():
        raise ValueError("must be a duration above zero, such as 5m, or cron in UTC, such as */5 * * * *")
    return duration


def _check_silence(value: object) -> "timedelta | Literal['auto', 'never']":
    if value == "auto":
        return "auto"
    if value == "never":
        return "never"
    try:
        duration = parse_duration(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"must be auto, never or a duration: {error}") from error
    if not isinstance(duration, timedelta) or duration <= timedelta():
        raise ValueError("must be auto, never or a duration above zero, such as 30m")
    return duration


def _format_value(value: timedelta | str) -> str:
    return value if isinstance(value, str) else format_duration(value)


_TextSerializer = PlainSerializer(_format_value, return_type=str)
_TEXT_SCHEMA = WithJsonSchema({"type": "string"})
Percentile = Annotated[
    float,
    PlainValidator(_check_percentile),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 50, "exclusiveMaximum": 100}),
]
Refresh = Annotated[timedelta | str, PlainValidator(_check_refresh), _TextSerializer, _TEXT_SCHEMA]
SilenceAfter = Annotated[
    timedelta | Literal["auto", "never"], PlainValidator(_check_silence), _TextSerializer, _TEXT_SCHEMA
]


class ThresholdSettings(Section):
    """How the limit of the energy is drawn, and how often."""

    method: Literal["percentile", "pot"] = Field(default="percentile", description="How the limit is drawn.")
    percentile: Percentile = Field(default=99.5, description="Share of normal events below the limit, in percent.")
    look_back: PositiveDuration = Field(default=timedelta(hours=24), description="Event time that a limit looks at.")
    refresh: Refresh = Field(default=timedelta(minutes=5), description="A duration or cron in UTC, on event time.")
    adopt_after: PositiveDuration = Field(
        default=timedelta(hours=24),
        description="An open incident's windows are left out no longer than this.",
    )


def _format_durations(durations: tuple[timedelta, ...]) -> list[str]:
    return [format_duration(duration) for duration in durations]


Horizons = Annotated[tuple[PositiveDuration, ...], PlainSerializer(_format_durations, return_type=list[str])]


class DriftSettings(Section):
    """Over which lengths of time drift is looked for."""

    horizons: Horizons = Field(
        default=(timedelta(minutes=10), timedelta(hours=1), timedelta(days=1)),
        min_length=1,
        description="Lengths of time, short to long.",
    )
    min_effect: Number = Field(default=0.1, ge=0, description="Least effect, in training deviations.")

    @field_validator("horizons")
    @classmethod
    def _check_horizons(cls, horizons: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if any(later <= earlier for earlier, later in pairwise(horizons)):
            raise ValueError("must go from short to long, each one once, such as [10m, 1h, 1d]")
        return horizons


class AlertSettings(Section):
    """When a finding becomes an incident, and when it ends."""

    false_alarms: Rate = Field(default=Rate(count=1.0, unit="week"), description="False alarms that are acceptable.")
    min_outliers: Int = Field(default=5, ge=1, description="Fewer outliers in a window are never a spike.")
    min_ratio: Number = Field(default=0.0, ge=0, le=1, description="Least share of outliers in a spike's window.")
    max_dead_letter_ratio: Number = Field(
        default=0.05, ge=0, le=1, description="A larger share of dead letters in a window is an incident."
    )
    resolve_after: Int = Field(default=3, ge=1, description="Clean windows that end an incident.")
    repeat_interval: PositiveDuration = Field(default=timedelta(hours=4), description="Repeat an open incident.")
    silence_after: SilenceAfter = Field(default="auto", description="Silence that is an incident: auto, never, 30m.")
    drift: DriftSettings = Field(default=DriftSettings(), description="Lasting changes.")


class StreamSettings(Section):
    """One named feed of events."""

    source: SourceSettings = Field(description="Where the events come from.")
    event: EventSettings = Field(default_factory=EventSettings, description="How records are read.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="The model.")
    window: WindowSettings = Field(default_factory=WindowSettings, description="Windows of event time.")
    threshold: ThresholdSettings = Field(default_factory=ThresholdSettings, description="The limit.")
    alerts: AlertSettings = Field(default_factory=AlertSettings, description="Alerts.")

    @model_validator(mode="after")
    def _check_sections(self) -> "StreamSettings":
        raise_problems(self._section_problems())
        return self

    def _section_problems(self) -> Iterator[tuple[str, str]]:
        least = _MIN_LOOK_BACK_WINDOWS * self.window.size
        if self.threshold.look_back < least:
            size = format_duration(self.window.size)
            message = f"must hold at least {_MIN_LOOK_BACK_WINDOWS} windows of {size}; try {format_duration(least)}"
            yield "threshold.look_back", message
        if isinstance(self.source, FileSourceSettings) and self.event.format != "json":
            message = f"{self.event.format} records come from Kafka; leave it out: a file's suffix says its format"
            yield "event.format", message

    @property
    def group_id(self) -> str | None:
        """Return the consumer group; only Kafka sources have one."""
        return self.source.group_id if isinstance(self.source, KafkaSourceSettings) else None
