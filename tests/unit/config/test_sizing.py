"""Window, look-back, percentile and warm-up by the rate of a stream."""

from datetime import timedelta

import pytest

from config.sizing import EventRate, EventVolume, FixedSizes, resolve_auto

HOUR = 3_600
TOPIC = EventVolume(available=50_000, grows=True, rate=EventRate(median_s=20, mean_s=20))


def steady(rate_s: float, available: int = 50_000, *, grows: bool = True) -> EventVolume:
    return EventVolume(available=available, grows=grows, rate=EventRate(median_s=rate_s, mean_s=rate_s))


def hours(n: float) -> timedelta:
    return timedelta(hours=n)


@pytest.mark.parametrize(
    ("rate_s", "window", "percentile", "look_back"),
    [
        (1_000, hours(1 / 360), 99.5, hours(24)),
        (1, hours(1 / 120), 99.5, hours(24)),
        (38 / HOUR, hours(1), 99.5, timedelta(days=14)),
        (60 / HOUR, hours(0.25), 99.5, timedelta(days=7)),
        (12 / HOUR, hours(1), 99.0, timedelta(days=18)),
        (1 / HOUR, hours(6), 95.0, timedelta(days=28)),
        (1 / (48 * HOUR), timedelta(days=1), 95.0, timedelta(days=28)),
    ],
)
def test_sizes_follow_the_rate(rate_s: float, window: timedelta, percentile: float, look_back: timedelta) -> None:
    advice = resolve_auto(steady(rate_s), 3)
    assert (advice.window, advice.percentile, advice.look_back) == (window, percentile, look_back)


def test_look_back_has_50_events_above_the_percentile_where_four_weeks_have_them() -> None:
    for per_day in range(60, 10_000, 7):
        advice = resolve_auto(steady(per_day / 86_400), 3)
        above = per_day * (advice.look_back / timedelta(days=1)) * (100 - advice.percentile) / 100
        assert above >= 50 or (advice.percentile, advice.look_back) == (95, timedelta(days=28))


def test_look_back_has_more_windows_than_a_count_model_needs() -> None:
    for rate_s in (0.0009, 0.004, 0.02, 0.1, 0.5, 2, 50):
        advice = resolve_auto(steady(rate_s), 3)
        needed = 100 if advice.window > timedelta(minutes=20) else 300
        assert advice.look_back >= needed * 1.1 * advice.window


def test_pauses_of_the_night_lengthen_the_look_back() -> None:
    day_only = EventRate(median_s=60 / HOUR, mean_s=50 / HOUR, active_share=0.5)
    advice = resolve_auto(EventVolume(available=50_000, grows=True, rate=day_only), 3)
    assert advice.window == hours(0.25)
    assert advice.look_back / advice.window * 0.5 >= 330


def test_sizes_without_a_rate_are_the_defaults() -> None:
    advice = resolve_auto(EventVolume(available=50_000, grows=True), 3)
    assert (advice.window, advice.percentile, advice.look_back, advice.warm_up) == (
        hours(1 / 60),
        99.5,
        hours(24),
        10_000,
    )
    assert "the rate of events is not known" in advice.window_reason


@pytest.mark.parametrize(
    ("volume", "warm_up"),
    [
        (TOPIC, 10_000),
        (steady(100, 1_000), 10_000),
        (steady(1, 1_000), 3_600),
        (steady(0.001, 3), 400),
        (steady(0.001, 6_000), 1_200),
        (EventVolume(available=3, grows=True), 10_000),
        (steady(1, 60_000, grows=False), 10_000),
        (steady(1, 4_032, grows=False), 806),
        (steady(1, 900, grows=False), 400),
        (steady(1, 300, grows=False), 300),
    ],
)
def test_warm_up_is_a_fifth_of_the_events_or_arrives_within_an_hour(volume: EventVolume, warm_up: int) -> None:
    assert resolve_auto(volume, 3).warm_up == warm_up


def test_many_features_require_a_longer_warm_up() -> None:
    assert resolve_auto(steady(1, 4_032, grows=False), 60).warm_up == 1_200
    assert resolve_auto(TOPIC, 1_500).warm_up == 30_000


@pytest.mark.parametrize(("available", "percentile"), [(4_000, 99.5), (2_000, 99), (300, 98), (100, 95)])
def test_percentile_is_supported_by_the_warm_up(available: int, percentile: float) -> None:
    assert resolve_auto(steady(1, available, grows=False), 2).percentile == percentile


def test_other_sizes_follow_those_that_a_user_has_set() -> None:
    volume = steady(1 / HOUR)
    advice = resolve_auto(
        volume, 3, FixedSizes(window=timedelta(days=1), percentile=90.0, look_back=timedelta(days=90))
    )
    assert (advice.window, advice.percentile, advice.look_back) == (timedelta(days=1), 90, timedelta(days=90))
    assert resolve_auto(volume, 3, FixedSizes(look_back=timedelta(days=90))).percentile == 95
    assert resolve_auto(steady(12 / HOUR), 3, FixedSizes(look_back=timedelta(days=40))).percentile == 99.5
    assert resolve_auto(volume, 3, FixedSizes(longest_window=hours(1))).window == hours(1)
    assert resolve_auto(steady(12 / HOUR), 3, FixedSizes(longest_look_back=timedelta(days=7))).look_back.days == 7
