"""Training events from the log itself: the newest retained events, or those since a time.

The selection is a function of the log up to its ends at the start of the reading. No position is read or moved.
"""

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError
from config.streams import StreamSettings
from config.units import to_us
from consumers.batch import Partition, RawBatch
from consumers.codec import Codec
from consumers.decoded_batch import Events
from consumers.discovery.ranges import RangeReader, RetainedRange, newest_ranges
from consumers.discovery.rejections import RejectionCounts
from consumers.source import PartitionInfo, Source
from monitor.models.training_codec import build_training_codec, find_features, sample_batches
from monitor.models.training_history import find_history
from monitor.models.training_set import TrainingSet

_MIN_BLOCK = 100


class RetainedEventsReader:
    """Reads retained events of one stream; owns its source while it reads.

    Args:
        source: A source used by this reader only, outside of any consumer group.
        settings: The settings of the stream.
        features: The feature names; None to discover them by the stream's settings, in the newest records.
        label: A field to read beside the features; it is excluded from them.
        progress: Called with the number of usable events read so far.
    """

    def __init__(
        self,
        source: Source,
        settings: StreamSettings,
        *,
        features: tuple[str, ...] | None = None,
        label: str | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._settings = settings
        self._ranges = RangeReader(source)
        self._names = features
        self._label = label
        self._progress = progress
        self._codec: Codec | None = None
        self._rejections = RejectionCounts(settings.event, ())
        self._n_read = 0

    def read(
        self, partitions: list[PartitionInfo], *, last: int | None = None, since: timedelta | None = None
    ) -> TrainingSet:
        """Read the newest events by event time.

        Args:
            partitions: The partitions with the ends up to which they are read.
            last: The number of events; None for all.
            since: Events of this duration before the latest event time; None for all.

        Raises:
            ConfigError: No record has been retained, or no field of the records is a feature.
            BrokerUnavailable: The brokers do not answer.
        """
        if since is None:
            assert last is not None, "one of the two bounds the events"
            pieces, cutoff_us = self._read_newest(partitions, last), None
        else:
            latest = [int(each.times_us.max()) for each in self._read_newest(partitions, 1).values() if len(each)]
            self._reset_counts()
            cutoff_us = max(latest, default=0) - to_us(since)
            pieces = self._read_since(partitions, cutoff_us)
        return self._build_training_set([pieces[each] for each in sorted(pieces)], last, cutoff_us)

    def _reset_counts(self) -> None:
        self._n_read = 0
        self._rejections = RejectionCounts(self._settings.event, self._names or ())

    def _read_newest(self, partitions: list[PartitionInfo], last: int) -> dict[Partition, Events]:
        """Return at least the last `last` events of each partition, reading further back over records that are none."""
        pieces: dict[Partition, list[Events]] = {}
        counts: Counter[Partition] = Counter()
        size = max(last, _MIN_BLOCK)
        ranges = newest_ranges(partitions, size)
        begins = {each.partition: each.begin for each in partitions}
        while ranges:
            for partition, events in self._read_ranges(ranges).items():
                pieces.setdefault(partition, []).insert(0, events)
                counts[partition] += len(events)
            size *= 2
            ranges = {
                partition: RetainedRange(begin=max(begins[partition], done.begin - size), end=done.begin)
                for partition, done in ranges.items()
                if counts[partition] < last and done.begin > begins[partition]
            }
        return {partition: Events.concat(blocks) for partition, blocks in pieces.items()}

    def _read_since(self, partitions: list[PartitionInfo], cutoff_us: int) -> dict[Partition, Events]:
        """Return the events of the records since a time of the broker that no later event time precedes."""
        earliest_us = max(0, cutoff_us - to_us(self._settings.window.max_future))
        starts = self._source.resolve(earliest_us, partitions)
        return self._read_ranges(
            {
                each.partition: RetainedRange(begin=starts[each.partition].next_offset, end=each.end)
                for each in partitions
            }
        )

    def _read_ranges(self, ranges: dict[Partition, RetainedRange]) -> dict[Partition, Events]:
        pending: list[RawBatch] = []
        pieces: dict[Partition, list[Events]] = {}

        def take(raw: RawBatch) -> None:
            pending.append(raw)
            if self._codec is not None:
                decode()

        def decode() -> None:
            assert self._codec is not None
            for raw in pending:
                decoded = self._codec.decode(raw, time.time_ns() // 1_000)
                self._rejections.add(raw, decoded.dead_letters)
                pieces.setdefault(raw.partition, []).append(self._select_columns(decoded.events))
                self._n_read += len(decoded.events)
            pending.clear()
            self._progress(self._n_read)

        self._ranges.read(ranges, take)
        if self._codec is None and any(len(raw) for raw in pending):
            self._make_codec(pending)
        if pending and self._codec is not None:
            decode()
        return {partition: Events.concat(blocks) for partition, blocks in pieces.items()}

    def _select_columns(self, events: Events) -> Events:
        """Return the columns that a fit needs: keys are the largest, and only derived features use them."""
        return Events(
            offsets=events.offsets,
            times_us=events.times_us,
            features=events.features,
            keys=events.keys if self._settings.event.derive != "none" else None,
            ids=events.ids if self._label is not None else None,
        )

    def _make_codec(self, batches: list[RawBatch]) -> None:
        by_partition: dict[Partition, list[RawBatch]] = {}
        for raw in batches:
            by_partition.setdefault(raw.partition, []).append(raw)
        sample = [raw for partition in sorted(by_partition) for raw in sample_batches(by_partition[partition])]
        self._names = find_features(self._settings.event, sample, self._names, self._label)
        self._codec = build_training_codec(self._settings, self._names, self._source.layout, self._label)
        self._reset_counts()

    def _build_training_set(self, pieces: list[Events], last: int | None, cutoff_us: int | None) -> TrainingSet:
        if self._names is None:
            raise ConfigError(
                "no record is retained, so there is no event to fit on: wait for events, or fit on a file"
            )
        events = Events.concat(pieces) if pieces else Events.empty(len(self._names))
        order = self._select_newest(events.times_us, last, cutoff_us)
        history = find_history(pieces, self._settings.event, self._names)
        return TrainingSet(
            features=events.features[order],
            names=self._names,
            rejected=self._rejections.n_rejected,
            exhausted=True,
            labels=None if self._label is None or events.ids is None else tuple(events.ids[i] for i in order),
            rejections=self._rejections.groups(),
            history=None if history is None else history.select(order),
            partition_times_us=tuple(each.times_us for each in pieces),
        )

    def _select_newest(self, times_us: NDArray[np.int64], last: int | None, cutoff_us: int | None) -> NDArray[np.intp]:
        """Return the indices of the selected events in order of event time."""
        order = np.argsort(times_us, kind="stable")
        if cutoff_us is not None:
            order = order[times_us[order] >= cutoff_us]
        return order if last is None else order[-last:]
