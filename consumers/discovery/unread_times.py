"""Fields that look like times and cannot be read: texts of other forms, epochs of another origin."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config.time_format import DAY_US, format_short_time
from consumers.discovery.column_statistics import (
    MIN_VALUES,
    TIME_NAMES,
    ColumnStatistics,
    format_number,
    format_percent,
    has_time_name,
    is_time,
    shorten,
    time_rank,
)
from consumers.discovery.features import NUMERIC_SHARE
from consumers.discovery.sample import RecordSample
from consumers.times import TimeUnit, times_us

_LOOKS_LIKE_TIME_SHARE = 0.9
_OLDEST_US = 631_152_000_000_000  # 1990
_OLD_US = 5 * 365 * DAY_US
_REMEDY = "write ISO 8601, such as 2024-05-01T12:34:56Z, or an epoch"
_NAMED_MONTH = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_LIKE_TIME_TEXT = re.compile(
    r"(?<![\w.:/-])(?:"
    r"(?:19|20)\d\d([-/.])\d{1,2}\1\d{1,2}|"  # 2024.5.1
    r"\d{1,2}([-/.])\d{1,2}\2(?:19|20)\d\d|"  # 5/1/2024, 01.05.2024
    r"\d\d([-/.])\d\d\3\d\d|"
    rf"\d{{1,2}}[ /-]?(?:{_NAMED_MONTH})[a-z]*[ /-]?\d{{2,4}}|(?:{_NAMED_MONTH})[a-z]* \d{{1,2}},? |"
    r"(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?)(?![.:/-]?\w)"
    r"|^(?:19|20)\d\d[-/.]?\d\d[-/.]?\d\d[ t_]\d\d",
    re.ASCII | re.IGNORECASE,
)
_ORIGINS = (
    ("ticks of .NET (100 ns since the year 1)", 0.1, -62_135_596_800_000_000),
    ("ticks of Windows files (100 ns since 1601)", 0.1, -11_644_473_600_000_000),
    ("microseconds since 1601, as in WebKit", 1.0, -11_644_473_600_000_000),
    ("seconds since 1900, as in NTP", 1e6, -2_208_988_800_000_000),
    ("days since 1900, as in Excel", float(DAY_US), -25_569 * DAY_US),
)
"""Other epochs: a name, microseconds per unit, and the origin in microseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadTime:
    """A field that looks like a time, and why it is not read as one."""

    name: str
    reason: str


def find_unread_times(sample: RecordSample, now_us: int) -> list[UnreadTime]:
    """Return the fields of a sample that look like times and cannot be read, the best name of a time first."""
    if sample.unnamed:
        return []
    found = []
    for column in sample.columns.values():
        stats = ColumnStatistics(column=column, n_events=sample.n_events)
        reason = None
        if stats.n_present and not is_time(stats, now_us):
            reason = _unread_text(stats) or _unread_number(stats, now_us)
        if reason is not None:
            found.append(UnreadTime(name=column.name, reason=reason))
    return sorted(found, key=lambda each: time_rank(each.name))


def _unread_text(stats: ColumnStatistics) -> str | None:
    """Return why texts are no times, or None if they do not look like times."""
    texts = [value for value in stats.values if isinstance(value, str)]
    if len(texts) < NUMERIC_SHARE * stats.n_present:
        return None
    unread = [text for text, time in zip(texts, times_us(texts, "auto").tolist(), strict=True) if time < 0]
    if not unread:
        return None
    looking = sum(_LIKE_TIME_TEXT.search(text[:80]) is not None for text in texts)
    if looking < _LOOKS_LIKE_TIME_SHARE * len(texts):
        return None
    share = "" if len(unread) == len(texts) else f"{format_percent(len(unread) / len(texts))} of "
    return f"{share}its texts cannot be read as times, such as {shorten(repr(unread[0]))}"


def _unread_number(stats: ColumnStatistics, now_us: int) -> str | None:
    """Return why numbers are no times, or None if they do not look like times."""
    if not stats.is_numeric or len(stats.numbers) < 2:
        return None
    numbers, named = stats.numbers, has_time_name(stats.column.name)
    in_order = len(stats.steps) > 0 and float((stats.steps >= 0).mean()) >= _LOOKS_LIKE_TIME_SHARE
    if not in_order or not (named or len(numbers) >= MIN_VALUES) or numbers.min() == numbers.max():
        return None
    if stats.is_integer and _are_dates(numbers.astype(np.int64)):
        return "its numbers seem to be dates as YYYYMMDD"
    for origin, unit_us, origin_us in _ORIGINS:
        moments = numbers * unit_us + origin_us
        exact = named or unit_us < 1e6  # small numbers are too common to be times without the name of one
        if exact and moments.min() >= _OLDEST_US and moments.max() <= now_us + 366 * DAY_US:
            return f"its numbers seem to be {origin}"
    if not named:
        return None
    low, high = format_number(numbers.min()), format_number(numbers.max())
    return f"its numbers, {low} to {high}, are not s, ms, us or ns since 1970"


def _are_dates(numbers: NDArray[np.int64]) -> bool:
    """Return True if whole numbers are dates as YYYYMMDD."""
    year, month, day = numbers // 10_000, numbers // 100 % 100, numbers % 100
    return bool(((year >= 1990) & (year < 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def warn_about_times(
    sample: RecordSample, time_field: str | None, now_us: int, *, is_file: bool, unit: TimeUnit = "auto"
) -> Iterator[str]:
    """Yield warnings about the event time that a stream would have.

    Args:
        sample: A sample of its records.
        time_field: The field of the event time, or None for the broker's timestamp or the time of reading.
        now_us: The current time.
        is_file: The source is a file, so that events without a time field get the time of reading.
        unit: The unit of the time field.
    """
    best = len(TIME_NAMES) + 1 if time_field is None else time_rank(time_field)
    unread = [
        each
        for each in find_unread_times(sample, now_us)
        if time_rank(each.name) < best or (each.name == time_field and unit == "auto")
    ]
    for each in unread:
        yield f"{each.name} looks like a time, but {each.reason}; {_REMEDY}"
    if time_field is not None:
        yield from _warn_about_old_times(sample, time_field, now_us, unit)
    elif is_file and not sample.unnamed:
        yield "no field is the event time: events get the time of reading, so that a recorded history shrinks to now"
    elif unread:
        yield "the event time is the broker's timestamp"


def _warn_about_old_times(sample: RecordSample, time_field: str, now_us: int, unit: TimeUnit) -> Iterator[str]:
    column = sample.columns.get(time_field)
    moments = times_us([] if column is None else column.values(), unit)
    moments = moments[moments >= 0]
    if len(moments) and now_us - int(moments.max()) > _OLD_US:
        yield (
            f"the newest time of {time_field} is {format_short_time(int(moments.max()))}: if that is wrong, its "
            "numbers have another unit or origin than s, ms, us or ns since 1970"
        )
