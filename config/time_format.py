"""Units of time in microseconds, and the formats of times and durations in output.

`config.units` parses settings, and has the formats of durations and sizes that can be parsed again.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US


def format_rounded_duration(us: float) -> str:
    """Format a duration in microseconds in its largest fitting unit, rounded, such as "2.5 days"."""
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
    """Format a duration in microseconds with an article instead of a leading 1, such as "an hour"."""
    text = format_rounded_duration(us)
    if text.startswith("1 "):
        return ("an " if text == "1 hour" else "a ") + text[2:]
    return text


def format_rough_duration(seconds: float) -> str:
    """Format a duration as an integral number of the largest unit that it contains at least twice: 40 min, 3 h."""
    for unit_s, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} s"


def format_age(age_s: float) -> str:
    """Return an age as text; it is negative when the clock of the event is ahead."""
    return f"{-age_s:.0f} s ahead of the clock" if age_s < 0 else f"{format_rough_duration(age_s)} ago"


def format_time(time_us: int) -> str:
    """Format a time in microseconds since 1970 as RFC 3339 in UTC for tables and payloads, with six digits."""
    return _to_datetime(time_us).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def format_optional_time(time_us: int | None) -> str | None:
    """Return a time as RFC 3339 in UTC, None without a time."""
    return None if time_us is None else format_time(time_us)


def format_times(times: "NDArray[Any]") -> list[str | None]:
    """Return an array of NumPy times (n,) as RFC 3339 in UTC, `NaT` as None."""
    import numpy as np  # noqa: PLC0415 - reading settings does not need numpy

    texts: list[str] = np.datetime_as_string(times.astype("datetime64[us]"), unit="us").tolist()
    return [None if text == "NaT" else text + "Z" for text in texts]


def format_short_time(time: int | str) -> str:
    """Return a time, in microseconds since 1970 or as RFC 3339 in UTC, to the second."""
    return (time if isinstance(time, str) else format_time(time))[:19] + "Z"


def format_utc(time_us: int) -> str:
    """Format a time in microseconds since 1970 as RFC 3339 in UTC for prose, without zero microseconds."""
    return _to_datetime(time_us).isoformat().replace("+00:00", "Z")


def _to_datetime(time_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
