"""Reader of training events: reads from a source without moving a position, and selects the same events each time.

The selection depends only on the log, not on the speed of its partitions. Each partition contributes its first `L`
events, where `L` is the smallest level at which the partitions together have enough. A process that is killed while
reading selects the same events after a restart.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from config.errors import BrokerUnavailable, ConfigError
from config.streams import StreamSettings
from consumers.batch import Partition, Position, RawBatch
from consumers.codec import Codec
from consumers.decoded_batch import Events
from consumers.discovery.rejections import RejectionCounts
from consumers.source import Source
from monitor.models.training_codec import (
    SAMPLE_RECORDS,
    RejectionPreview,
    build_training_codec,
    find_features,
    sample_batches,
)
from monitor.models.training_history import find_history
from monitor.models.training_set import TrainingSet, min_training_events

_POLL_TIMEOUT_S = 0.25
_END_CHECK_INTERVAL_S = 0.5


@dataclass(slots=True, kw_only=True)
class _PartitionProgress:
    """Records and events read so far from one partition."""

    raw: list[RawBatch] = field(default_factory=list)
    records: int = 0
    events: list[Events] = field(default_factory=list)
    n_events: int = 0
    exhausted: bool = False
    at_end: bool = False
    end_checked_s: float = float("-inf")


class TrainingReader:
    """Reads the training events of one stream; owns its source while it reads.

    Args:
        source: A source used by this reader only, outside of any consumer group.
        settings: The settings of the stream.
        starts: The start position of each partition.
        wanted: The number of events; None for all events until every partition ends.
        features: The feature names; None to discover them by the stream's settings.
        label: A field to read beside the features; it is excluded from them.
        waits: Wait for further records at the end of the logs; False to return the events that they contain.
        assigned: Partitions that the source has already reported as assigned, to an earlier reader.
    """

    def __init__(
        self,
        source: Source,
        settings: StreamSettings,
        starts: Mapping[Partition, Position],
        *,
        wanted: int | None,
        features: tuple[str, ...] | None = None,
        label: str | None = None,
        waits: bool = True,
        assigned: frozenset[Partition] = frozenset(),
    ) -> None:
        self._source = source
        self._settings = settings
        self._starts = starts
        self._wanted = wanted
        self._partitions = {partition: _PartitionProgress() for partition in sorted(starts)}
        self._level = None if wanted is None else -(-wanted // len(starts))
        self._codec: Codec | None = None
        self._names = features
        self._label = label
        self._waits = waits
        self._assigned = assigned
        self._sought: set[Partition] = set()
        self._rejections = RejectionCounts(settings.event, ())
        self._preview = RejectionPreview(settings, source.layout, features, label)
        self._first_record_us: int | None = None
        self.unavailable: BrokerUnavailable | None = None

    @property
    def n_events(self) -> int:
        """The number of usable events read so far."""
        return sum(state.n_events for state in self._partitions.values())

    @property
    def n_seen(self) -> int:
        """The number of usable events read so far; the number of records until the features are known."""
        return self.n_events if self._codec is not None else self.n_records

    @property
    def n_records(self) -> int:
        """The number of records read so far."""
        return sum(state.records for state in self._partitions.values())

    @property
    def knows_features(self) -> bool:
        """Whether the features are known, so that records are decoded as they are read."""
        return self._codec is not None

    @property
    def n_features(self) -> int | None:
        """The number of features; None until they are known."""
        return None if self._names is None else len(self._names)

    @property
    def first_record_us(self) -> int | None:
        """The earliest timestamp of the records read, in microseconds since 1970; None without timestamps."""
        return self._first_record_us

    @property
    def caught_up(self) -> bool:
        """Whether the partitions that need more events were read to the current end of their logs."""
        incomplete = [state for partition, state in self._partitions.items() if not self._is_complete(partition)]
        return bool(incomplete) and all(state.at_end for state in incomplete)

    def rejections(self) -> RejectionCounts:
        """Return the counts of the rejected records read so far.

        Until the features are known, the records are decoded for these counts alone, with the features of the
        records so far. The counts may therefore change once.
        """
        if self._codec is not None:
            return self._rejections
        return self._preview.count([raw for state in self._partitions.values() for raw in state.raw])

    def read(
        self, *, stop: Callable[[], bool], deadline_s: float | None, progress: Callable[[int], None]
    ) -> TrainingSet | None:
        """Read until there are enough events, the input ends or the deadline passes; None after `stop`.

        May be called again after the deadline, to continue reading.

        Args:
            stop: Returns True to abort reading.
            deadline_s: A time of the monotonic clock, after which the events read so far are returned; None
                for no deadline.
            progress: Called with the number of events read (records, until the features are known).

        Raises:
            ConfigError: No field is a feature, or the input is empty and the features are unknown.
        """
        while not self._has_enough():
            if stop():
                return None
            if deadline_s is not None and time.monotonic() >= deadline_s:
                break
            self._source.set_paused(frozenset(p for p in self._partitions if self._is_complete(p)))
            try:
                self._poll_records()
            except BrokerUnavailable as error:
                self.unavailable = error
            self._decode_records()
            progress(self.n_seen)
        return self._build_training_set()

    def _has_enough(self) -> bool:
        """Return whether every partition has reached the level; raise the level if exhausted partitions fall short."""
        if not all(self._is_complete(partition) for partition in self._partitions):
            return False
        if self._codec is None:
            self._decode_records(final=True)
            return self._codec is None or self._has_enough()  # without any record there is nothing to decode
        if self._wanted is None or self._level is None:
            return True
        level = self._level
        missing = self._wanted - sum(min(state.n_events, level) for state in self._partitions.values())
        # A partition that may contribute more counts whether its end is known or not, so that the level depends
        # on the log alone. A step is the least that can suffice, so that the level is the smallest one.
        open_partitions = [s for s in self._partitions.values() if not s.exhausted or s.n_events > level]
        if missing <= 0 or not open_partitions:
            return True
        return self._raise_level(-(-missing // len(open_partitions)))

    def _raise_level(self, by: int) -> bool:
        assert self._level is not None
        self._level += by
        return False

    def _is_complete(self, partition: Partition) -> bool:
        state = self._partitions[partition]
        if state.exhausted:
            return True
        if self._level is None:
            return False
        if self._codec is None:
            return state.records >= max(SAMPLE_RECORDS, self._level)
        return state.n_events >= self._level

    def _poll_records(self) -> None:
        self._seek_starts(self._assigned)  # before the first records, which would be those after an earlier reader's
        polled = self._source.poll(_POLL_TIMEOUT_S)
        self._seek_starts(polled.assigned)
        for batch in polled.batches:
            state = self._partitions[batch.partition]
            state.raw.append(batch)
            state.records += len(batch)
            self._note_first_record(batch)
            state.end_checked_s = time.monotonic()
        for partition in polled.ended:
            self._partitions[partition].exhausted = True
        if self._wanted is not None:
            self._check_end_of_log()
        self.unavailable = self._source.problem

    def _seek_starts(self, assigned: frozenset[Partition]) -> None:
        for partition in (assigned & self._starts.keys()) - self._sought:
            self._source.seek(partition, self._starts[partition])
            self._sought.add(partition)

    def _note_first_record(self, batch: RawBatch) -> None:
        stamps = batch.timestamps_us
        if stamps is None or not (stamps >= 0).any():
            return
        first_us = int(stamps[stamps >= 0].min())
        self._first_record_us = first_us if self._first_record_us is None else min(first_us, self._first_record_us)

    def _check_end_of_log(self) -> None:
        """Mark the partitions that have been read to the current end of their log."""
        now_s = time.monotonic()
        idle = frozenset(
            p
            for p in self._sought
            if not self._is_complete(p) and now_s - self._partitions[p].end_checked_s >= _END_CHECK_INTERVAL_S
        )
        if not idle:
            return
        caught_up = self._source.caught_up(idle)
        for partition in idle:
            self._partitions[partition].end_checked_s = now_s
            self._partitions[partition].exhausted = self._partitions[partition].at_end = partition in caught_up
        if self._waits and self._logs_are_short():
            # The logs contain too few events: wait for further records.
            for partition in caught_up:
                self._partitions[partition].exhausted = False

    def _logs_are_short(self) -> bool:
        """Return whether all logs together contain too few events.

        Logs shorter than the sample of records are decoded as they are.
        """
        wanted = self._wanted or 0
        if not all(state.exhausted for state in self._partitions.values()):
            return False
        if sum(state.records for state in self._partitions.values()) >= wanted:
            self._decode_records(final=True)
        return self.n_events < wanted

    def _decode_records(self, *, final: bool = False) -> None:
        """Decode the records read, once the features are known.

        Configured features are known from the first record on. Others are discovered in a sample of each partition;
        with `final`, in the records that were read.
        """
        if self._codec is None:
            sampled = self._has_configured_features or all(
                s.exhausted or s.records >= SAMPLE_RECORDS for s in self._partitions.values()
            )
            if not (sampled or final) or not any(state.raw for state in self._partitions.values()):
                return
            self._make_codec()
        assert self._codec is not None
        for state in self._partitions.values():
            for raw in state.raw:
                decoded = self._codec.decode(raw, time.time_ns() // 1_000)
                state.events.append(decoded.events)
                state.n_events += len(decoded.events)
                self._rejections.add(raw, decoded.dead_letters)
            state.raw.clear()

    @property
    def _has_configured_features(self) -> bool:
        return self._names is not None or self._settings.event.features != "auto"

    def _make_codec(self) -> None:
        sample = [raw for state in self._partitions.values() for raw in sample_batches(state.raw)]
        self._names = find_features(self._settings.event, sample, self._names, self._label)
        self._rejections = RejectionCounts(self._settings.event, self._names)
        self._codec = build_training_codec(self._settings, self._names, self._source.layout, self._label)

    def _discover_features(self, *, is_final: bool) -> None:
        """Decode the records read so far; without any feature in them, wait for others unless the input has ended."""
        try:
            self._decode_records(final=True)
        except ConfigError:
            if is_final or self._has_configured_features:
                raise

    def _build_training_set(self) -> TrainingSet:
        exhausted = all(state.exhausted for state in self._partitions.values())
        if self._codec is None and (exhausted or self.n_records >= min_training_events(1)):
            # With fewer records there is no model yet; they would only fix the features too early.
            self._discover_features(is_final=exhausted)
        selected = [
            Events.concat(state.events).slice(0, state.n_events if self._level is None else self._level)
            for state in self._partitions.values()
            if state.events
        ]
        rejections = self.rejections()
        if not selected or not any(len(events) for events in selected):
            if self._names is None and exhausted:
                raise ConfigError("there is no event to discover the features from; is the input empty?")
            names = self._names or ()
            return TrainingSet(
                features=np.empty((0, len(names))),
                names=names,
                rejected=rejections.n_rejected,
                exhausted=exhausted,
                rejections=rejections.groups(),
            )
        events = Events.concat(selected)
        order = np.argsort(events.times_us, kind="stable")[: self._wanted]
        assert self._names is not None
        history = find_history(selected, self._settings.event, self._names)
        return TrainingSet(
            features=events.features[order],
            names=self._names,
            rejected=rejections.n_rejected,
            exhausted=exhausted,
            rejections=rejections.groups(),
            labels=None if self._label is None or events.ids is None else tuple(events.ids[i] for i in order),
            history=None if history is None else history.select(order),
            partition_times_us=tuple(each.times_us for each in selected),
        )
