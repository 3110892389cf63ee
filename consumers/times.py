"""Parsing of event times to microseconds since 1970 (UTC)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from consumers.batch import Int64, Mask
from consumers.time_texts import MAX_TEXT_CHARS, to_iso8601

TimeUnit = Literal["auto", "s", "ms", "us", "ns"]

END_OF_TIME_US = 9_214_646_400_000_000
"""The start of 2262. Accepted times are 1970 to 2261, a range that 64-bit nanoseconds can also represent."""

NO_TIME = int(np.iinfo(np.int64).min)
BAD_TIME = NO_TIME + 1

SCALES = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
"""Microseconds per unit as a fraction (numerator, denominator)."""

MAGNITUDES = ((1e11, "s"), (1e14, "ms"), (1e17, "us"), (math.inf, "ns"))
"""Upper bounds of the magnitude per unit, to guess the unit of an epoch.

The guess is right from March 1973 on, and for nanoseconds from October 1992 on (`MIN_GUESSED_NS`).
"""

MIN_GUESSED_NS = 720_000_000_000_000_000
"""The smallest number that is guessed to be nanoseconds (October 1992).

Ticks of .NET (100 ns since the year 1, from 6.2e17 for 1970) and of Windows files (100 ns since 1601, about 1.3e17) lie
below it: read as nanoseconds, they would be times of 1990 and of 1974, with differences a hundred times too small.
"""

_DATE_EXTENDED = r"(\d{4})([-/])(\d\d)\2(\d\d)"
_OFFSET = r"\s?([Zz]|[+-]\d\d(?::?\d\d)?)?"
ISO8601_EXTENDED = re.compile(
    _DATE_EXTENDED + r"(?:[Tt ](\d\d)(?::(\d\d)(?::(\d\d)(?:[.,](\d{1,18}))?)?)?" + _OFFSET + r")?", re.ASCII
)
ISO8601_BASIC = re.compile(
    r"(\d{4})()(\d\d)(\d\d)[Tt ](\d\d)(?:(\d\d)(?:(\d\d)(?:[.,](\d{1,18}))?)?)?" + _OFFSET, re.ASCII
)
YEAR, MONTH, DAY, HOUR, MINUTE, SECOND, FRACTION, OFFSET = 1, 3, 4, 5, 6, 7, 8, 9
"""The groups of both layouts."""

COMPACT_RANGE = (19_700_101_000_000, 22_611_231_235_959)
"""The range of numbers of 14 digits that are read as YYYYMMDDhhmmss. As epochs in milliseconds they are after 2261."""
NUMBER = re.compile(r"\s*[+-]?(\d{1,30})(\.\d{0,30})?([eE][+-]?\d{1,3})?\s*", re.ASCII)
DAYS_IN_MONTH = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def times_us(values: Sequence[object] | NDArray[np.generic], unit: TimeUnit) -> Int64:
    """Return each time in microseconds since 1970, NO_TIME for a missing and BAD_TIME for an invalid time.

    Accepted are ISO 8601 texts and the other forms of `consumers.time_texts`, and epochs as integers, floats or
    numeric strings. A text without an offset is UTC, a date without a time is its midnight, and digits below the
    microsecond are truncated. With the unit "auto", the magnitude of the number determines the unit (see MAGNITUDES
    and MIN_GUESSED_NS), and an integer of 14 digits may be YYYYMMDDhhmmss. Integers are exact. A float of seconds is
    exact to the microsecond until 2242. Times outside 1970 to 2261 are invalid.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "M":
            return _from_datetime64(values)
        if values.dtype.kind in "iu" and values.dtype != np.uint64:
            return _from_integers(values.astype(np.int64), unit)
        if values.dtype.kind == "f":
            return _from_floats(values.astype(np.float64), unit)
        return times_us(values.tolist(), unit)
    kinds = list(map(type, values))
    present = set(kinds)
    if len(present) == 1:
        return _parse_one_type(values, present.pop(), unit)
    result = np.empty(len(values), np.int64)
    for kind in present:
        rows = [i for i, other in enumerate(kinds) if other is kind]
        result[rows] = _parse_one_type([values[i] for i in rows], kind, unit)
    return result


