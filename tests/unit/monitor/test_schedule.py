"""Ticks compared with a scan of every minute, and jobs that fail."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.cron import check_cron
from config.errors import ConfigError, StorageUnavailable
from monitor.schedule import JobScheduler, tick_at_or_after

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
T0 = datetime(2026, 2, 26, 22, 3, tzinfo=UTC)
MINUTE = 60_000_000
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


def us(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def field_values(field: str, lowest: int, highest: int, names: list[str], base: int) -> set[int]:
    """Return the values of a cron field by definition; weekdays count from Sunday, 7 is Sunday too."""

    def number(text: str) -> int:
        return names.index(text.lower()) + base if text.lower() in names else int(text)

    found: set[int] = set()
    for item in field.split(","):
        span, _, step = item.partition("/")
        if span == "*":
            first, last = lowest, highest
        else:
            begin, _, end = span.partition("-")
            first = number(begin)
            last = number(end) if end else (max(first, highest) if step else first)
        found |= set(range(first, last + 1, int(step or 1)))
    return found


def scan_minutes(cron: str, after: datetime) -> datetime:
    """Return the first matching minute at or after a time, by trying every minute."""
    minute, hour, day, month, weekday = cron.split()
    minutes, hours = field_values(minute, 0, 59, [], 0), field_values(hour, 0, 23, [], 0)
    days, months = field_values(day, 1, 31, [], 0), field_values(month, 1, 12, MONTHS, 1)
    weekdays = {number % 7 for number in field_values(weekday, 0, 6, WEEKDAYS, 0)}
    # As in crontab(5): two restricted day fields match if one of them does.
    match = all if day.startswith("*") or weekday.startswith("*") else any
    at = after.replace(second=0, microsecond=0)
    at += timedelta(minutes=1) if at < after else timedelta()
    while True:
        if at.month not in months or not match((at.day in days, at.isoweekday() % 7 in weekdays)):
            at = (at + timedelta(days=1)).replace(hour=0, minute=0)
        elif at.hour not in hours:
            at = (at + timedelta(hours=1)).replace(minute=0)
        elif at.minute in minutes:
            return at
        else:
            at += timedelta(minutes=1)


def test_ticks_of_a_duration_are_its_multiples() -> None:
    five = timedelta(minutes=5)
    assert [tick_at_or_after(five, time) for time in (0, 1, 5 * MINUTE, 5 * MINUTE + 1)] == [
        0,
        5 * MINUTE,
        5 * MINUTE,
        10 * MINUTE,
    ]


@given(st.integers(1, 10**12), st.integers(0, 2**60))
def test_a_tick_is_the_first_multiple_at_or_after_the_time(step: int, at_us: int) -> None:
    tick = tick_at_or_after(timedelta(microseconds=step), at_us)
    assert at_us <= tick < at_us + step
    assert tick % step == 0


@pytest.mark.parametrize(
    "cron",
    [
        "*/5 * * * *",
        "0 0 * * *",
        "7,37 */6 * * *",
        "30 4 1,15 * *",
        "0 0 * * 0",
        "0 0 * * 7",
        "0 12 * * 5-7",
        "0 12 * * 1-5/2",
        "0 12 * * */2",
        "0 12 * * */2,5",
        "0 12 * * 2/2",
        "0 12 * * mon-fri",
        "0 12 * * sun-tue",
        "0 12 * * MON-fri/2",
        "0 12 * * mon,6",
        "0 12 * * 1-wed",
        "0 0 1 mar-may/2 *",
        "0 0 1 2-4/2 *",
        "0-5/10 * * * *",
        "50/5 3 * * *",
        "59/59 23 * * *",
        "0 0 29 2 *",
        "0 0 31 * *",
        "0 0 13 * 5",
        "0 0 1,15 * MON",
        "30 6 1 mar,jun sat-sat",
        "0 12 */2 * 5",
        "0 12 13 * */2",
    ],
)
def test_a_cron_expression_agrees_with_a_scan_of_every_minute(cron: str) -> None:
    assert check_cron(cron) == cron
    at = T0
    for _ in range(8):
        expected = scan_minutes(cron, at)
        assert tick_at_or_after(cron, us(at)) == us(expected)
        at = expected + timedelta(microseconds=1)


def test_a_date_that_does_not_exist_is_rejected_with_the_expression() -> None:
    with pytest.raises(ConfigError, match=r"30 2 .* a date that does not exist"):
        tick_at_or_after("0 0 30 2 *", us(T0))


@st.composite
def cron_field(draw: st.DrawFn, lowest: int, highest: int) -> str:
    def item() -> str:
        first = draw(st.integers(lowest, highest))
        last = draw(st.none() | st.integers(first, highest))
        span = draw(st.sampled_from(["*", f"{first}" if last is None else f"{first}-{last}"]))
        step = draw(st.none() | st.integers(1, highest))
        return span if step is None else f"{span}/{step}"

    return ",".join(item() for _ in range(draw(st.integers(1, 2))))


@pytest.mark.slow
@given(cron_field(0, 59), cron_field(0, 23), cron_field(0, 7), st.integers(0, 400 * 1440))
def test_any_minute_hour_and_weekday_agree_with_the_scan(minute: str, hour: str, weekday: str, minutes: int) -> None:
    cron = check_cron(f"{minute} {hour} * * {weekday}")
    at = T0 + timedelta(minutes=minutes, microseconds=minutes % 3)
    assert tick_at_or_after(cron, us(at)) == us(scan_minutes(cron, at))


def until(condition: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    gate = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{within_s:g} s passed"
        gate.wait(0.01)


def test_a_failed_job_runs_again_and_has_no_success_age() -> None:
    runs = []

    def fail() -> None:
        runs.append(1)
        raise ValueError("broken")

    scheduler = JobScheduler(time.monotonic)
    scheduler.add_job(0.02, "broken", fail)
    scheduler.start()
    try:
        until(lambda: len(runs) >= 3)
        assert scheduler.success_ages_s() == {"broken": None}
    finally:
        scheduler.stop()


def test_the_success_age_of_a_job_grows_from_its_last_success() -> None:
    now = [100.0]
    broken = threading.Event()
    runs = []

    def job() -> None:
        runs.append(broken.is_set())
        if broken.is_set():
            raise OSError("the disk is unavailable")

    scheduler = JobScheduler(lambda: now[0])
    scheduler.add_job(0.02, "job", job)
    scheduler.start()
    try:
        until(lambda: scheduler.success_ages_s()["job"] == 0.0)
        broken.set()
        until(lambda: True in runs)
        now[0] = 160.0
        until(lambda: runs.count(True) >= 3)
    finally:
        scheduler.stop()
    assert scheduler.success_ages_s() == {"job": 60.0}


def test_a_job_never_runs_concurrently_and_missed_runs_coalesce() -> None:
    inside, most, runs = 0, 0, 0
    go_on = threading.Event()
    lock = threading.Lock()

    def job() -> None:
        nonlocal inside, most, runs
        with lock:
            inside, runs = inside + 1, runs + 1
            most = max(most, inside)
        go_on.wait(0.2)
        with lock:
            inside -= 1

    scheduler = JobScheduler(time.monotonic)
    scheduler.add_job(0.01, "slow", job)
    scheduler.start()
    until(lambda: runs >= 2)
    go_on.set()
    scheduler.stop()
    assert most == 1


def test_jobs_run_after_the_clock_was_set_back() -> None:
    runs = threading.Event()
    scheduler = JobScheduler(time.monotonic)
    scheduler.add_job(0.02, "job", runs.set)
    scheduler.start()
    try:
        # The state of the scheduler after it planned with a clock that was a day ahead.
        scheduler._scheduler.modify_job("job", next_run_time=datetime.now(UTC) + timedelta(days=1))
        runs.clear()
        scheduler.reschedule()
        assert runs.wait(30)
    finally:
        scheduler.stop()


def test_rescheduling_keeps_a_next_run_within_its_interval() -> None:
    scheduler = JobScheduler(time.monotonic)
    scheduler.add_job(3600, "job", lambda: None)
    scheduler.start()
    try:
        planned = scheduler._scheduler.get_job("job").next_run_time
        scheduler.reschedule()
        assert scheduler._scheduler.get_job("job").next_run_time == planned
    finally:
        scheduler.stop()


def test_the_first_run_of_a_job_may_be_before_its_interval() -> None:
    scheduler = JobScheduler(time.monotonic)
    ran = threading.Event()
    scheduler.add_job(3600, "job", ran.set, first_s=0)
    scheduler.start()
    try:
        assert ran.wait(30)
        later = scheduler._scheduler.get_job("job").next_run_time
        assert later > datetime.now(UTC) + timedelta(minutes=50)
    finally:
        scheduler.stop()


def test_stopping_a_scheduler_that_never_started_is_no_error() -> None:
    JobScheduler(time.monotonic).stop()


def test_every_failure_and_the_next_success_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    outcomes: list[Exception | None] = [
        None,
        None,
        StorageUnavailable("unavailable"),
        StorageUnavailable("unavailable"),
        None,
        None,
    ]
    done = threading.Event()
    reported = []

    def job() -> None:
        if not outcomes:
            done.set()
            return
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    scheduler = JobScheduler(lambda: 100.0, lambda name, error: reported.append((name, error)))
    scheduler.add_job(0.01, "job", job)
    with caplog.at_level(logging.WARNING):
        scheduler.start()
        assert done.wait(30)
        scheduler.stop()
    assert reported == [("job", None), ("job", "unavailable"), ("job", "unavailable"), ("job", None)]
    messages = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    assert messages == ["The job job failed: unavailable; it runs again after its interval."]
