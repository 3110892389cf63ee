"""Progress of a warm-up and its remaining time, from the rate of the last minute."""

import pytest

from monitor.models.warm_up_progress import WarmUpRate, format_progress


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


@pytest.mark.parametrize(
    ("n", "left_s", "text"),
    [
        (312, 2_400.0, "warming up: 312 of 10,000 events, about 40 min left"),
        (312, 9_000.0, "warming up: 312 of 10,000 events, about 2 h left"),
        (9_990, 0.2, "warming up: 9,990 of 10,000 events, about 1 s left"),
        (312, None, "warming up: 312 of 10,000 events"),
        (0, None, "warming up: 0 of 10,000 events, waiting for the first"),
        (10_400, 0.0, "warming up: 10,000 of 10,000 events, fitting"),
    ],
)
def test_progress_as_text(n: int, left_s: float | None, text: str) -> None:
    assert format_progress(n, 10_000, left_s) == text
