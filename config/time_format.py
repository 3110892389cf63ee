"""Lengths of time in microseconds, and times and durations as text."""

from datetime import UTC, datetime, timedelta

HOUR_US = 3600 * 1_000_000

DAY_US = 24 * HOUR_US

WEEK_US = 7 * DAY_US


def format_rounded_duration(us: float) -> str:
    """Return a duration in its largest fitting unit, rounded for reading."""
    for unit_us, name in (
        (365.25 * DAY_US, "year"),
        (DAY_US, "day"),
        (HOUR_US, "hour"),
        (60e6, "minute"),
        (1e6, "second"),
    ):
        count = us / unit_us
        if count >= 0.9995:
            rounded = f"{count:,.0f}" if count >= 9.95 else f"{count:.2g}"
            return f"{rounded} {name}" + ("" if rounded == "1" else "s")
    return f"{us / 1e3:.3g} milliseconds"


def format_one_period(us: int) -> str:
    """Return a duration with an article in place of a leading 1, such as "an hour"."""
    text = format_rounded_duration(us)
    if text.startswith("1 "):
        return ("an " if text == "1 hour" else "a ") + text[2:]
    return text


def format_utc(time_us: int) -> str:
    """Return a time as RFC 3339 in UTC, without zero microseconds."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    return at.isoformat().replace("+00:00", "Z")
