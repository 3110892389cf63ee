"""A window of local time that recurs every week, such as `sat 22:00 - sun 06:00`. Pure functions."""

import re
from dataclasses import dataclass

from config.errors import ConfigError
from config.local_time import local_minute_of_week

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = rf"(?:({'|'.join(_DAYS)})[a-z]*\s+)?([01]?\d|2[0-3]|24(?=:00)):([0-5]\d)"
_FORM = re.compile(rf"^\s*{_TIME}\s*-\s*{_TIME}\s*$", re.IGNORECASE)
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES


@dataclass(frozen=True, slots=True, kw_only=True)
class WeeklyWindow:
    """A window of local time, [start, end) in minutes since Monday 00:00.

    A window whose end is not after its start contains the end of the week. `daily` is True for a window without days:
    its minutes are those of every day.
    """

    start_min: int
    end_min: int
    daily: bool

    def contains(self, time_us: int, timezone: str) -> bool:
        """Return whether a time (microseconds since 1970) lies in the window, in an IANA time zone."""
        minute = local_minute_of_week(time_us, timezone) % (_DAY_MINUTES if self.daily else _WEEK_MINUTES)
        if self.start_min < self.end_min:
            return self.start_min <= minute < self.end_min
        return minute >= self.start_min or minute < self.end_min


def parse_weekly_window(text: str) -> WeeklyWindow:
    """Return the window that a text describes: `sat 22:00 - sun 06:00`, or `22:00 - 06:00` for every day.

    Raises:
        ConfigError: The text has another form, names one day only, or the window is empty.
    """
    found = _FORM.match(text)
    if found is None:
        raise ConfigError(
            f"{text!r} is not a weekly window; write for example 'sat 22:00 - sun 06:00' or '22:00 - 06:00'"
        )
    start_day, start_hour, start_minute, end_day, end_hour, end_minute = found.groups()
    if (start_day is None) != (end_day is None):
        raise ConfigError(f"{text!r} names the day of one end only: name both days, or none for every day")
    daily = start_day is None
    start_min = _to_minute(start_day, start_hour, start_minute)
    end_min = _to_minute(end_day, end_hour, end_minute)
    length = _DAY_MINUTES if daily else _WEEK_MINUTES
    if (end_min - start_min) % length == 0:
        raise ConfigError(f"{text!r} is empty: the end must differ from the start")
    return WeeklyWindow(start_min=start_min, end_min=end_min, daily=daily)


def _to_minute(day: str | None, hour: str, minute: str) -> int:
    return (0 if day is None else _DAYS.index(day.lower()) * _DAY_MINUTES) + int(hour) * 60 + int(minute)
