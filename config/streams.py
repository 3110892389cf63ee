"""Settings of one stream: events, model, windows, threshold and alerts."""

import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from config.auto import (
    AUTO,
    NUMBER_OR_AUTO,
    AutoAhead,
    AutoLookBack,
    AutoWarmUp,
    AutoWindowSize,
    auto_or_percentile,
    default_ahead,
    is_auto,
)
from config.cron import check_cron
from config.local_time import check_time_zone
from config.section import AutoOrCount, AutoOrNames, Int, NoneAutoOrNames, Number, Section, Text, raise_problems
from config.sizing import MIN_LOOK_BACK_WINDOWS
from config.sources import FileSourceSettings, KafkaSourceSettings, SourceSettings
from config.units import Duration, PositiveDuration, Rate, Size, format_duration, parse_duration

_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")


class TimeSettings(Section):
    """The time field of an event and its unit."""

    field: Text = Field(description="Name of the field, dotted for nested fields.")
    unit: Literal["auto", "s", "ms", "us", "ns"] = Field(
        default="auto",
        description="Unit of a number since 1970. auto: by its magnitude. ISO 8601 is always accepted.",
    )


class EventSettings(Section):
    """The decoding of records to events."""

    format: Literal["json", "float32", "msgpack"] = Field(default="json", description="The encoding of records.")
    features: AutoOrNames = Field(default="auto", description="Names of numeric fields, or auto.")
    time: TimeSettings | None = Field(default=None, description="The event's time. null: the broker's timestamp.")
    key: Text | None = Field(default=None, description="The field stored as the key. null: the Kafka key.")
    id: Text | None = Field(default=None, description="The field stored as the event id, for joins.")
    derive: NoneAutoOrNames = Field(
        default="none",
        description="Fields with features derived from earlier events of a key: none, auto (all fields if the events "
        "of a key arrive regularly), or names.",
    )
    missing: Literal["reject", "mean"] = Field(
        default="reject", description="The treatment of events with a missing feature."
    )
    max_size: Size = Field(
        default=2**20, ge=1, description="The maximum size of a record. Larger records are dead letters."
    )

    @field_validator("features")
    @classmethod
    def _check_feature_names(cls, features: Any) -> Any:
        for name in () if features == "auto" else features:
            if not all(name.split(".")):
                raise ValueError(f"{name!r} has an empty part; write nested names as card.age_days")
            if _UNSTORABLE.search(name):
                raise ValueError(f"{name!r} has a NUL character or half a surrogate pair; databases cannot store it")
        return features

    @model_validator(mode="after")
    def _check_derived_fields(self) -> "EventSettings":
        if isinstance(self.derive, tuple) and isinstance(self.features, tuple):
            unknown = [name for name in self.derive if name not in self.features]
            message = f"{', '.join(unknown)}: not among event.features; add it there, or leave it out"
            raise_problems([("derive", message)] if unknown else [])
        return self

    @model_validator(mode="after")
    def _check_float32_fields(self) -> "EventSettings":
        if self.format == "float32":
            message = "cannot be a field: a float32 record contains only features; leave it out"
            raise_problems((key, message) for key in ("time", "key", "id") if getattr(self, key) is not None)
        return self


class RefitSettings(Section):
    """The repeated fit of a model that follows its stream."""

    every: PositiveDuration = Field(
        default=timedelta(days=1), description="Time between two fits, in event time; they are due at its multiples."
    )
    over: PositiveDuration = Field(
        default=timedelta(days=14), description="The event time before a fit whose samples it uses."
    )

    @model_validator(mode="after")
    def _check_over(self) -> "RefitSettings":
        if self.over < self.every:
            every = format_duration(self.every)
            raise_problems([("over", f"must be at least model.refit.every ({every}), else events are left out")])
        return self