def _parse_one_type(values: Sequence[object], kind: type, unit: TimeUnit) -> Int64:
    if kind is str:
        return _from_strings(values, unit)  # type: ignore[arg-type]
    if kind is float:
        return _from_floats(np.array(values, np.float64), unit)
    if kind is int:
        try:
            return _from_integers(np.array(values, np.int64), unit)
        except OverflowError:
            pass
    return np.array([time_us(value, unit) for value in values], np.int64)


def time_us(value: object, unit: TimeUnit) -> int:
    """Return one time in microseconds, or NO_TIME or BAD_TIME: the scalar equivalent of `times_us`."""
    if value is None or value == "":
        return NO_TIME
    if isinstance(value, datetime):
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value
        return _in_range((moment - EPOCH) // MICROSECOND)
    if isinstance(value, str):
        return _from_string(value, unit)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(_from_integers(np.array([value], np.int64), unit)[0]) if abs(value) < 2**63 else BAD_TIME
    if isinstance(value, float):
        return int(_from_floats(np.array([value]), unit)[0])
    return BAD_TIME


def _in_range(moment_us: int) -> int:
    return moment_us if 0 <= moment_us < END_OF_TIME_US else BAD_TIME


def _from_datetime64(values: NDArray[np.generic]) -> Int64:
    absent = np.isnat(values)
    moments = values.astype("datetime64[us]").astype(np.int64)
    return np.where(absent, NO_TIME, _check_range(moments))


def _check_range(moments_us: Int64) -> Int64:
    return np.where((moments_us >= 0) & (moments_us < END_OF_TIME_US), moments_us, BAD_TIME)


def _from_integers(numbers: Int64, unit: TimeUnit) -> Int64:
    if unit != "auto":
        return _scaled(numbers, unit)
    result = np.full(len(numbers), BAD_TIME)
    low = 0.0
    for below, name in MAGNITUDES:
        here = (numbers >= (MIN_GUESSED_NS if name == "ns" else low)) & (numbers < below)
        result[here] = _scaled(numbers[here], name)
        low = below
    compact = (numbers >= COMPACT_RANGE[0]) & (numbers <= COMPACT_RANGE[1])
    if compact.any():
        result[compact] = _from_compact(numbers[compact])
    return result


def _from_compact(numbers: Int64) -> Int64:
    """Parse integers of the form YYYYMMDDhhmmss, in UTC."""
    date, clock = numbers // 1_000_000, numbers % 1_000_000
    year, month, day = date // 10_000, date // 100 % 100, date % 100
    hour, minute, second = clock // 10_000, clock // 100 % 100, clock % 100
    fits = _is_valid_date(year, month, day) & (hour < 24) & (minute < 60) & (second <= 60)
    seconds = _days_from_civil(year, month, day) * 86_400 + (hour * 60 + minute) * 60 + second
    return np.where(fits, _check_range(np.where(fits, seconds, 0) * 1_000_000), BAD_TIME)


def _scaled(numbers: Int64, unit: str) -> Int64:
    times, over = SCALES[unit]
    fits = (numbers >= 0) & (numbers <= END_OF_TIME_US * over // times)
    return np.where(fits, _check_range(np.where(fits, numbers, 0) * times // over), BAD_TIME)


def _from_floats(numbers: NDArray[np.float64], unit: TimeUnit) -> Int64:
    result = np.full(len(numbers), BAD_TIME)
    low = 0.0
    for below, name in MAGNITUDES if unit == "auto" else ((math.inf, unit),):
        times, over = SCALES[name]
        with np.errstate(over="ignore", invalid="ignore"):
            least = MIN_GUESSED_NS if unit == "auto" and name == "ns" else low
            here = (numbers >= least) & (numbers < below) & (numbers * (times / over) < END_OF_TIME_US)
        result[here] = _check_range(np.rint(numbers[here] * times / over).astype(np.int64))
        low = below
    return result


def _from_strings(values: Sequence[str], unit: TimeUnit) -> Int64:
    """Parse strings of equal length together. Strings with another layout are parsed individually."""
    result = np.full(len(values), BAD_TIME)
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        selected = values if len(rows) == len(values) else [values[i] for i in rows.tolist()]
        result[rows] = _from_equal_length_strings(selected, length, unit)
    return result


def _from_equal_length_strings(values: Sequence[str], length: int, unit: TimeUnit) -> Int64:
    joined = "".join(values)
    layout = _match_iso8601(values[0])
    if joined.isascii() and layout is not None:
        return _from_iso8601(np.frombuffer(joined.encode(), np.uint8).reshape(-1, length), layout, values, unit)
    if joined.isascii() and length <= 18 and joined.isdigit():
        return _from_integers(np.array(list(map(int, values)), np.int64), unit)
    return np.array([time_us(value, unit) for value in values], np.int64)


def _match_iso8601(text: str) -> re.Match[str] | None:
    return ISO8601_EXTENDED.fullmatch(text) or ISO8601_BASIC.fullmatch(text)


def _from_iso8601(text: NDArray[np.uint8], layout: re.Match[str], values: Sequence[str], unit: TimeUnit) -> Int64:
    """Parse a matrix of characters, shape (rows, characters), by the layout of its first row.

    Rows with another layout are parsed individually.
    """
    digits = text.astype(np.int64) - ord("0")
    fits = _matches_layout(text, layout)

    def number(group: int) -> Int64:
        start, stop = layout.span(group)
        return _parse_digits(digits, start, stop) if start >= 0 else np.zeros(len(text), np.int64)

    year, month, day, hour, minute, second = map(number, (YEAR, MONTH, DAY, HOUR, MINUTE, SECOND))
    micros = np.zeros(len(text), np.int64)
    start, stop = layout.span(FRACTION)
    if start >= 0:
        stop = min(stop, start + 6)
        micros = _parse_digits(digits, start, stop) * 10 ** (6 - (stop - start))
    offset = np.zeros(len(text), np.int64)
    start, stop = layout.span(OFFSET)
    if stop - start > 1:
        hours = _parse_digits(digits, start + 1, start + 3)
        minutes = _parse_digits(digits, stop - 2, stop) if stop - start > 3 else np.zeros(len(text), np.int64)
        fits &= (hours < 24) & (minutes < 60)
        offset = (hours * 60 + minutes) * np.where(text[:, start] == ord("-"), -1, 1)
    fits &= _is_valid_date(year, month, day) & (minute < 60) & (second <= 60)
    fits &= (hour < 24) | ((hour == 24) & (minute + second + micros == 0))
    days = _days_from_civil(year, month, day)
    seconds = days * 86_400 + (hour * 60 + minute - offset) * 60 + second
    result = _check_range(seconds * 1_000_000 + micros)
    for row in np.flatnonzero(~fits).tolist():
        result[row] = BAD_TIME if len(values) == 1 else _from_string(values[row], unit)
    return result


def _matches_layout(text: NDArray[np.uint8], layout: re.Match[str]) -> Mask:
    """Return a mask of the rows with digits and separators at the same positions as the match."""
    fits = np.ones(len(text), np.bool_)
    for column, character in enumerate(layout.string):
        cells = text[:, column]
        if character.isdigit():
            fits &= (cells >= ord("0")) & (cells <= ord("9"))
        elif character in "+-" and column > 10:
            fits &= (cells == ord("+")) | (cells == ord("-"))
        else:
            fits &= cells == ord(character)
    return fits


def _parse_digits(digits: Int64, start: int, stop: int) -> Int64:
    return digits[:, start:stop] @ 10 ** np.arange(stop - start - 1, -1, -1)


def _is_valid_date(year: Int64, month: Int64, day: Int64) -> Mask:
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last = DAYS_IN_MONTH[np.clip(month, 0, 12)] + (leap & (month == 2))
    is_date: Mask = (month >= 1) & (month <= 12) & (day >= 1) & (day <= last)
    return is_date


def _days_from_civil(year: Int64, month: Int64, day: Int64) -> Int64:
    """Return the days since 1970 in the proleptic Gregorian calendar. Years are counted from March."""
    shifted = year - (month <= 2)
    day_of_year = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    return shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + day_of_year - 719_468


def _from_string(text: str, unit: TimeUnit) -> int:
    if len(text) > MAX_TEXT_CHARS:
        return BAD_TIME
    layout = _match_iso8601(text.strip())
    number = None if layout is not None else NUMBER.fullmatch(text)
    if number is not None:
        return time_us(int(text) if number[2] is number[3] is None else float(text), unit)
    plain = text.strip() if layout is not None else to_iso8601(text)
    layout = layout or (None if plain is None else _match_iso8601(plain))
    if layout is None or plain is None:
        return BAD_TIME
    characters = np.frombuffer(plain.encode(), np.uint8).reshape(1, -1)
    return int(_from_iso8601(characters, layout, [plain], unit)[0])
