"""Durations, sizes, rates and times of the settings: parsing, formatting and pydantic types."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from config.time_format import format_time

_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Event times are 64-bit microseconds. With at most two centuries no sum of a time and a duration overflows.
_MAX_DURATION = timedelta(days=200 * 365)
_MAX_YEAR = 2261

_DURATION_UNITS = {
    "y": timedelta(days=365),
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_SIZE_UNITS = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_RATE_UNITS = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=30),
    "year": timedelta(days=365),
}

# Any text may be a ${VARIABLE}, so the JSON Schema must accept it.
_VARIABLE_PATTERN = r"|^.*\$\{.+\}.*$"
_DURATION = re.compile("^" + "".join(rf"(?:(?P<{unit}>[0-9]+){unit})?" for unit in _DURATION_UNITS) + "$")
_DURATION_PATTERN = "^(?=.)" + "".join(f"([0-9]+{unit})?" for unit in _DURATION_UNITS) + "$" + _VARIABLE_PATTERN
_INVALID_DURATION = re.compile(
    r"^\s*([0-9]+)\s*(?:(?P<ms>ms|msecs?|millis|milliseconds?)|(?P<s>s|secs?|seconds?)|(?P<m>m|mins?|minutes?)"
    r"|(?P<h>h|hrs?|hours?)|(?P<d>d|days?)|(?P<w>w|wks?|weeks?)|(?P<y>y|yrs?|years?))\s*$",
    re.IGNORECASE,
)
_SIZE = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)$")
_RATE = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*/\s*([A-Za-z]+)$")
_TIME = re.compile(
    r"^(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(?:([Zz])|([+-]\d{2}:\d{2}))$", re.ASCII
)
_DURATION_FORMS = "write a duration such as 500ms, 10s, 5m, 1h30m, 7d or 1w (units ms, s, m, h, d, w, y)"
_SIZE_FORMS = "write a size such as 512B, 4KiB, 1MiB, 1GiB or 1MB"
_RATE_FORMS = "write a rate such as 1/week, 2/day or 0.5/week (per hour, day, week, month, year)"
_TIME_FORMS = "write a time in RFC 3339 format, such as 2026-01-31T08:00:00Z"


def to_us(duration: timedelta) -> int:
    """Return the duration in whole microseconds, rounded down."""
    return duration // _MICROSECOND


def parse_duration(text: str) -> timedelta:
    """Parse a duration in Prometheus' notation: whole numbers with units, the largest unit first.

    Raises:
        ValueError: The text is not a duration. The message gives the accepted forms.
    """
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        problem = "has no unit" if re.fullmatch(r"[0-9.]+", text) else "is not a duration"
        corrected = _INVALID_DURATION.fullmatch(text)
        hint = f"did you mean {corrected[1]}{corrected.lastgroup}? " if corrected else ""
        raise ValueError(f"{text!r} {problem}; {hint}{_DURATION_FORMS}")
    try:
        total = sum(
            (int(count) * _DURATION_UNITS[unit] for unit, count in match.groupdict().items() if count),
            timedelta(),
        )
    except (OverflowError, ValueError):  # ValueError: more digits than int() reads
        total = timedelta.max
    if total > _MAX_DURATION:
        raise ValueError("the duration is longer than 200 years; write a shorter one, such as 400d")
    return total


def format_duration(duration: timedelta) -> str:
    """Format a duration for settings and commands, so that `parse_duration` accepts it. The resolution is 1 ms.

    `config.time_format.format_rounded_duration` formats durations for prose.
    """
    rest = round(duration / _DURATION_UNITS["ms"])
    sign, rest = ("-", -rest) if rest < 0 else ("", rest)
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _DURATION_UNITS[unit] // _DURATION_UNITS["ms"])
        if count:
            parts.append(f"{count}{unit}")
    return sign + ("".join(parts) or "0s")


def parse_size(text: str) -> int:
    """Parse a size in bytes. KiB, MiB and GiB are powers of 1,024; kB, MB and GB are powers of 1,000.

    Raises:
        ValueError: The text is not a size. The message gives the accepted forms.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        problem = "has no unit" if re.fullmatch(r"[0-9.]+", text) else "is not a size"
        raise ValueError(f"{text!r} {problem}; {_SIZE_FORMS}")
    count, unit = match.groups()
    if unit not in _SIZE_UNITS:
        by_lower = {unit_name.lower(): unit_name for unit_name in _SIZE_UNITS}
        matches = get_close_matches(unit.lower(), by_lower, n=1, cutoff=0.5)
        hint = f" (did you mean {count}{by_lower[matches[0]]}?)" if matches else ""
        raise ValueError(f"{text!r} has an unknown unit {unit!r}{hint}; {_SIZE_FORMS}")
    size = Decimal(count) * _SIZE_UNITS[unit]
    if size != int(size):
        raise ValueError(f"{text!r} is not a whole number of bytes; {_SIZE_FORMS}")
    return int(size)


