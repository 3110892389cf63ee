"""Time zones of streams: names, and times of day that stay the same over clock changes."""

from datetime import UTC, datetime, time, timedelta, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from config.time_format import DAY_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def check_time_zone(value: object) -> object:
    """Return the name of a time zone of the IANA database.

    Raises:
        ValueError: There is no time zone of this name; the message has the nearest one.
    """
    if isinstance(value, str):
        _load_zone(value)
    return value


def shift_local_days(time_us: int, days: int, timezone: str) -> tuple[int, int]:
    """Return the time of the same local time of day `days` days later, in microseconds since 1970.

    A time of day that a clock change skips or repeats has two readings.

    Args:
        time_us: The time, in microseconds since 1970.
        days: The number of days; may be negative.
        timezone: The IANA name of the time zone.

    Returns:
        The earlier and the later reading. Both are equal except at a clock change.
    """
    zone = _load_zone(timezone)
    plain_us = time_us + days * DAY_US
    if zone is UTC:
        return plain_us, plain_us
    try:
        local = (_EPOCH + timedelta(microseconds=time_us)).astimezone(zone).replace(tzinfo=None) + timedelta(days=days)
        readings = [(local.replace(tzinfo=zone, fold=fold) - _EPOCH) // _MICROSECOND for fold in (0, 1)]
    except OverflowError:
        # Before the year 1 or after 9999, where no time zone is defined.
        return plain_us, plain_us
    return min(readings), max(readings)


def find_utc_offset_us(time_us: int, timezone: str) -> int:
    """Return the offset of local time from UTC at a time, in microseconds.

    Args:
        time_us: The time, in microseconds since 1970.
        timezone: The IANA name of the time zone.
    """
    zone = _load_zone(timezone)
    if zone is UTC:
        return 0
    try:
        offset = (_EPOCH + timedelta(microseconds=time_us)).astimezone(zone).utcoffset()
    except OverflowError:
        # Before the year 1 or after 9999, where no time zone is defined.
        return 0
    return 0 if offset is None else offset // _MICROSECOND


def local_minute_of_week(time_us: int, timezone: str) -> int:
    """Return the minutes since Monday 00:00 of a time, in microseconds since 1970, on the clocks of a time zone."""
    local = (_EPOCH + timedelta(microseconds=time_us)).astimezone(_load_zone(timezone))
    return (local.weekday() * 24 + local.hour) * 60 + local.minute


def local_day(time_us: int, timezone: str) -> tuple[int, int]:
    """Return the local day of a time: its start and its end, in microseconds since 1970.

    A day with a clock change has 23 or 25 hours. A midnight that a clock change skips is the moment of the change.

    Args:
        time_us: The time, in microseconds since 1970.
        timezone: The IANA name of the time zone.
    """
    zone = _load_zone(timezone)
    if zone is not UTC:
        try:
            date = (_EPOCH + timedelta(microseconds=time_us)).astimezone(zone).date()
            midnights = [datetime.combine(date + timedelta(days=days), time.min, zone) for days in (0, 1)]
            start_us, end_us = ((midnight - _EPOCH) // _MICROSECOND for midnight in midnights)
        except OverflowError:
            pass  # before the year 1 or after 9999, where no time zone is defined
        else:
            return start_us, end_us
    start_us = time_us // DAY_US * DAY_US
    return start_us, start_us + DAY_US


def local_weekday(time_us: int, timezone: str) -> int:
    """Return the local day of the week of a time, 0 for Monday."""
    zone = _load_zone(timezone)
    if zone is not UTC:
        try:
            return (_EPOCH + timedelta(microseconds=time_us)).astimezone(zone).weekday()
        except OverflowError:
            pass  # before the year 1 or after 9999, where no time zone is defined
    return (time_us // DAY_US + _EPOCH.weekday()) % 7


@lru_cache(maxsize=64)
def _load_zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # A folder of the database, such as Europe, raises an OSError.
        known = sorted(available_timezones())
        matches = get_close_matches(name.lower(), [each.lower() for each in known], n=1)
        nearest = next((each for each in known if matches and each.lower() == matches[0]), None)
        hint = f"did you mean {nearest}?" if nearest else "write an IANA name such as Europe/Berlin, or UTC"
        raise ValueError(f"{name!r} is not a time zone; {hint}") from None