class ModelSettings(Section):
    """The density model that computes energies."""

    kind: Literal["gaussian_mixture", "vaegmm", "aegmm", "class_conditional"] = Field(
        default="gaussian_mixture", description="The kind of detector."
    )
    n_components: AutoOrCount = Field(
        default="auto", description="The number of components. auto: 1 to 8, chosen by held-out likelihood."
    )
    covariance_type: Literal["full", "tied", "diag", "spherical"] = Field(
        default="full", description="The form of the components' covariances."
    )
    warm_up: AutoWarmUp = Field(
        default=10_000,
        description="The number of training events if no model is stored. auto: by the number and rate of the events.",
    )
    contamination: Number = Field(default=0.0, ge=0, lt=0.5, description="The share of anomalous training events.")
    random_state: Int = Field(default=0, ge=0, lt=2**32, description="The seed of all random numbers.")
    refit: RefitSettings | None = Field(
        default=None, description="Fits on samples of recent windows. null: the model stays as it is."
    )


class WindowSettings(Section):
    """The windows of event time and their waiting times."""

    size: AutoWindowSize = Field(
        default=timedelta(minutes=1),
        description="The length of a window. auto: the shortest with 12 events at the median hour.",
    )
    grace: PositiveDuration = Field(
        default=timedelta(seconds=10), description="The waiting time of a window for late events."
    )
    idle_timeout: PositiveDuration = Field(
        default=timedelta(minutes=1),
        description="A caught-up partition without events holds windows open no longer than this.",
    )
    ahead: AutoAhead = Field(
        default_factory=default_ahead,
        description="The maximum lead of a partition in event time. Default: auto, 10m or two windows.",
    )
    max_future: Duration = Field(
        default=timedelta(minutes=5),
        description="The accepted clock skew: the unconfirmed lead of an event time over watermark and timestamp.",
    )

    @model_validator(mode="after")
    def _check_ahead(self) -> "WindowSettings":
        if self.ahead < self.size and not is_auto(self.size):
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
    number_text = f"{number:g}" if number == number else "this"  # noqa: PLR0124 - only nan differs from itself
    if 0.5 < number < 1:
        raise ValueError(f"{number_text} is a fraction, percentiles go to 100; did you mean {100 * number:.10g}?")
    hint = "; did you mean 99.9?" if number <= 50 else ", such as 99.5"
    raise ValueError(f"{number_text} is not a percentile for a threshold: it must be between 50 and 100{hint}")


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
    PlainValidator(auto_or_percentile(_check_percentile)),
    NUMBER_OR_AUTO,
    WithJsonSchema({"anyOf": [{"const": AUTO}, {"type": "number", "exclusiveMinimum": 50, "exclusiveMaximum": 100}]}),
]
Refresh = Annotated[timedelta | str, PlainValidator(_check_refresh), _TextSerializer, _TEXT_SCHEMA]
SilenceAfter = Annotated[
    timedelta | Literal["auto", "never"], PlainValidator(_check_silence), _TextSerializer, _TEXT_SCHEMA
]


class ThresholdSettings(Section):
    """The energy threshold and its schedule."""

    method: Literal["percentile", "pot"] = Field(
        default="percentile", description="The method that computes the threshold."
    )
    percentile: Percentile = Field(
        default=99.5,
        description="The share of normal events below the threshold, in percent. auto: the highest of 99.5, 99, 98 and "
        "95 with 50 events above it in the look-back.",
    )
    season: Literal["none", "auto", "hour_of_day", "hour_of_week"] = Field(
        default="none",
        description="The course of the outlier rate over the hours, in timezone, learned from up to 28 days.",
    )
    look_back: AutoLookBack = Field(
        default=timedelta(hours=24),
        description="The span of event time that a threshold is computed from. auto: 24h, or longer for 330 windows "
        "and 50 events above the percentile.",
    )
    refresh: Refresh = Field(
        default=timedelta(minutes=5),
        description="The schedule of thresholds: a duration or cron in UTC, on event time.",
    )
    adopt_after: PositiveDuration = Field(
        default=timedelta(hours=24),
        description="The windows of an open incident are excluded from the look-back no longer than this.",
    )


TimeZone = Annotated[Text, BeforeValidator(check_time_zone)]


def _format_durations(durations: tuple[timedelta, ...]) -> list[str]:
    return [format_duration(duration) for duration in durations]


Horizons = Annotated[tuple[PositiveDuration, ...], PlainSerializer(_format_durations, return_type=list[str])]


