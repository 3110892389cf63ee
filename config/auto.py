"""Settings that are `auto`: the first model of a stream finds their values.

Until then such a setting has its default as value, so that all code can use it as a number. It is written and stored
as `auto`; the value that was found is stored beside it with the prefix `resolved.` and is valid in all processes.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema

from config.sizing import DEFAULT_WARM_UP, choose_ahead
from config.units import DURATION_SCHEMA, format_duration, parse_positive_duration

AUTO = "auto"

RESOLVED = "resolved."
"""Prefix of the stored keys with the values that the first model found for settings that are `auto`."""

DEFAULT_WINDOW = timedelta(minutes=1)

AUTO_KEYS = ("window.size", "threshold.percentile", "threshold.look_back", "model.warm_up")
"""The keys of a stream with a value that follows the rate of its events."""


class AutoDuration(timedelta):
    """A duration that is `auto`."""


class AutoPercentile(float):
    """A percentile that is `auto`."""


class AutoCount(int):
    """A whole number that is `auto`."""


def is_auto(value: object) -> bool:
    """Return whether the value of a setting is `auto` and has not been found yet."""
    return isinstance(value, AutoDuration | AutoPercentile | AutoCount)


def _format_duration(value: timedelta) -> str:
    return AUTO if is_auto(value) else format_duration(value)


def _parse_duration_or(default: timedelta) -> Callable[[object], timedelta]:
    def parse(value: object) -> timedelta:
        return AutoDuration(seconds=default.total_seconds()) if value == AUTO else parse_positive_duration(value)

    return parse


def _parse_ahead(value: object, info: ValidationInfo) -> timedelta:
    if value != AUTO:
        return parse_positive_duration(value)
    return default_ahead(info.data)


def default_ahead(values: dict[str, Any]) -> timedelta:
    """Return the lead for the window among the values: two windows or 10 minutes; `auto` if the window is."""
    size: timedelta = values.get("size", DEFAULT_WINDOW)
    ahead = choose_ahead(size)
    return AutoDuration(seconds=ahead.total_seconds()) if is_auto(size) else ahead


def parse_count_or_auto(value: object) -> int:
    """Parse a number of training events, or `auto`.

    Raises:
        ValueError: The value is neither `auto` nor a whole number from 10 on.
    """
    if value == AUTO:
        return AutoCount(DEFAULT_WARM_UP)
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text[:18]) < 10:
        raise ValueError("must be auto or a whole number from 10 on")
    return int(text)


def auto_or_percentile(check: Callable[[object], float]) -> Callable[[object], float]:
    """Return a parser of a percentile, or of `auto`."""

    def parse(value: object) -> float:
        return AutoPercentile(99.5) if value == AUTO else check(value)

    return parse


def _or_auto(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"const": AUTO}, schema]})


_DURATION_OR_AUTO = (PlainSerializer(_format_duration, return_type=str), _or_auto(DURATION_SCHEMA))
# Without an annotation pydantic does not compare the value with a type.
NUMBER_OR_AUTO = PlainSerializer(lambda value: AUTO if is_auto(value) else value)

AutoWindowSize = Annotated[timedelta, PlainValidator(_parse_duration_or(DEFAULT_WINDOW)), *_DURATION_OR_AUTO]
AutoLookBack = Annotated[timedelta, PlainValidator(_parse_duration_or(timedelta(hours=24))), *_DURATION_OR_AUTO]
AutoAhead = Annotated[timedelta, PlainValidator(_parse_ahead), *_DURATION_OR_AUTO]
AutoWarmUp = Annotated[
    int, PlainValidator(parse_count_or_auto), NUMBER_OR_AUTO, _or_auto({"type": "integer", "minimum": 10})
]
