"""Rate and lateness of the events of a sample."""

import numpy as np
import pytest

from config.time_format import DAY_US, HOUR_US, MINUTE_US
from consumers.discovery.event_rate import estimate_rate, estimate_volume
from consumers.discovery.field_roles import assign_roles
from tests.unit.consumers.discovery.test_field_roles import NOW_US, N, sample_of

DAY_START_US = NOW_US // DAY_US * DAY_US


def test_rate_and_lateness_are_measured_on_event_time() -> None:
    events = [{"ts": 1_767_000_000 + i / 4 - (30 if i % 20 == 0 else 0), "x": i % 9} for i in range(N)]
    sample = sample_of(events)
    rate, late_us = estimate_volume(sample, assign_roles(sample, NOW_US, max_future_us=0))
    assert rate is not None
    assert rate.mean_s == pytest.approx(4, rel=0.4)
    assert late_us == pytest.approx(30e6, rel=0.05)


def test_bulk_load_without_times_has_no_rate() -> None:
    sample = sample_of([{"x": i % 9} for i in range(N)], timestamps_us=np.full(N, NOW_US))
    assert estimate_volume(sample, assign_roles(sample, NOW_US, max_future_us=0)) == (None, 0)
    assert estimate_rate([]) is None


def test_rates_of_partitions_add_up() -> None:
    rate = estimate_rate([NOW_US + np.arange(100) * MINUTE_US, NOW_US + 500 * MINUTE_US + np.arange(50) * MINUTE_US])
    assert rate is not None
    assert rate.mean_s == pytest.approx(2 / 60)


def test_rate_of_a_stream_with_nights_is_that_of_the_median_hour() -> None:
    hours = [hour for day in range(7) for hour in range(24 * day + 6, 24 * day + 24)]
    times = np.concatenate([DAY_START_US + hour * HOUR_US + np.arange(30) * 2 * MINUTE_US for hour in hours])
    rate = estimate_rate([times])
    assert rate is not None
    assert rate.median_s * 3_600 == pytest.approx(30)
    assert rate.mean_s * 3_600 == pytest.approx(30 * 18 / 24, rel=0.05)
    assert rate.active_share == pytest.approx(0.75, abs=0.03)


def test_rare_events_have_no_pauses() -> None:
    rate = estimate_rate([DAY_START_US + np.arange(200) * 2 * HOUR_US])
    assert rate is not None
    assert (rate.median_s, rate.active_share) == (rate.mean_s, 1.0)