class DriftSettings(Section):
    """The detection of drift."""

    horizons: Horizons = Field(
        default=(timedelta(minutes=10), timedelta(hours=1), timedelta(days=1)),
        min_length=1,
        description="The horizons of the drift tests, from short to long; days or weeks where there is a season.",
    )
    min_effect: Number = Field(
        default=0.1, ge=0, description="The smallest effect that is a drift, in training standard deviations."
    )

    @field_validator("horizons")
    @classmethod
    def _check_horizons(cls, horizons: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if any(later <= earlier for earlier, later in pairwise(horizons)):
            raise ValueError("must go from short to long, each one once, such as [10m, 1h, 1d]")
        return horizons


class AlertSettings(Section):
    """The conditions that open, repeat and resolve incidents."""

    false_alarms: Rate = Field(default=Rate(count=1.0, unit="week"), description="The false-alarm budget.")
    min_outliers: Int = Field(
        default=5,
        ge=1,
        description="The smallest number of outliers in a spike's window. One event far above all others needs none.",
    )
    min_ratio: Number = Field(
        default=0.0, ge=0, le=1, description="The smallest share of outliers in a spike's window."
    )
    max_dead_letter_ratio: Number = Field(
        default=0.05,
        ge=0,
        le=1,
        description="The share of dead letters in a window that opens an incident if significantly exceeded (1%).",
    )
    max_late_ratio: Number = Field(
        default=0.05,
        ge=0,
        le=1,
        description="The share of late events in a window that opens an incident if significantly exceeded (1%).",
    )
    stalled_after: PositiveDuration = Field(
        default=timedelta(minutes=5),
        description="The time without progress of a partition with records after which an incident opens.",
    )
    resolve_after: Int = Field(default=3, ge=1, description="The number of clean windows that resolve an incident.")
    repeat_interval: PositiveDuration = Field(
        default=timedelta(hours=4), description="The interval of repeated notifications of an open incident."
    )
    reopen_within: Duration = Field(
        default=timedelta(minutes=30),
        description="The time after a resolution in which a finding opens the same incident again; 0s: never.",
    )
    silence_after: SilenceAfter = Field(
        default="auto", description="The allowed silence before an incident opens: auto, never, or a duration."
    )
    drift: DriftSettings = Field(default=DriftSettings(), description="The horizons and the smallest effect of drift.")


class StreamSettings(Section):
    """One named stream of events."""

    source: SourceSettings = Field(description="The source of the events.")
    timezone: TimeZone = Field(
        default="UTC",
        description="The IANA time zone of the stream's times of day: pauses of silence, daily course of drift.",
    )
    event: EventSettings = Field(default_factory=EventSettings, description="The decoding of records.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="The model.")
    window: WindowSettings = Field(default_factory=WindowSettings, description="Windows of event time.")
    threshold: ThresholdSettings = Field(default_factory=ThresholdSettings, description="The energy threshold.")
    alerts: AlertSettings = Field(default_factory=AlertSettings, description="Incidents and the false-alarm budget.")

    @model_validator(mode="after")
    def _check_sections(self) -> "StreamSettings":
        raise_problems(self._section_problems())
        return self

    def _section_problems(self) -> Iterator[tuple[str, str]]:
        minimum = MIN_LOOK_BACK_WINDOWS * self.window.size
        is_found = is_auto(self.window.size) or is_auto(self.threshold.look_back)
        if self.threshold.look_back < minimum and not is_found:
            size = format_duration(self.window.size)
            message = f"must hold at least {MIN_LOOK_BACK_WINDOWS} windows of {size}; try {format_duration(minimum)}"
            yield "threshold.look_back", message
        refit, is_size_found = self.model.refit, is_auto(self.window.size)
        if refit is not None and refit.every < self.window.size and not is_size_found:
            size = format_duration(self.window.size)
            yield "model.refit.every", f"must be at least window.size ({size}): a fit follows the end of a window"
        if self.model.refit is not None and self.model.kind == "class_conditional":
            yield "model.refit", "needs a kind without labels: samples of windows have none; leave it out"
        if isinstance(self.source, FileSourceSettings) and self.event.format != "json":
            message = f"{self.event.format} records come from Kafka; leave it out: a file's suffix says its format"
            yield "event.format", message

    @property
    def group_id(self) -> str | None:
        """The consumer group of a Kafka source, None for other sources."""
        return self.source.group_id if isinstance(self.source, KafkaSourceSettings) else None
