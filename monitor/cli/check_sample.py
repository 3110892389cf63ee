"""A sample of the records of a topic or a file for `outrider check`: which would be rejected, and why."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from config.sizing import EventRate
from config.streams import StreamSettings
from consumers.batch import Int64, Partition, RawBatch
from consumers.discovery.event_rate import estimate_rate
from consumers.discovery.ranges import RangeReader, RetainedRange, newest_ranges
from consumers.discovery.rejections import RejectionCounts, RejectionGroup
from consumers.discovery.sample import sample_records
from consumers.discovery.unread_times import warn_about_times
from consumers.source import PartitionInfo, Source
from monitor.models.first_sizes import has_event_times
from monitor.models.training_codec import build_training_codec, find_features
from monitor.models.training_set import describe_features
from monitor.models.warm_up_progress import format_rejection

SAMPLE_RECORDS = 1_000
"""The number of records of a sample."""

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReport:
    """The result of decoding a sample.

    Attributes:
        which: The records of the sample as text: newest or first.
        n_records: The number of records.
        n_rejected: The number of records that would be rejected.
        features: The features of the usable events.
        rejections: The rejected records by reason and field, the largest group first.
        time_warnings: Warnings about the event time.
        rate: The rate of the usable events; None if it is not known.
    """

    which: str
    n_records: int
    n_rejected: int
    features: tuple[str, ...]
    rejections: tuple[RejectionGroup, ...]
    time_warnings: tuple[str, ...] = ()
    rate: EventRate | None = None

    @property
    def is_unusable(self) -> bool:
        """Whether there are records, and none is an event."""
        return 0 < self.n_records <= self.n_rejected

    def lines(self) -> Iterator[str]:
        """Yield the report as lines of text."""
        if not self.n_records:
            yield "sample: no record to decode yet"
            return
        usable = self.n_records - self.n_rejected
        yield (
            f"sample: {usable:,} of the {self.which} {self.n_records:,} records are events with "
            f"{describe_features(self.features)}"
        )
        for each in self.rejections:
            yield f"  warning: would be rejected: {format_rejection(each)}"
        for warning in self.time_warnings:
            yield f"  warning: {warning}"


def decode_sample(
    source: Source,
    stream_settings: StreamSettings,
    partitions: Sequence[PartitionInfo],
    features: tuple[str, ...] | None,
) -> SampleReport:
    """Decode the newest records of a topic, or the first of a file, as the daemon does.

    Args:
        source: A source used by this function only, outside of any consumer group.
        stream_settings: The settings of the stream.
        partitions: The partitions with their offsets.
        features: The features of the stored model; None to take those of the settings.

    Raises:
        ConfigError: No field is a feature, or a table lacks a configured column.
        BrokerUnavailable: The brokers do not answer.
    """
    batches: list[RawBatch] = []
    newest = stream_settings.source.type == "kafka"
    per_partition = -(-SAMPLE_RECORDS // max(1, len(partitions)))
    ranges = newest_ranges(partitions, per_partition)
    if not newest:
        ranges = {each.partition: RetainedRange(begin=0, end=min(each.end, per_partition)) for each in partitions}
    RangeReader(source).read(ranges, batches.append, deadline_s=time.monotonic() + _TIMEOUT_S)
    batches.sort(key=lambda raw: (raw.partition, raw.begin))
    which = "newest" if newest else "first"
    n_records = sum(map(len, batches))
    if not n_records:
        return SampleReport(which=which, n_records=0, n_rejected=0, features=(), rejections=())
    names = find_features(stream_settings.event, batches, features, None)
    codec = build_training_codec(stream_settings, names, source.layout, None)
    counts = RejectionCounts(stream_settings.event, names)
    times_us: dict[Partition, list[Int64]] = {}
    for raw in batches:
        decoded = codec.decode(raw, time.time_ns() // 1_000)
        counts.add(raw, decoded.dead_letters)
        times_us.setdefault(raw.partition, []).append(decoded.events.times_us)
    pieces = [np.concatenate(each) for each in times_us.values()] if has_event_times(stream_settings) else []
    return SampleReport(
        which=which,
        n_records=n_records,
        n_rejected=counts.n_rejected,
        features=names,
        rejections=counts.groups(),
        time_warnings=tuple(_warn_about_times(stream_settings, batches)),
        rate=estimate_rate(pieces),
    )


def _warn_about_times(stream_settings: StreamSettings, batches: Sequence[RawBatch]) -> Iterator[str]:
    event = stream_settings.event
    time_settings = event.time
    return warn_about_times(
        sample_records(batches, event.format),
        None if time_settings is None else time_settings.field,
        time.time_ns() // 1_000,
        is_file=stream_settings.source.type == "file",
        unit="auto" if time_settings is None else time_settings.unit,
    )
