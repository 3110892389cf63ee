"""Texts of times in other forms than those of ISO 8601 that `consumers.times` parses column by column."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

MAX_TEXT_CHARS = 80

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_UTC_NAMES = {"utc", "gmt", "z", "ut"}
_DAY = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?,?\s+)?"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})[a-z]*"
_CLOCK = r"(?P<clock>\d\d:\d\d(?::\d\d(?:[.,]\d{1,18})?)?)"
_ZONE = r"(?P<zone>[+-]\d\d:?\d\d|utc?|gmt|z)"
_FLAGS = re.ASCII | re.IGNORECASE

_ISO_AND_ZONE_NAME = re.compile(
    r"(?P<iso>\d{4}[-/]?\d\d[-/]?\d\d[T ][\d:.,]+\s?(?:Z|[+-]\d\d(?::?\d\d)?)?)"
    r"(?P<seconds>:\d\d)?(?P<name>\s+[A-Z]{1,5}|\s+[+-]\d\d(?:\d\d)?|\s?\[[\w/+:-]+\])?(?:\s+m=[+-][\d.]+)?",
    _FLAGS,
)
"""Java's ZonedDateTime (`...Z[UTC]`), Go's Time.String (`... +0000 UTC m=+0.1`), a trailing `UTC` or `GMT`."""

_NAMED_MONTH = (
    # RFC 2822, RFC 850 and HTTP: Wed, 01 May 2024 12:34:56 GMT; Wednesday, 01-May-24 12:34:56 GMT
    re.compile(
        rf"{_DAY}(?P<day>\d\d?)[ -]{_MONTH}[ -](?P<year>\d{{4}}|\d\d)\s+{_CLOCK}(?:\s*{_ZONE})?(?:\s*\(.*\))?", _FLAGS
    ),
    # ctime, and Date.toString of Java: Wed May  1 12:34:56 [UTC] 2024
    re.compile(rf"{_DAY}{_MONTH}\s+(?P<day>\d\d?)\s+{_CLOCK}(?:\s+{_ZONE})?\s+(?P<year>\d{{4}})", _FLAGS),
    # Common log format: 01/May/2024:12:34:56 +0000
    re.compile(rf"\[?(?P<day>\d\d?)/{_MONTH}/(?P<year>\d{{4}})[: ]{_CLOCK}(?:\s*{_ZONE})?\]?", _FLAGS),
)
_WEEK_DATE = re.compile(r"(\d{4})-?W(\d\d)(?:-?([1-7]))?(T.*)?", _FLAGS)
_ORDINAL_DATE = re.compile(r"(\d{4})-(\d{3})([T ].*)?", _FLAGS)
_DOT_NET_JSON = re.compile(r"\\?/Date\((\d{1,15})([+-]\d{4})?\)\\?/", re.ASCII)


def to_iso8601(text: str) -> str | None:
    """Convert a text of a time to the ISO 8601 form that `consumers.times` parses. Return None for another text.

    Dates whose day and month could be confused (05/01/2024, 01.05.2024), and zone names without an offset other than
    UTC and GMT, are not converted.
    """
    plain = text.strip().replace("\u2212", "-")
    if len(plain) > MAX_TEXT_CHARS or not plain.isascii():
        return None
    forms: tuple[Callable[[str], str | None], ...] = (_drop_zone_name, _named_month, _other_calendar, _dot_net_json)
    try:
        return next((found for found in (form(plain) for form in forms) if found is not None), None)
    except (ValueError, OverflowError):
        return None


def _drop_zone_name(text: str) -> str | None:
    match = _ISO_AND_ZONE_NAME.fullmatch(text)
    if match is None:
        return None
    iso, name = match["iso"].rstrip(), (match["name"] or "").strip()
    has_offset = re.search(r"[T ].*(?:[+-]|Z$)", iso, _FLAGS) is not None
    if match["seconds"]:
        return iso if has_offset and match["seconds"] == ":00" else None
    if has_offset:
        return iso
    return f"{iso}Z" if name.strip("[]").lower() in _UTC_NAMES | {""} else None


def _named_month(text: str) -> str | None:
    match = next(filter(None, (pattern.fullmatch(text) for pattern in _NAMED_MONTH)), None)
    if match is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 2000 if year < 70 else 1900  # POSIX: 69 to 99 are of the last century
    zone = (match["zone"] or "Z").upper()
    offset = "Z" if zone.lower() in _UTC_NAMES else zone
    return (
        f"{year:04d}-{_MONTHS.index(match['month'].lower()) + 1:02d}-{int(match['day']):02d}T{match['clock']}{offset}"
    )


def _other_calendar(text: str) -> str | None:
    """Convert week dates (2024-W18-3) and ordinal dates (2024-122)."""
    week = _WEEK_DATE.fullmatch(text)
    if week is not None:
        return f"{date.fromisocalendar(int(week[1]), int(week[2]), int(week[3] or 1))}{week[4] or ''}"
    ordinal = _ORDINAL_DATE.fullmatch(text)
    if ordinal is None:
        return None
    day = date(int(ordinal[1]), 1, 1) + timedelta(days=int(ordinal[2]) - 1)
    return f"{day}{ordinal[3] or ''}" if day.year == int(ordinal[1]) else None


def _dot_net_json(text: str) -> str | None:
    """Convert /Date(1714566896000+0200)/: milliseconds since 1970 in UTC; the offset is for display only."""
    match = _DOT_NET_JSON.fullmatch(text)
    if match is None:
        return None
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(match[1]))).isoformat()
