"""The rate of a stream's events and their lateness, from the event times of a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from config.sizing import EventRate
from config.time_format import HOUR_US
from consumers.batch import Int64
from consumers.discovery.column_statistics import lateness_us
from consumers.discovery.field_roles import FieldRoles
from consumers.discovery.sample import RecordSample
from consumers.times import times_us

_MIN_SPAN_S = 0.5
_MIN_HOURS = 24
_MIN_EVENTS_PER_HOUR = 5.0
"""Mean number of events from which on an hour without events is a pause, and not the chance of a rare event."""


def event_times_us(sample: RecordSample, fields: FieldRoles) -> list[Int64]:
    """Return the event times of each partition: from the time field, or else from the broker. Empty without both."""
    name = fields.first("time")
    if name is not None:
        return [times_us(piece, "auto") for piece in sample.columns[name].pieces]
    if sample.stamps_us is None:
        return []
    stamps, partitions = np.array(sample.stamps_us, np.int64), np.array(sample.partitions)
    return [stamps[partitions == partition] for partition in np.unique(partitions)]


def estimate_volume(sample: RecordSample, fields: FieldRoles) -> tuple[EventRate | None, int]:
    """Return the rate, and the 99th percentile of the lateness in microseconds. The rate is None if it is unknown."""
    pieces = event_times_us(sample, fields)
    late = lateness_us([_without_stray_times(piece[piece >= 0]) for piece in pieces])
    return estimate_rate(pieces), int(np.quantile(late, 0.99)) if len(late) else 0


def estimate_rate(pieces: Sequence[Int64]) -> EventRate | None:
    """Return the rate of a stream from the event times of its partitions.

    The rates of the partitions add up. The median hour is that of a partition with 24 whole hours and 5 events per hour
    or more. A shorter or rarer sample has its mean rate at the median hour.

    Args:
        pieces: The event times of each partition in microseconds, in any order; negative where there is none.

    Returns:
        None without times, or if all times are nearly equal, as after a bulk load.
    """
    rates = [each for piece in pieces if (each := _partition_rate(_without_stray_times(piece[piece >= 0]))) is not None]
    if not rates:
        return None
    return EventRate(
        median_s=sum(each.median_s for each in rates),
        mean_s=sum(each.mean_s for each in rates),
        active_share=max(each.active_share for each in rates),
    )


def _partition_rate(times: Int64) -> EventRate | None:
    span_s = float(times.max() - times.min()) / 1e6 if len(times) > 1 else 0.0
    if span_s < _MIN_SPAN_S:
        return None
    mean_s = (len(times) - 1) / span_s
    hours = times // HOUR_US
    first, last = int(hours.min()) + 1, int(hours.max())
    if last - first < _MIN_HOURS or mean_s * 3_600 < _MIN_EVENTS_PER_HOUR:
        return EventRate(median_s=mean_s, mean_s=mean_s)
    counts = np.bincount(hours[(hours >= first) & (hours < last)] - first, minlength=last - first)
    return EventRate(
        median_s=float(np.median(counts)) / 3_600 or mean_s, mean_s=mean_s, active_share=float((counts > 0).mean())
    )


def _without_stray_times(times: Int64) -> Int64:
    """Return the times without those far from the others, by ten times the span of 98% of them."""
    if not len(times):
        return times
    low, high = np.quantile(times, (0.01, 0.99))
    margin = max(10 * (high - low), 3_600e6)
    near: Int64 = times[(times >= low - margin) & (times <= high + margin)]
    return near
