"""Names of time zones, and times of day over clock changes."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.local_time import check_time_zone, local_day, local_weekday, shift_local_days
from config.settings import Settings
from config.time_format import DAY_US, HOUR_US

BERLIN = "Europe/Berlin"


def at(text: str) -> int:
    """Return a time with its offset in microseconds since 1970."""
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize("name", ["UTC", BERLIN, "America/New_York", "Asia/Kathmandu", "Etc/GMT-3"])
def test_names_of_the_database_are_time_zones(name: str) -> None:
    assert check_time_zone(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Europe/Berln", "did you mean Europe/Berlin?"),
        ("Europe", "did you mean"),
        ("../etc/passwd", "write an IANA name"),
        ("/etc/localtime", "is not a time zone"),
        ("+02:00", "write an IANA name"),
        ("", "write an IANA name"),
        ("a\0b", "is not a time zone"),
    ],
)
def test_other_names_are_errors_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone") as error:
        check_time_zone(name)
    assert hint in str(error.value)


def test_setting_of_a_stream_names_its_key() -> None:
    stream = {"source": {"type": "synthetic"}}
    assert Settings.model_validate({"streams": {"a": stream}}).streams["a"].timezone == "UTC"
    with pytest.raises(ValueError, match="is not a time zone") as error:
        Settings.model_validate({"streams": {"a": stream | {"timezone": "Berlin"}}})
    assert "timezone" in str(error.value)


@pytest.mark.parametrize(
    ("start", "days", "earlier", "later"),
    [
        ("2026-03-28T23:00+01:00", 1, "2026-03-29T23:00+02:00", "2026-03-29T23:00+02:00"),
        ("2026-03-30T05:00+02:00", -7, "2026-03-23T05:00+01:00", "2026-03-23T05:00+01:00"),
        ("2026-03-28T02:30+01:00", 1, "2026-03-29T01:30+01:00", "2026-03-29T02:30+01:00"),
        ("2026-10-24T02:30+02:00", 1, "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"),
        ("2026-10-18T05:00+02:00", 7, "2026-10-25T05:00+01:00", "2026-10-25T05:00+01:00"),
    ],
)
def test_time_of_day_stays_the_same_over_a_clock_change(start: str, days: int, earlier: str, later: str) -> None:
    assert shift_local_days(at(start), days, BERLIN) == (at(earlier), at(later))


@given(time_us=st.integers(-(2**62), 2**62), days=st.integers(-7, 7))
def test_days_without_a_clock_change_have_24_hours(time_us: int, days: int) -> None:
    for zone in ("UTC", "Etc/GMT+12"):
        assert shift_local_days(time_us, days, zone) == (time_us + days * DAY_US,) * 2


@given(time_us=st.integers(0, 2**53), days=st.integers(-7, 7))
def test_shifted_times_are_at_most_some_hours_from_whole_days(time_us: int, days: int) -> None:
    earlier_us, later_us = shift_local_days(time_us, days, BERLIN)
    assert earlier_us <= later_us
    assert max(abs(each - time_us - days * DAY_US) for each in (earlier_us, later_us)) <= 2 * HOUR_US


@pytest.mark.parametrize(("day", "hours"), [("2026-03-28", 24), ("2026-03-29", 23), ("2026-10-25", 25)])
def test_local_day_has_the_hours_of_its_clock(day: str, hours: int) -> None:
    start_us, end_us = local_day(at(f"{day}T12:00+01:00"), BERLIN)
    assert (end_us - start_us) // HOUR_US == hours
    assert local_day(start_us, BERLIN) == (start_us, end_us)
    assert local_day(end_us - 1, BERLIN) == (start_us, end_us)
    assert local_day(end_us, BERLIN)[0] == end_us


def test_day_begins_with_a_clock_change_that_skips_midnight() -> None:
    change_us = at("2026-04-23T22:00+00:00")  # 00:00 becomes 01:00 in Cairo
    assert local_day(change_us, "Africa/Cairo")[0] == change_us
    assert local_day(change_us - 1, "Africa/Cairo")[1] == change_us


def test_local_weekday_is_that_of_the_time_zone() -> None:
    sunday_us = at("2026-11-29T23:30+00:00")
    assert (local_weekday(sunday_us, "UTC"), local_weekday(sunday_us, BERLIN)) == (6, 0)
    assert local_weekday(0, "UTC") == 3
