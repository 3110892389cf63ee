"""Training events: read from a source without moving any position, the same ones at every try.

Which events are taken depends on the log alone, not on the pace of its partitions: each partition gives its first
`L` events, `L` being the smallest level at which the partitions together have enough; a process that is killed while it
reads takes the same ones again.
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
"""Records of each partition that `features: auto` looks at."""

_POLL_TIMEOUT_S = 0.25
_END_CHECK_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Events in the order of their times; `exhausted` when the input held no more of them."""

    features: NDArray[np.float32]
    names: tuple[str, ...]
    rejected: int
    exhausted: bool
    labels: tuple[str | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.features)


def min_training_events(n_features: int) -> int:
    """Return how many events a fit needs: enough for a covariance, and for a limit to mean anything."""
    return max(50, 5 * n_features)


@dataclass(slots=True, kw_only=True)
class _PartitionProgress:
    """What one partition has given so far."""

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
        source: A source of its own, outside of any group.
        settings: Of the stream.
        starts: Where each partition begins.
        wanted: How many events; None for all until every partition ends.
        features: The names, where they are known; None to find them by the stream's settings.
        label: A field that is kept beside the features and is none of them.
        assigned: What the source has said to be assigned before, to an earlier reader of it.
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
        self._shares = {partition: _PartitionProgress() for partition in sorted(starts)}
        self._level = None if wanted is None else -(-wanted // len(starts))
        self._codec: Codec | None = None
        self._names = features
        self._label = label
        self._assigned = assigned
        self._sought: set[Partition] = set()

    @property
    def n_events(self) -> int:
        """Return how many usable events were read so far."""
        return sum(share.n_events for share in self._shares.values())

    @property
    def n_seen(self) -> int:
        """Return how many usable events were read so far; before the features are known, how many records."""
        return self.n_events if self._codec is not None else sum(share.records for share in self._shares.values())

    def read(
        self, *, stop: Callable[[], bool], deadline_s: float | None, progress: Callable[[int], None]
    ) -> TrainingSet | None:
        """Read until there are enough, or the input ends, or the deadline passes; None when told to stop.

        Args:
            stop: Says whether to give up.
            deadline_s: On the monotonic clock; what there is by then is returned. None waits for ever.
            progress: Called with the number of events read (of records, while too few have come to know the features).

        Raises:
            ConfigError: No field is a feature.
        """
        while not self._has_enough():
            if stop():
                return None
            if deadline_s is not None and time.monotonic() >= deadline_s:
                break
            self._source.set_paused(frozenset(p for p in self._shares if self._is_complete(p)))
            self._poll_records()
            self._decode_records()
            progress(self.n_seen)
        return self._build_training_set()

    def _has_enough(self) -> bool:
        """Return whether every partition has given its share; raise the level where some have no more."""
        if not all(self._is_complete(partition) for partition in self._shares):
            return False
        if self._codec is None:
            self._decode_records(final=True)
            return self._codec is None or self._has_enough()  # without any record there is nothing to wait for
        if self._wanted is None or self._level is None:
            return True
        missing = self._wanted - sum(min(s.n_events, self._level) for s in self._shares.values())
        open_shares = [share for share in self._shares.values() if not share.exhausted]
        if missing <= 0:
            return True
        if not open_shares:
            return all(s.n_events <= self._level for s in self._shares.values()) or self._raise_level(missing)
        return self._raise_level(-(-missing // len(open_shares)))

    def _raise_level(self, by: int) -> bool:
        assert self._level is not None
        self._level += by
        return False

    def _is_complete(self, partition: Partition) -> bool:
        share = self._shares[partition]
        if share.exhausted:
            return True
        if self._level is None:
            return False
        if self._codec is None:
            return share.records >= max(SAMPLE_RECORDS, self._level)
        return share.n_events >= self._level

    def _poll_records(self) -> None:
        try:
            polled = self._source.poll(_POLL_TIMEOUT_S)
        except BrokerUnavailable:
            return
        for partition in ((polled.assigned | self._assigned) & self._starts.keys()) - self._sought:
            self._source.seek(partition, self._starts[partition])
            self._sought.add(partition)
        for batch in polled.batches:
            share = self._shares[batch.partition]
            share.raw.append(batch)
            share.records += len(batch)
            share.end_checked_s = time.monotonic()
        for partition in polled.ended:
            self._shares[partition].exhausted = True
        if self._wanted is not None:
            self._check_end_of_log()

    def _check_end_of_log(self) -> None:
        """Mark the partitions that have given all that their log holds now."""
        now_s = time.monotonic()
        quiet = frozenset(
            p
            for p in self._sought
            if not self._is_complete(p) and now_s - self._shares[p].end_checked_s >= _END_CHECK_INTERVAL_S
        )
        if not quiet:
            return
        try:
            caught_up = self._source.caught_up(quiet)
        except BrokerUnavailable:
            return
        for partition in quiet:
            self._shares[partition].end_checked_s = now_s
            self._shares[partition].exhausted = partition in caught_up
        if self._logs_are_short():
            # All that is there is too little: go on waiting for what is still to be produced.
            for partition in caught_up:
                self._shares[partition].exhausted = False

    def _logs_are_short(self) -> bool:
        """Return whether the logs hold too little for now; where they hold less than a sample, that has to do."""
        wanted = self._wanted or 0
        if not all(share.exhausted for share in self._shares.values()):
            return False
        if sum(share.records for share in self._shares.values()) >= wanted:
            self._decode_records(final=True)
        return self.n_events < wanted

    def _decode_records(self, *, final: bool = False) -> None:
        """Decode what was read, once enough is there to know the features."""
        if self._codec is None:
            sampled = all(s.exhausted or s.records >= SAMPLE_RECORDS for s in self._shares.values())
            if not (sampled or final) or not any(share.raw for share in self._shares.values()):
                return
            self._make_codec()
        assert self._codec is not None
        for share in self._shares.values():
            for raw in share.raw:
                decoded = self._codec.decode(raw, time.time_ns() // 1_000)
                share.events.append(decoded.events)
                share.n_events += len(decoded.events)
                share.rejected += len(decoded.dead_letters)
            share.raw.clear()

    def _make_codec(self) -> None:
        event = self._settings.event
        sample = [raw for share in self._shares.values() for raw in _sample_batches(share.raw)]
        if self._names is None:
            self._names = tuple(name for name in discover_features(event, sample) if name != self._label)
        else:
            # A table that lacks one of them is refused by its name, not row by row.
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
        taken = [
            Events.concat(share.events).slice(0, share.n_events if self._level is None else self._level)
            for share in self._shares.values()
            if share.events
        ]
        refused = sum(share.rejected for share in self._shares.values())
        exhausted = all(share.exhausted for share in self._shares.values())
        if not taken or not any(len(events) for events in taken):
            if self._names is None and exhausted:
                raise ConfigError("there is no event to learn the features from; is the input empty?")
            names = self._names or ()
            return TrainingSet(
                features=np.empty((0, len(names)), np.float32), names=names, rejected=refused, exhausted=exhausted
            )
        events = Events.concat(taken)
        order = np.argsort(events.times_us, kind="stable")[: self._wanted]
        assert self._names is not None
        return TrainingSet(
            features=events.features[order],
            names=self._names,
            rejected=refused,
            exhausted=exhausted,
            labels=None if self._label is None or events.ids is None else tuple(events.ids[i] for i in order),
        )


def _sample_batches(batches: list[RawBatch]) -> list[RawBatch]:
    """Return the batches that hold the first records of a partition, cut to the sample."""
    first: list[RawBatch] = []
    left = SAMPLE_RECORDS
    for batch in batches:
        if left <= 0:
            break
        first.append(batch.head(left))
        left -= len(batch)
    return first
