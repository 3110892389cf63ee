"""The synthetic source: generated events, delivered at a set pace and identical after a restart."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from config.errors import BrokerUnavailable
from config.time_format import MINUTE_US
from consumers.batch import Partition, Position, RawBatch
from consumers.source import Layout, PartitionInfo, PollResult, StartPosition
from consumers.synthetic.plan import BLOCK_EVENTS, JsonEventEncoder, PlantedAnomaly, SyntheticPlan

MIN_POLL_WAIT_S = 0.1
"""The longest wait of a paced poll for further events, so that slow streams do not deliver single events."""

ROWS_PER_POLL = 5_000
UNBOUNDED_OFFSET = 2**53


class SyntheticSource:
    """Generated events in the form of a broker: JSON bytes, offsets and timestamps.

    Every block of events has its own seed. Delivery can therefore start at any offset without generating the
    events before it, and a restart neither repeats nor omits an event. With `start_us` None the stream starts
    at the minute of its first `discover`. A later process continues with that start if it gets the
    `identity` returned by `discover`.

    With a speed of 1 and without a given start, events are delivered at their event time, including events
    that became due while the source was not read. Otherwise the pace counts from the first `seek`. A speed of
    0 is unpaced.
    """

    def __init__(
        self,
        plan: SyntheticPlan,
        *,
        events: int | None = None,
        speed: float = 1.0,
        start_us: int | None = None,
        identity: str | None = None,
        topic: str = "synthetic",
    ) -> None:
        self.plan = plan
        self._events = events
        self._speed = speed
        self._live = start_us is None and speed == 1.0
        self._start_us = _parse_start(identity, plan) if start_us is None else start_us
        self._partitions = [Partition(topic=topic, partition=p) for p in range(plan.partitions)]
        self._rows = JsonEventEncoder(plan.feature_names)
        self._next: dict[Partition, int] = {}
        self._ended: set[Partition] = set()
        self._paused: AbstractSet[Partition] = frozenset()
        self._anchor: tuple[float, int] | None = None
        self._blocks: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}
        self._assignment_reported = False

    @property
    def layout(self) -> Layout:
        """The layout: one JSON object for each event."""
        return "lines"

    @property
    def start_us(self) -> int:
        """The event time of the start of the stream, set by the first access, in microseconds since 1970."""
        if self._start_us is None:
            self._start_us = time.time_ns() // 1_000 // MINUTE_US * MINUTE_US
        return self._start_us

    def discover(self) -> list[PartitionInfo]:
        """Return all partitions with the numbers of their due events."""
        identity = f"synthetic:plan={self.plan.fingerprint}:start={self.start_us}"
        return [
            PartitionInfo(partition=each, identity=identity, begin=0, end=self._due_offset(each))
            for each in self._partitions
        ]

    def resolve(self, start: StartPosition, partitions: Sequence[PartitionInfo]) -> dict[Partition, Position]:
        """Return the start positions: the beginning, the end of the due events, or the slot of a time."""
        return {each.partition: Position(next_offset=self._resolve_offset(start, each)) for each in partitions}

    def _resolve_offset(self, start: StartPosition, found: PartitionInfo) -> int:
        if start == "earliest":
            return 0
        if start == "latest":
            return found.end
        return min(
            found.end, self._partition_share(found.partition, self.plan.slots_before(int(start) - self.start_us))
        )

    def _partition_share(self, partition: Partition, slots: int) -> int:
        """Return the number of events of a partition among the first `slots` events of the stream."""
        n = self.plan.partitions
        return max(0, -(-(slots - partition.partition) // n))

    def _due_offset(self, partition: Partition) -> int:
        """Return the offset after the due events of a partition."""
        total = self._total_events(partition)
        if self._speed == 0:
            return total
        return min(total, self._partition_share(partition, self.plan.slots_before(self._now_us() - self.start_us)))

    def _now_us(self) -> int:
        """Return the current event time in microseconds since 1970."""
        if self._live:
            return time.time_ns() // 1_000
        if self._anchor is None:
            return self.start_us
        began_s, at_us = self._anchor
        return at_us + int((time.monotonic() - began_s) * self._speed * 1e6)

    def seek(self, partition: Partition, position: Position) -> None:
        """Continue at an offset."""
        if partition not in self._partitions:
            raise KeyError(partition)
        if self._anchor is None:
            since_start_us = self.plan.first_time_us(partition.partition, position.next_offset)
            self._anchor = (time.monotonic(), self.start_us + since_start_us)
        self._next[partition] = position.next_offset
        self._ended.discard(partition)

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        """Pause exactly these partitions."""
        self._paused = frozenset(partitions)

    def poll(self, timeout_s: float) -> PollResult:
        """Return the due events, at most about a block of each partition."""
        if not self._assignment_reported:
            self._assignment_reported = True
            return PollResult(assigned=frozenset(self._partitions))
        delivering = [each for each in self._next if each not in self._paused and each not in self._ended]
        if not delivering:
            time.sleep(timeout_s)
            return PollResult()
        if not any(self._has_full_block(each) for each in delivering):
            time.sleep(min(timeout_s, MIN_POLL_WAIT_S))
        batches = []
        for each in delivering:
            batches.extend(self._take_due_events(each))
        ended = frozenset(each for each in delivering if self._next[each] >= self._total_events(each))
        self._ended |= ended
        return PollResult(batches=batches, ended=ended)

    def _total_events(self, partition: Partition) -> int:
        return UNBOUNDED_OFFSET if self._events is None else self._partition_share(partition, self._events)

    def _has_full_block(self, partition: Partition) -> bool:
        due = self._due_offset(partition)
        return due >= self._total_events(partition) or due - self._next[partition] >= BLOCK_EVENTS

    def _take_due_events(self, partition: Partition) -> list[RawBatch]:
        """Return the due events of a partition as batches, each inside one block."""
        batches = []
        capacity = ROWS_PER_POLL // len(self._partitions) + 1
        due = self._due_offset(partition)
        while capacity > 0 and self._next[partition] < due:
            begin = self._next[partition]
            end = min(due, begin + capacity, (begin // BLOCK_EVENTS + 1) * BLOCK_EVENTS)
            batches.append(self._batch(partition, begin, end))
            self._next[partition] = end
            capacity -= end - begin
        return batches

    def _batch(self, partition: Partition, begin: int, end: int) -> RawBatch:
        p, number = partition.partition, begin // BLOCK_EVENTS
        cached = self._blocks.get(p)
        if cached is None or cached[0] != number:
            cached = (number, *self.plan.generate_block(p, number))
            self._blocks[p] = cached
        rows = slice(begin - number * BLOCK_EVENTS, end - number * BLOCK_EVENTS)
        offsets = np.arange(begin, end, dtype=np.int64)
        times_us = cached[1][rows] + self.start_us
        values = self._rows.encode(p, offsets, times_us, cached[2][rows])
        return RawBatch(
            partition=partition, begin=begin, end=end, offsets=offsets, values=values, timestamps_us=times_us
        )

    def caught_up(self, partitions: AbstractSet[Partition]) -> frozenset[Partition]:
        """Return the partitions with all due events delivered."""
        return frozenset(each for each in partitions if self._next.get(each, -1) >= self._due_offset(each))

    @property
    def problem(self) -> BrokerUnavailable | None:
        """None: there is no broker."""
        return None

    @property
    def log_ends(self) -> Mapping[Partition, int]:
        """Nothing: the stream is made when it is read."""
        return {}

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing: the synthetic stream has no lag monitors."""

    def close(self) -> None:
        """Discard the positions and the cached blocks."""
        self._next.clear()
        self._blocks.clear()

    def planted_anomalies(self, until_us: int | None = None) -> list[tuple[int, int, str]]:
        """Return the bursts and the drift as (start, end, kind) in event time, up to the last delivered event."""
        if until_us is None:
            positions_us = [self.plan.first_time_us(each.partition, n) for each, n in self._next.items()]
            until_us = self.start_us + max(positions_us, default=0)
        found: list[PlantedAnomaly] = self.plan.planted_anomalies(self.start_us, until_us)
        return [(each.start_us, each.end_us, each.kind) for each in found]


def _parse_start(identity: str | None, plan: SyntheticPlan) -> int | None:
    """Return the start time in an identity, or None if the identity is of another plan."""
    found = re.fullmatch(rf"synthetic:plan={plan.fingerprint}:start=(\d+)", identity or "")
    return int(found[1]) if found else None
