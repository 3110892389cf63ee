"""Weekly windows of local time."""

from datetime import UTC, datetime

import pytest

from config.errors import ConfigError
from config.weekly_window import parse_weekly_window


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


@pytest.mark.parametrize(
    ("window", "time", "zone", "inside"),
    [
        ("sat 22:00 - sun 06:00", "2026-01-03T22:00", "UTC", True),  # a Saturday
        ("sat 22:00 - sun 06:00", "2026-01-04T05:59", "UTC", True),
        ("sat 22:00 - sun 06:00", "2026-01-04T06:00", "UTC", False),
        ("sat 22:00 - sun 06:00", "2026-01-03T21:59", "UTC", False),
        ("Sat 22:00 - Sunday 06:00", "2026-01-03T21:00", "Europe/Berlin", True),
        ("sun 22:00 - mon 06:00", "2026-01-05T05:00", "UTC", True),  # over the end of the week
        ("22:00 - 06:00", "2026-01-06T23:00", "UTC", True),
        ("22:00 - 06:00", "2026-01-06T12:00", "UTC", False),
        ("08:00-24:00", "2026-01-06T23:59", "UTC", True),
        # Berlin has summer time from 2026-03-29 02:00: 22:30 local is 20:30 UTC instead of 21:30.
        ("22:00 - 23:00", "2026-03-28T21:30", "Europe/Berlin", True),
        ("22:00 - 23:00", "2026-03-29T20:30", "Europe/Berlin", True),
        ("22:00 - 23:00", "2026-03-29T21:30", "Europe/Berlin", False),
    ],
)
def test_window_follows_the_local_clock(window: str, time: str, zone: str, inside: bool) -> None:
    assert parse_weekly_window(window).contains(at(time), zone) is inside


@pytest.mark.parametrize(
    "text", ["", "noon", "sat 22:00", "sat 22:00 - 06:00", "22:00 - 22:00", "mon 24:30 - tue 01:00"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_weekly_window(text)
