"""Counts of a stream, delivery times, and histograms."""

from dataclasses import replace

import numpy as np
import pytest

from consumers.batch import Partition
from monitor.metrics.counters import BucketCounts, StreamCounters
from monitor.metrics.delivery import DeliveryTimes
from tests.unit.monitor.metrics.commits import make_commit

PART = Partition(topic="payments", partition=0)


def test_a_histogram_counts_up_to_and_including_each_bound() -> None:
    one_by_one, together = BucketCounts((1.0, 2.0)), BucketCounts((1.0, 2.0))
    values = np.array([0.5, 1.0, 1.5, 2.5])
    for value in values.tolist():
        one_by_one.add(value)
    together.add_all(values)
    assert one_by_one.cumulative() == together.cumulative() == [("1", 2.0), ("2", 3.0), ("+Inf", 4.0)]
    assert one_by_one.sum == together.sum == pytest.approx(5.5)


def test_commits_are_counted_by_their_rows() -> None:
    counters = StreamCounters()
    counters.count_commits([make_commit(events=5, outliers=2, late=1, dead=("not_json", "empty"), filtered=3)])
    counters.count_commits([make_commit(events=1, dead=("not_json",))])
    counters.count_commits([replace(make_commit(), begin=10, end=17, gap_reason="retention")])
    numbers = (counters.events, counters.outliers, counters.late, counters.filtered, counters.gap_offsets)
    assert numbers == (6, 2, 1, 3, 7)
    assert counters.dead_letters == {"not_json": 2, "empty": 1}
    assert counters.stored_rows == {"scores": 6, "outliers": 2, "dead_letters": 3}


def test_delivery_times_are_counted_once_for_each_stored_record() -> None:
    times = DeliveryTimes(BucketCounts((1.0, 10.0)))
    offsets = np.arange(4, dtype=np.int64)
    times.note_records(PART, offsets, offsets * 1_000_000)
    times.note_records(PART, offsets + 4, (offsets + 4) * 1_000_000)
    times.observe_commit(PART, 2, 5_000_000)
    assert times.histogram.cumulative()[-1] == ("+Inf", 2.0)
    times.observe_commit(PART, 6, 6_000_000)
    assert times.histogram.cumulative() == [("1", 1.0), ("10", 6.0), ("+Inf", 6.0)]
    assert times.histogram.sum == pytest.approx(5 + 4 + 4 + 3 + 2 + 1)
    times.forget_partition(PART)
    times.observe_commit(PART, 8, 9_000_000)
    assert times.histogram.cumulative()[-1] == ("+Inf", 6.0)


def test_sources_without_timestamps_have_no_delivery_times() -> None:
    times = DeliveryTimes(BucketCounts((1.0,)))
    times.note_records(PART, np.arange(3, dtype=np.int64), None)
    times.observe_commit(PART, 3, 1)
    assert times.histogram.cumulative()[-1] == ("+Inf", 0.0)
