"""Reader of training events: reads from a source without moving a position, and selects the same events each time.

The selection depends only on the log, not on the speed of its partitions. Each partition contributes its first `L`
events, where `L` is the smallest level at which the partitions together have enough. A process that is killed while
reading selects the same events after a restart.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from config.errors import BrokerUnavailable, ConfigError
from config.settings import StreamSettings
from config.units import to_us
from consumers.batch import Events, Partition, Position, RawBatch
from consumers.codec import Codec, make_codec
from consumers.discovery.features import discover_features
from consumers.source import Source

SAMPLE_RECORDS = 1_000
"""The number of records of each partition that `features: auto` examines."""

_POLL_TIMEOUT_S = 0.25
_END_CHECK_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Training events in order of event time.

    Attributes:
        features: The features, (n, D).
        names: The D feature names.
        rejected: The number of records rejected by the codec.
        exhausted: True if the input contains no further events.
        labels: The label field of each event, if one was requested.
    """

    features: NDArray[np.float32]
    names: tuple[str, ...]
    rejected: int
    exhausted: bool
    labels: tuple[str | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.features)


def min_training_events(n_features: int) -> int:
    """Return the minimum number of events for a fit: enough for a covariance and for a meaningful threshold."""
    return max(50, 5 * n_features)


@dataclass(slots=True, kw_only=True)
class _PartitionProgress:
    """Records and events read so far from one partition."""

    raw: list[RawBatch] = field(default_factory=list)
    records: int = 0
    events: list[Events] = field(default_factory=list)
    n_events: int = 0
    rejected: int = 0
    exhausted: bool = False
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
        self._assigned = assigned
        self._sought: set[Partition] = set()

    @property
    def n_events(self) -> int:
        """The number of usable events read so far."""
        return sum(state.n_events for state in self._partitions.values())

    @property
    def n_seen(self) -> int:
        """The number of usable events read so far; the number of records until the features are known."""
        return self.n_events if self._codec is not None else sum(state.records for state in self._partitions.values())

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
            self._poll_records()
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
        missing = self._wanted - sum(min(s.n_events, self._level) for s in self._partitions.values())
        open_partitions = [state for state in self._partitions.values() if not state.exhausted]
        if missing <= 0:
            return True
        if not open_partitions:
            return all(s.n_events <= self._level for s in self._partitions.values()) or self._raise_level(missing)
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
        try:
            polled = self._source.poll(_POLL_TIMEOUT_S)
        except BrokerUnavailable:
            return
        for partition in ((polled.assigned | self._assigned) & self._starts.keys()) - self._sought:
            self._source.seek(partition, self._starts[partition])
            self._sought.add(partition)
        for batch in polled.batches:
            state = self._partitions[batch.partition]
            state.raw.append(batch)
            state.records += len(batch)
            state.end_checked_s = time.monotonic()
        for partition in polled.ended:
            self._partitions[partition].exhausted = True
        if self._wanted is not None:
            self._check_end_of_log()

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
        try:
            caught_up = self._source.caught_up(idle)
        except BrokerUnavailable:
            return
        for partition in idle:
            self._partitions[partition].end_checked_s = now_s
            self._partitions[partition].exhausted = partition in caught_up
        if self._logs_are_short():
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
        """Decode the records read, once there are enough to discover the features; with `final`, in any case."""
        if self._codec is None:
            sampled = all(s.exhausted or s.records >= SAMPLE_RECORDS for s in self._partitions.values())
            if not (sampled or final) or not any(state.raw for state in self._partitions.values()):
                return
            self._make_codec()
        assert self._codec is not None
        for state in self._partitions.values():
            for raw in state.raw:
                decoded = self._codec.decode(raw, time.time_ns() // 1_000)
                state.events.append(decoded.events)
                state.n_events += len(decoded.events)
                state.rejected += len(decoded.dead_letters)
            state.raw.clear()

    def _make_codec(self) -> None:
        event = self._settings.event
        sample = [raw for state in self._partitions.values() for raw in _sample_batches(state.raw)]
        if self._names is None:
            self._names = tuple(name for name in discover_features(event, sample) if name != self._label)
        else:
            # A table without one of the columns fails here with its name, instead of rejecting every row.
            discover_features(event.model_copy(update={"features": self._names}), sample)
        if self._label is not None:
            event = event.model_copy(update={"id": self._label})
        self._codec = make_codec(
            event,
            self._names,
            layout=self._source.layout,
            max_future_us=to_us(self._settings.window.max_future),
        )

    def _build_training_set(self) -> TrainingSet:
        if self._codec is None:
            self._decode_records(final=True)
        selected = [
            Events.concat(state.events).slice(0, state.n_events if self._level is None else self._level)
            for state in self._partitions.values()
            if state.events
        ]
        rejected = sum(state.rejected for state in self._partitions.values())
        exhausted = all(state.exhausted for state in self._partitions.values())
        if not selected or not any(len(events) for events in selected):
            if self._names is None and exhausted:
                raise ConfigError("there is no event to discover the features from; is the input empty?")
            names = self._names or ()
            return TrainingSet(
                features=np.empty((0, len(names)), np.float32), names=names, rejected=rejected, exhausted=exhausted
            )
        events = Events.concat(selected)
        order = np.argsort(events.times_us, kind="stable")[: self._wanted]
        assert self._names is not None
        return TrainingSet(
            features=events.features[order],
            names=self._names,
            rejected=rejected,
            exhausted=exhausted,
            labels=None if self._label is None or events.ids is None else tuple(events.ids[i] for i in order),
        )


def _sample_batches(batches: list[RawBatch]) -> list[RawBatch]:
    """Return the first `SAMPLE_RECORDS` records of a partition."""
    sample: list[RawBatch] = []
    remaining = SAMPLE_RECORDS
    for batch in batches:
        if remaining <= 0:
            break
        sample.append(batch.head(remaining))
        remaining -= len(batch)
    return sample
