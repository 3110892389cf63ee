"""Parsing and formatting of durations, sizes, rates and times, and errors with the accepted forms."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.time_format import format_time
from config.units import (
    Rate,
    format_duration,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
    parse_time,
    to_us,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1m500ms", 60.5),
        ("7d", 604_800),
        ("1w", 604_800),
        ("1y", 31_536_000),
        ("1w2d3h4m5s6ms", 604_800 + 2 * 86_400 + 3 * 3600 + 245.006),
        ("0s", 0),
    ],
)
def test_duration_is_parsed_in_prometheus_notation(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "s", "1m1h", "1h 30m", "-5m", "1.5h", "5 m", "1M", "1s\n", "10µs", "²s"])
def test_invalid_duration_is_an_error_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not a duration; (did you mean \w+\? )?write a duration such as 500ms, 10s"
    ):
        parse_duration(text)


@pytest.mark.parametrize("text", ["10", "0", "1.5"])
def test_duration_without_a_unit_is_an_error_that_names_the_unit(text: str) -> None:
    with pytest.raises(ValueError, match="has no unit"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "meant"), [("1 minute", "1m"), ("10sec", "10s"), ("2 Hours", "2h"), ("5 ms", "5ms")])
def test_duration_in_another_notation_suggests_the_accepted_one(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {meant}\\?"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["201y", "9" * 30 + "d", "9" * 5000 + "s"])
def test_duration_beyond_two_centuries_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="longer than 200 years"):
        parse_duration(text)


@given(st.integers(0, 200 * 365 * 86_400_000))
def test_formatted_duration_round_trips(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


def test_duration_is_formatted_with_days_hours_minutes_and_seconds() -> None:
    assert format_duration(timedelta(days=7)) == "7d"
    assert format_duration(timedelta(seconds=90)) == "1m30s"
    assert format_duration(timedelta()) == "0s"
    assert format_duration(timedelta(seconds=-90)) == "-1m30s"


@given(st.integers(0, 2**60))
def test_microseconds_of_a_duration_are_exact(microseconds: int) -> None:
    assert to_us(timedelta(microseconds=microseconds)) == microseconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("4KiB", 4096), ("1GiB", 2**30), ("1MB", 10**6), ("512B", 512), ("1.5KiB", 1536), ("1 kB", 1000)],
)
def test_size_is_parsed_to_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(st.integers(0, 2**50))
def test_formatted_size_round_trips(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1024", "has no unit; write a size such as 512B"),
        ("1mb", r"did you mean 1MB\?"),
        ("big", "is not a size"),
        ("0.3B", "not a whole number of bytes"),
        ("-1KiB", "is not a size"),
    ],
)
def test_invalid_size_is_an_error_with_a_remedy(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "per_week"),
    [("1/week", 1.0), ("2/day", 14.0), ("0.5/week", 0.5), ("1/hour", 168.0), ("3 / week", 3.0)],
)
def test_rate_is_converted_to_per_week(text: str, per_week: float) -> None:
    assert parse_rate(text).per_week == pytest.approx(per_week)


@given(
    st.floats(0.0001, 1e6).map(lambda count: float(f"{count:.6f}")),
    st.sampled_from(["hour", "day", "week", "month", "year"]),
)
def test_formatted_rate_round_trips(count: float, unit: str) -> None:
    rate = Rate(count=max(count, 0.0001), unit=unit)
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "is not a rate; write a rate such as 1/week"),
        ("1/wek", r"did you mean 1/week\?"),
        ("0/week", "no detector achieves zero"),
        ("-1/week", "is not a rate"),
        ("1/fortnight", "unknown unit 'fortnight'"),
    ],
)
def test_invalid_rate_is_an_error_with_a_remedy(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000),
        ("1970-01-01 01:00:00+01:00", 0),
        ("2026-01-31t08:00:00.123456789z", 1_769_846_400_123_456),
    ],
)
def test_time_is_parsed_to_microseconds(text: str, time_us: int) -> None:
    assert parse_time(text) == time_us


@given(st.integers(0, 9_000_000_000_000_000))
def test_formatted_time_round_trips(time_us: int) -> None:
    assert parse_time(format_time(time_us)) == time_us


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2026-01-31T08:00:00", "has no offset from UTC"),
        ("2026-01-31", "has no offset from UTC"),
        ("2026-02-30T08:00:00Z", "is not a time"),
        ("yesterday", "is not a time"),
        ("1969-12-31T23:59:59Z", "outside the years 1970 to 2261"),
        ("2262-01-01T00:00:00Z", "outside the years 1970 to 2261"),
        ("0001-01-01T00:00:00+14:00", "outside|is not a time"),
    ],
)
def test_invalid_time_is_an_error_with_a_remedy(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_time(text)