def format_size(size_bytes: int) -> str:
    """Format a size in the largest binary unit that divides it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A rate: a count per hour, day, week, month (30 days) or year (365 days)."""

    count: float
    unit: str = "week"

    @property
    def per_week(self) -> float:
        """The expected count per week."""
        return self.count * (_RATE_UNITS["week"] / _RATE_UNITS[self.unit])

    def __str__(self) -> str:
        count = int(self.count) if self.count == int(self.count) else self.count
        return f"{count}/{self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the pydantic schema: a rate is parsed from text and serialised as text."""
        return core_schema.no_info_plain_validator_function(
            _validate_rate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        """Return the JSON Schema of the text."""
        pattern = rf"^[0-9]+(\.[0-9]+)?\s*/\s*({'|'.join(_RATE_UNITS)})$" + _VARIABLE_PATTERN
        return {"type": "string", "pattern": pattern, "examples": ["1/week", "2/day"]}


def parse_rate(text: str) -> Rate:
    """Parse a rate: a number greater than zero, a slash and a unit of time.

    Raises:
        ValueError: The text is not a rate. The message gives the accepted forms.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a rate; {_RATE_FORMS}")
    count, unit = match.groups()
    if unit not in _RATE_UNITS:
        matches = get_close_matches(unit, _RATE_UNITS, n=1, cutoff=0.5)
        hint = f" (did you mean {count}/{matches[0]}?)" if matches else ""
        raise ValueError(f"{text!r} has an unknown unit {unit!r}{hint}; {_RATE_FORMS}")
    if not 0 < float(count) < float("inf"):
        raise ValueError(f"{text!r} must be greater than zero: no detector achieves zero false alarms; {_RATE_FORMS}")
    return Rate(count=float(count), unit=unit)


def parse_time(text: str) -> int:
    """Parse an RFC 3339 time to microseconds since 1970 (UTC). Digits below the microsecond are truncated.

    Raises:
        ValueError: The text is not a time, has no offset, or is outside the years 1970 to 2261.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        incomplete = re.fullmatch(r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?", text)
        problem = "has no offset from UTC or no seconds" if incomplete else "is not a time"
        raise ValueError(f"{text!r} {problem}; {_TIME_FORMS}")
    date, clock, fraction, zulu, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if zulu else offset}")
        since_1970 = moment - _EPOCH
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a time: {error}; {_TIME_FORMS}") from error
    time_us = to_us(since_1970) + int((fraction or "0")[:6].ljust(6, "0"))
    if time_us < 0 or moment.year > _MAX_YEAR:
        raise ValueError(f"{text!r} is outside the years 1970 to {_MAX_YEAR}; {_TIME_FORMS}")
    return time_us


def _reject_other_types(value: object, forms: str) -> ValueError:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return ValueError(f"{value} has no unit; {forms}")
    return ValueError(f"this is not a text with a unit; {forms}")


def _validate_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise _reject_other_types(value, _DURATION_FORMS)


def parse_positive_duration(value: object) -> timedelta:
    """Parse a duration above zero.

    Raises:
        ValueError: The value is not a duration, or not above zero.
    """
    duration = _validate_duration(value)
    if duration <= timedelta():
        raise ValueError(f"must be longer than zero; {_DURATION_FORMS}")
    return duration


def _validate_size(value: object) -> int:
    if isinstance(value, str):
        return parse_size(value)
    raise _reject_other_types(value, _SIZE_FORMS)


def _validate_rate(value: object) -> Rate:
    if isinstance(value, Rate):
        return value
    if isinstance(value, str):
        return parse_rate(value)
    raise _reject_other_types(value, _RATE_FORMS)


def _validate_time(value: object) -> int:
    if isinstance(value, str):
        return parse_time(value)
    raise ValueError(f"this is not a time; {_TIME_FORMS}")


DURATION_SCHEMA: dict[str, Any] = {"type": "string", "pattern": _DURATION_PATTERN, "examples": ["10s", "1h30m", "7d"]}
_SIZE_SCHEMA = {
    "type": "string",
    "pattern": rf"^[0-9]+(\.[0-9]+)?\s*({'|'.join(_SIZE_UNITS)})$" + _VARIABLE_PATTERN,
    "examples": ["4KiB", "1GiB"],
}

Duration = Annotated[
    timedelta,
    BeforeValidator(_validate_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(DURATION_SCHEMA),
]
PositiveDuration = Annotated[
    timedelta,
    BeforeValidator(parse_positive_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(DURATION_SCHEMA),
]
Size = Annotated[
    int,
    BeforeValidator(_validate_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema(_SIZE_SCHEMA),
]
Time = Annotated[
    int,
    BeforeValidator(_validate_time),
    PlainSerializer(format_time, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["2026-01-31T08:00:00Z"]}),
]
