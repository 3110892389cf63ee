"""Parsing of event times."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.times import BAD_TIME, END_OF_TIME_US, NO_TIME, time_us, times_us

EXACT = 1_714_566_896_123_456
MOMENT = "2024-05-01T12:34:56.123456Z"


def one(value, unit="auto"):
    vectorised = int(times_us([value], unit)[0])
    assert vectorised == time_us(value, unit)
    return vectorised


@pytest.mark.parametrize(
    "text",
    [
        MOMENT,
        "2024-05-01t12:34:56.123456z",
        "2024-05-01 12:34:56.123456Z",
        "2024-05-01T12:34:56.123456+00:00",
        "2024-05-01T14:34:56.123456+02:00",
        "2024-05-01T07:04:56.123456-05:30",
        "2024-05-01T14:34:56.123456+0200",
        "2024-05-01T12:34:56.123456789Z",
        "2024-05-01T12:34:56,123456Z",
        " 2024-05-01T12:34:56.123456Z ",
    ],
)
def test_all_rfc_3339_forms_of_a_time_are_parsed(text):
    assert one(text) == EXACT


def test_time_without_an_offset_is_utc():
    assert one("2024-05-01T12:34:56.123456") == EXACT


def test_fractions_with_fewer_digits_are_parsed():
    assert one("2024-05-01T12:34:56.1Z") == EXACT - 23_456
    assert one("2024-05-01T12:34:56Z") == EXACT - 123_456


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-30T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-00-01T00:00:00Z",
        "2024-01-00T00:00:00Z",
        "2024-01-01T24:00:01Z",
        "2024-01-01T24:01Z",
        "2024-01-01T25:00:00Z",
        "2024-01-01T00:60:00Z",
        "2024-01-01T00:00:61Z",
        "2024-01-01T00:00:00+24:00",
        "1969-12-31T23:59:59.999999Z",
        "2262-01-01T00:00:00Z",
        "1970-01-01T00:00:00+01:00",
        "yesterday",
        "05/01/2024 12:34:56",
        "01.05.2024 12:34:56",
        "2024-05/01 12:34:56",
        "2024-05-01 12:34:56 CEST",
        "Wed, 31 Apr 2024 12:34:56 GMT",
        "2024-W54-1",
        "2023-366",
        "20240501T",
        "2024-05",
        "12:34:56",
        "1_700_000_000",
        "٠١٢٣",
        "nan",
        "1" * 10_000,
    ],
)
def test_text_without_a_time_between_1970_and_2261_is_bad(text):
    assert one(text) == BAD_TIME


SECOND = "2024-05-01T12:34:56Z"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2024-05-01 12:34:56+00", SECOND),  # PostgreSQL
        ("2024-05-01 14:34:56.000000+02", SECOND),
        ("2024-05-01T12:34Z", "2024-05-01T12:34:00Z"),
        ("2024-05-01 12:34", "2024-05-01T12:34:00Z"),
        ("2024-05-01T14+02", "2024-05-01T12:00:00Z"),
        ("2024-05-01", "2024-05-01T00:00:00Z"),
        ("2024-05-01T24:00:00Z", "2024-05-02T00:00:00Z"),
        ("2024/05/01 12:34:56", SECOND),
        ("20240501T123456Z", SECOND),
        ("20240501T143456+0200", SECOND),
        ("20240501T123456.5Z", "2024-05-01T12:34:56.5Z"),
        ("20240501T1234Z", "2024-05-01T12:34:00Z"),
        ("20240501 123456", SECOND),
        ("20240501123456", SECOND),
        ("2024-W18-3T12:34:56Z", SECOND),
        ("2024-122T12:34:56Z", SECOND),
        ("2024-05-01T10:34:56\u221202:00", SECOND),  # ISO 8601 prefers the minus sign to the hyphen
        ("2024-05-01T12:34:56+00:00:00", SECOND),
        ("2024-05-01 12:34:56 UTC", SECOND),
        ("2024-05-01 14:34:56 +0200", SECOND),  # git
        ("2024-05-01 12:34:56 +0000 UTC", SECOND),  # Go
        ("2024-05-01 14:34:56.1 +0200 CEST m=+0.000000001", "2024-05-01T12:34:56.1Z"),
        ("2024-05-01 15:34:56 +0300 +03", SECOND),
        ("2024-05-01T12:34:56Z[UTC]", SECOND),  # Java
        ("2024-05-01T14:34:56+02:00[Europe/Berlin]", SECOND),
        ("Wed May 01 12:34:56 UTC 2024", SECOND),
        ("Wed, 01 May 2024 12:34:56 GMT", SECOND),  # RFC 2822 and HTTP
        ("Wed, 1 May 2024 14:34:56 +0200 (CEST)", SECOND),
        ("Wednesday, 01-May-24 12:34:56 GMT", SECOND),
        ("Wed May  1 12:34:56 2024", SECOND),  # ctime
        ("[01/May/2024:14:34:56 +0200]", SECOND),  # Apache
        ("/Date(1714566896000)/", SECOND),  # JSON of .NET
    ],
)
def test_common_forms_of_a_time_are_parsed(text, same):
    assert one(text) == one(same) != BAD_TIME
    assert times_us([text] * 3, "auto").tolist() == [one(same)] * 3


def test_column_of_one_form_is_parsed_together_and_other_forms_one_by_one():
    column = ["2024-05-01 12:34:56+00", "2024-05-01 12:34:57-01", "2024-05-01T14:34:58Z", "20240501T123459+000000"]
    expected = [one(SECOND), one(SECOND) + 3_601_000_000, one(SECOND) + 7_202_000_000, BAD_TIME]
    assert times_us(column, "auto").tolist() == expected


@pytest.mark.parametrize(
    ("number", "origin"),
    [
        (638_501_636_960_000_000, "ticks of .NET, 100 ns since the year 1"),
        (638_501_636_960_000_000.0, "the same as a float"),
        ("638501636960000000", "the same as a text"),
        (133_590_404_960_000_000, "ticks of Windows files, 100 ns since 1601"),
        (13_359_040_496_000_000, "microseconds since 1601, of WebKit"),
    ],
)
def test_epoch_of_another_origin_is_not_guessed_to_be_nanoseconds_since_1970(number, origin):
    assert one(number) == BAD_TIME, origin


def test_nanoseconds_of_any_year_are_parsed_when_the_unit_is_given():
    assert one(638_501_636_960_000_000, "ns") == 638_501_636_960_000
    assert one(20_240_501_123_456, "ms") == BAD_TIME  # no YYYYMMDDhhmmss, and after 2261


def test_integer_of_14_digits_is_a_date_and_a_time_if_it_can_be_one():
    column = np.array([20_240_501_123_456, 20_241_301_123_456, 20_240_501_126_000, 1_714_566_896])
    assert times_us(column, "auto").tolist() == [one(SECOND), BAD_TIME, BAD_TIME, one(SECOND)]


def test_leap_day_and_leap_second_are_parsed():
    assert one("2024-02-29T00:00:00Z") == 1_709_164_800_000_000
    assert one("2016-12-31T23:59:60Z") == one("2017-01-01T00:00:00Z")


@pytest.mark.parametrize("value", [None, ""])
def test_missing_value_is_no_time(value):
    assert one(value) == NO_TIME


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, b"2024", float("nan"), float("inf"), -1, -0.5, 10**40])
def test_value_that_is_not_an_epoch_is_bad(value):
    assert one(value) == BAD_TIME


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (1_714_566_896.123456, "s"),
        (1_714_566_896_123.456, "ms"),
        (1_714_566_896_123_456, "us"),
        (1_714_566_896_123_456_789, "ns"),
        ("1714566896.123456", "s"),
        ("1714566896123456", "us"),
        ("1714566896123456789", "ns"),
    ],
)
def test_epoch_is_parsed_in_its_unit_and_auto_detects_the_unit(value, unit):
    assert one(value, unit) == EXACT
    assert one(value, "auto") == EXACT


def test_given_unit_is_not_guessed():
    assert one(1_714_566_896, "ms") == 1_714_566_896_000
    assert one(10**13, "s") == BAD_TIME


def test_last_microsecond_of_2261_is_valid_and_the_next_is_not():
    assert one(END_OF_TIME_US - 1, "us") == END_OF_TIME_US - 1
    assert one(END_OF_TIME_US, "us") == BAD_TIME
    assert one("2261-12-31T23:59:59.999999Z") == END_OF_TIME_US - 1


def test_datetimes_are_parsed_with_their_offset():
    assert one(datetime(2024, 5, 1, 12, 34, 56, 123456, tzinfo=UTC)) == EXACT
    ahead = timezone(timedelta(hours=2))
    assert one(datetime(2024, 5, 1, 14, 34, 56, 123456, tzinfo=ahead)) == EXACT


def test_mixed_column_is_parsed_value_by_value():
    column = [MOMENT, 1_714_566_896, None, "x", 1_714_566_896.5, "2024-05-01T12:34:56Z", True, 10**40]
    seconds = EXACT - 123_456
    expected = [EXACT, seconds, NO_TIME, BAD_TIME, seconds + 500_000, seconds, BAD_TIME, BAD_TIME]
    assert times_us(column, "auto").tolist() == expected


def test_strings_of_equal_length_and_different_layouts_are_parsed():
    column = ["2024-05-01T12:34:56+02:00", "2024-05-01T12:34:56.1234Z", "2024-05-01T12:34:56.12345", "x" * 25]
    expected = [time_us(value, "auto") for value in column]
    assert times_us(column, "auto").tolist() == expected
    assert expected[3] == BAD_TIME


def test_numpy_columns_are_parsed_without_python_objects():
    stamps = np.array(["2024-05-01T12:34:56.123456", "NaT", "1969-01-01"], "datetime64[us]")
    assert times_us(stamps, "auto").tolist() == [EXACT, NO_TIME, BAD_TIME]
    assert times_us(np.array([1_714_566_896], np.int64), "auto").tolist() == [EXACT - 123_456]
    assert times_us(np.array([1_714_566_896.5]), "s").tolist() == [EXACT - 123_456 + 500_000]
    assert times_us(np.array([2**64 - 1], np.uint64), "auto").tolist() == [BAD_TIME]
    assert times_us(np.array([True]), "auto").tolist() == [BAD_TIME]
    assert times_us([], "auto").tolist() == []


YEARS = st.datetimes(datetime(1970, 1, 2), datetime(2261, 12, 30))  # noqa: DTZ001 - offsets are drawn apart
OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.slow
@given(st.lists(st.builds(lambda moment, zone: moment.replace(tzinfo=zone), YEARS, OFFSETS), max_size=20))
def test_every_datetime_round_trips_to_the_microsecond(moments):
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = [(moment - epoch) // timedelta(microseconds=1) for moment in moments]
    assert times_us([moment.isoformat() for moment in moments], "auto").tolist() == expected
    assert times_us(moments, "auto").tolist() == expected


@pytest.mark.slow
@given(st.lists(st.text("0123456789-:TZ+. W/", max_size=33) | st.integers() | st.floats(), max_size=10))
def test_column_is_parsed_like_its_single_values(values):
    assert times_us(values, "auto").tolist() == [time_us(value, "auto") for value in values]


@given(st.integers(100_000_000, END_OF_TIME_US - 2))
def test_float_seconds_are_exact_to_the_microsecond_until_2242(moment):
    seconds = moment / 1e6
    tolerance = 0 if moment < 2**33 * 10**6 else 1
    assert abs(int(times_us([seconds], "s")[0]) - moment) <= tolerance
