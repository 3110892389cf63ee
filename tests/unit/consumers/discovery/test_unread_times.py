"""Fields that look like times: read, refused with the cause, or measures of the same magnitude."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers.discovery.event_rate import estimate_volume
from consumers.discovery.unread_times import find_unread_times, warn_about_times
from tests.unit.consumers.discovery.test_field_roles import NOW_US, N, field_roles, role_of, roles_by_name, sample_of

START = datetime(2025, 12, 20, 8, tzinfo=UTC)
MOMENTS = [START + timedelta(seconds=i) for i in range(N)]
RNG = random.Random(5)


def events_with(name: str, values: list[Any], **others: list[Any]) -> list[dict[str, Any]]:
    return [
        {name: value, "x": RNG.gauss(0, 1), **{key: column[i] for key, column in others.items()}}
        for i, value in enumerate(values)
    ]


def warnings_for(values: list[Any], name: str, *, is_file: bool = True) -> list[str]:
    events = events_with(name, values)
    return list(warn_about_times(sample_of(events), field_roles(events).first("time"), NOW_US, is_file=is_file))


UNREAD: dict[str, tuple[str, Callable[[datetime], Any], str]] = {
    "day and month may be confused": ("when", lambda t: t.strftime("%d/%m/%Y %H:%M:%S"), "cannot be read as times"),
    "German": ("Zeit", lambda t: t.strftime("%d.%m.%Y %H:%M"), "cannot be read as times, such as '20.12.2025 08:00'"),
    "zone name": ("ts", lambda t: t.strftime("%Y-%m-%d %H:%M:%S CET"), "cannot be read as times"),
    "12 hours": ("t", lambda t: t.strftime("%b %d, %Y %I:%M:%S %p"), "cannot be read as times"),
    "time of day": ("clock", lambda t: t.strftime("%H:%M:%S"), "cannot be read as times"),
    "one in ten": (
        "ts",
        lambda t: "n/a 00:00" if t.second % 10 == 0 else t.isoformat(),
        "10% of its texts cannot be read",
    ),
    ".NET": ("Timestamp", lambda t: int((t.timestamp() + 62_135_596_800) * 1e7), "ticks of .NET"),
    "Windows": ("CreationTime", lambda t: int((t.timestamp() + 11_644_473_600) * 1e7), "ticks of Windows files"),
    "WebKit": ("visit_time", lambda t: int((t.timestamp() + 11_644_473_600) * 1e6), "as in WebKit"),
    "NTP": ("ts", lambda t: t.timestamp() + 2_208_988_800, "as in NTP"),
    "Excel": ("time", lambda t: t.timestamp() / 86_400 + 25_569, "days since 1900, as in Excel"),
    "date as a number": ("day", lambda t: int((t + timedelta(days=t.second)).strftime("%Y%m%d")), "dates as YYYYMMDD"),
    "seconds since the start": ("Time", lambda t: (t - START).total_seconds(), "0 to 399, are not s, ms, us or ns"),
}


@pytest.mark.parametrize(("name", "form", "reason"), UNREAD.values(), ids=UNREAD.keys())
def test_time_that_cannot_be_read_is_named_with_the_cause(
    name: str, form: Callable[[datetime], Any], reason: str
) -> None:
    values = [form(moment) for moment in MOMENTS]
    if name == "day":
        values = sorted(values)
    role, why = role_of(values, name)
    assert role == "refused"
    assert why.startswith("a time that is not read")
    assert reason in why
    first, second = warnings_for(values, name)
    assert first.startswith(f"{name} looks like a time, but ")
    assert "write ISO 8601" in first
    assert (
        second
        == "no field is the event time: events get the time of reading, so that a recorded history shrinks to now"
    )
    assert warnings_for(values, name, is_file=False)[1] == "the event time is the broker's timestamp"


READ: dict[str, Callable[[datetime], Any]] = {
    "PostgreSQL": lambda t: t.strftime("%Y-%m-%d %H:%M:%S+00"),
    "basic": lambda t: t.strftime("%Y%m%dT%H%M%SZ"),
    "HTTP": lambda t: t.strftime("%a, %d %b %Y %H:%M:%S GMT"),
    "compact": lambda t: int(t.strftime("%Y%m%d%H%M%S")),
    "nanoseconds": lambda t: int(t.timestamp()) * 10**9,
}


@pytest.mark.parametrize("form", READ.values(), ids=READ.keys())
def test_time_that_can_be_read_gives_no_warning(form: Callable[[datetime], Any]) -> None:
    values = [form(moment) for moment in MOMENTS]
    assert role_of(values, "ts")[0] == "time"
    assert warnings_for(values, "ts") == []


def test_range_of_an_epoch_is_shown() -> None:
    values = [int(moment.timestamp()) for moment in MOMENTS]
    assert role_of(values, "ts")[1] == "epoch in s, 2025-12-20T08:00:00Z to 2025-12-20T08:06:39Z"


def test_old_newest_time_is_a_warning() -> None:
    values = [int(moment.timestamp()) - 978_307_200 for moment in MOMENTS]  # seconds since 2001, as in Apple's systems
    (warning,) = warnings_for(values, "time")
    assert "the newest time of time is 1994-12-20T08:06:39Z" in warning


@pytest.mark.parametrize(
    "values",
    [
        ["10.0.0.1"] * N,
        ["1.2.3"] * N,
        ["aa:bb:cc:00:11:22"] * N,
        ["16:9"] * N,
        ["order 12345678"] * N,
        [RNG.gauss(3, 1) for _ in range(N)],
        list(range(N)),
    ],
)
def test_other_texts_and_numbers_do_not_look_like_times(values: list[Any]) -> None:
    assert find_unread_times(sample_of(events_with("a", values)), NOW_US) == []


MEASURES: dict[str, tuple[str, list[Any]]] = {
    "bytes of a disk": ("free_bytes", [int(RNG.gauss(1.2e12, 1e9)) for _ in range(N)]),
    "any name": ("q", [int(RNG.gauss(1.7e12, 1e9)) for _ in range(N)]),
    "nanoseconds of a counter": ("load", [int(RNG.gauss(1.5e18, 8e16)) for _ in range(N)]),
    "nearly constant": ("used", [1_700_000_000_000 + RNG.randrange(1_000) ** 2 for _ in range(N)]),
}


@pytest.mark.parametrize(("name", "values"), MEASURES.values(), ids=MEASURES.keys())
def test_measure_of_the_magnitude_of_an_epoch_is_a_feature_if_the_time_is_known(name: str, values: list[Any]) -> None:
    events = events_with(name, values, ts=[moment.isoformat() for moment in MOMENTS])
    found = roles_by_name(events)
    assert found["ts"][0] == "time"
    assert found[name][0] == "feature", found[name][1]


def test_quantity_is_never_the_event_time() -> None:
    assert role_of([1_700_000_000_000 + 4_096 * i for i in range(N)], "bytes_total")[0] == "refused"
    assert role_of([int(RNG.gauss(1.2e12, 1e9)) for _ in range(N)], "free_bytes")[0] == "feature"


@pytest.mark.parametrize("name", ["paid", "expires_at"])
def test_second_time_is_not_a_feature(name: str) -> None:
    values = [int(moment.timestamp() * 1_000) - RNG.randrange(20_000) for moment in MOMENTS]
    found = roles_by_name(events_with(name, values, ts=[moment.isoformat() for moment in MOMENTS]))
    assert found[name][0] == "refused"
    assert "epoch in ms" in found[name][1]


def test_one_stray_time_does_not_hide_the_time_field() -> None:
    values = [moment.isoformat() for moment in MOMENTS]
    values[100] = "2099-01-01T00:00:00Z"
    events = events_with("ts", values)
    found = field_roles(events)
    assert found.first("time") == "ts"
    rate, late_us = estimate_volume(sample_of(events), found)
    assert rate is not None
    assert rate.median_s == pytest.approx(1, rel=0.1)
    assert late_us == 0
