"""Progress of a warm-up: its remaining time from the rate of events, rejected records, and the text of both."""

from typing import Any

import pytest

from monitor.models.warm_up_progress import CaughtUpRate, WarmUpRate, format_progress, format_rate, format_rejections
from storage.control.warm_up import RejectedRecords, WarmUpProgress

ABSENT = RejectedRecords(
    reason="missing_feature", n=1_200, detail="amount: absent", hint="the field nearest to 'amount' is 'amout'"
)
NOT_JSON = RejectedRecords(reason="not_json", n=34, detail="unexpected end")


def make_progress(n: int, left_s: float | None = None, wanted: int = 10_000, **values: Any) -> WarmUpProgress:
    return WarmUpProgress(events=n, wanted=wanted, left_s=left_s, **values)


def test_remaining_time_follows_the_rate_of_the_last_minute() -> None:
    rate = WarmUpRate()
    assert rate.remaining_s(0.0, 300, 10_000) is None, "one observation gives no rate"
    assert rate.remaining_s(1.0, 304, 10_000) == pytest.approx((10_000 - 304) / 4)
    # A backlog of 5,000 events in a second, then four a second: after a minute the backlog no longer counts.
    rate.remaining_s(2.0, 5_304, 10_000)
    for second in range(3, 64):
        left_s = rate.remaining_s(float(second), 5_304 + 4 * (second - 2), 10_000)
    assert left_s == pytest.approx((10_000 - 5_548) / 4)


def test_remaining_time_is_unknown_without_new_events() -> None:
    rate = WarmUpRate()
    rate.remaining_s(0.0, 5, 10)
    assert rate.remaining_s(30.0, 5, 10) is None
    assert rate.remaining_s(31.0, 10, 10) == 0.0


def test_rate_of_a_slow_log_is_that_of_the_whole_log() -> None:
    rate = CaughtUpRate()
    assert rate.events_per_s(0.0, 37, 3_600.0) == pytest.approx(37 / 3_600)
    assert rate.events_per_s(60.0, 38, 3_660.0) == pytest.approx(38 / 3_660), "one event in a minute is no rate"


def test_rate_of_a_fast_log_is_that_of_the_last_minute() -> None:
    rate = CaughtUpRate()
    rate.events_per_s(0.0, 1_000, 1e6)
    assert rate.events_per_s(10.0, 1_040, 1e6) == pytest.approx(4.0)


def test_rate_of_a_log_without_timestamps_needs_new_events() -> None:
    rate = CaughtUpRate()
    assert rate.events_per_s(0.0, 5, None) is None
    assert rate.events_per_s(10.0, 6, None) == pytest.approx(0.1)


def test_rate_of_a_log_without_usable_events_is_unknown() -> None:
    assert CaughtUpRate().events_per_s(0.0, 0, 3_600.0) is None


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (make_progress(312, 2_400.0), "warming up: 312 of 10,000 events, about 40 min left"),
        (make_progress(312, 9_000.0), "warming up: 312 of 10,000 events, about 2 h left"),
        (make_progress(9_990, 0.2), "warming up: 9,990 of 10,000 events, about 1 s left"),
        (make_progress(312), "warming up: 312 of 10,000 events"),
        (make_progress(0), "warming up: 0 of 10,000 events, waiting for the first"),
        (make_progress(10_400, 0.0), "warming up: 10,000 of 10,000 events, fitting"),
        (
            make_progress(172, 518_400.0, wanted=5_500, caught_up=True, events_per_s=37 / 3_600),
            "warming up: 172 of 5,500 events, caught up; at 37 events/h this takes 6 days",
        ),
        (
            make_progress(
                172, 518_400.0, wanted=5_500, caught_up=True, events_per_s=37 / 3_600, fits_early_in_s=3_300.0
            ),
            "warming up: 172 of 5,500 events, caught up; at 37 events/h this takes 6 days, but it fits with fewer "
            "after 55 minutes",
        ),
        (make_progress(0, caught_up=True), "warming up: 0 of 10,000 events, caught up; waiting for the first"),
        (
            make_progress(0, wanted=500, records=1_200, rejected=1_200, rejections=(ABSENT,), caught_up=True),
            "warming up: 0 of 500 events, all 1,200 records rejected: missing_feature 1,200 (amount: absent; the field "
            "nearest to 'amount' is 'amout'), caught up; waiting for the first usable event",
        ),
        (
            make_progress(100, wanted=500, records=1_334, rejected=1_234, rejections=(ABSENT, NOT_JSON)),
            "warming up: 100 of 500 events, 1,234 of 1,334 records rejected: missing_feature 1,200 (amount: absent; "
            "the field nearest to 'amount' is 'amout') and 1 more",
        ),
    ],
)
def test_progress_as_text(progress: WarmUpProgress, text: str) -> None:
    assert format_progress(progress) == text


@pytest.mark.parametrize(
    ("per_s", "text"),
    [(250.0, "250 events/s"), (0.5, "30 events/min"), (37 / 3_600, "37 events/h"), (3 / 86_400, "3 events/d")],
)
def test_rate_as_text(per_s: float, text: str) -> None:
    assert format_rate(per_s) == text


def test_at_most_five_kinds_of_rejected_records_are_listed() -> None:
    text = format_rejections([NOT_JSON] * 7)
    assert text.count("not_json 34") == 5
    assert text.endswith(", ...")


def test_stored_progress_is_read_again() -> None:
    progress = make_progress(
        5, 3.0, records=9, rejected=4, rejections=(ABSENT, NOT_JSON), caught_up=True, events_per_s=0.5
    )
    assert WarmUpProgress.from_details({"warm_up": progress.to_details()}) == progress


def test_stored_progress_of_an_older_program_is_read() -> None:
    stored = {"warm_up": {"events": 12, "wanted": 500, "left_s": 60.0}}
    assert WarmUpProgress.from_details(stored) == make_progress(12, 60.0, wanted=500)
    assert WarmUpProgress.from_details({}, 300) == make_progress(0, wanted=300)
