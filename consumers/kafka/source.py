"""The Kafka source."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from config.errors import BrokerUnavailable, ConfigError
from config.time_format import DAY_US
from consumers.batch import RETENTION, UNREADABLE_BATCH, Partition, Position, RawBatch
from consumers.kafka.assignment import Assignment, AssignmentChange
from consumers.kafka.chunks import MAX_CHUNK_BYTES, RecordChunk, merge_empty, pack_records
from consumers.kafka.client import KafkaConnection, ReadLimits
from consumers.kafka.client_options import client_options
from consumers.kafka.topic_directory import TopicDirectory
from consumers.kafka.topic_watch import TopicWatch
from consumers.kafka.unreadable import find_unreadable_ranges
from consumers.source import Layout, PartitionInfo, PollResult, StartPosition

log = logging.getLogger(__name__)

_CAUGHT_UP_TIMEOUT_S = 3.0
# A poll waits in slices of this length. Between them it checks for assignments and for positions without records.
_WAIT_SLICE_S = 0.25
# The broker's timestamp is the producer's own by default, and one device with a clock that is years ahead must not
# seal all windows. One day is the tolerance for the error of this machine's clock.
_CLOCK_ERROR_US = DAY_US
# Bytes of a record in the arrays of a chunk: offset, time, bounds of value and key, record batch.
_RECORD_ARRAY_BYTES = 64


class KafkaSource:
    """The partitions of Kafka topics, read from the caller's positions. Offsets committed to Kafka are not read.

    With `join` the consumer group assigns and revokes partitions. Without it the source reads all partitions,
    and `publish` uses the group id only to show positions to lag monitors. The first call that needs the
    connection opens it, in the calling process. The process must not fork afterwards.

    The end of a range that the client cannot read is found by reading from later offsets with other
    consumers. The range is delivered as a batch without records. It is stored in memory, so that later
    consumers of this source skip it.

    Args:
        topics: The names of existing topics.
        bootstrap_servers: The addresses of the initial brokers, each as host:port.
        client: The options of kafka-python under their names there.
        group_id: The consumer group.
        join: Share the partitions with the other members of the group.
        limits: How record batches are read.

    Raises:
        ConfigError: An option is unknown to the client, or is set by Outrider.
    """

    def __init__(
        self,
        topics: Sequence[str],
        bootstrap_servers: Sequence[str],
        client: Mapping[str, Any] | None = None,
        *,
        group_id: str | None = None,
        join: bool = True,
        limits: ReadLimits | None = None,
    ) -> None:
        self._topics = tuple(topics)
        self._options = client_options(bootstrap_servers, client or {}, group_id)
        self._limits = limits or ReadLimits()
        self._joins = join and group_id is not None
        self._directory = TopicDirectory(self._options)
        self._watch = TopicWatch(self._directory, self._topics)
        self._connection: KafkaConnection | None = None
        self._assignment = Assignment()
        # Appended by the client's IO thread, popped from the left by `poll`.
        self._changes: deque[AssignmentChange] = deque()
        self._skipped: list[RawBatch] = []
        self._replaced: set[Partition] = set()
        self._unreadable: dict[Partition, dict[int, int]] = {}
        self._unanswered: BrokerUnavailable | None = None
        self._log_ends: Mapping[Partition, int] = {}

    @property
    def problem(self) -> BrokerUnavailable | None:
        """Return the error of the last question for the logs' ends, or that a topic is missing; None otherwise."""
        return self._watch.missing or self._unanswered

    @property
    def layout(self) -> Layout:
        """The layout: one value per record."""
        return "lines"

    @property
    def memory_bound_bytes(self) -> int:
        """The upper bound of the memory for fetched records before delivery, in bytes.

        It consists of one response in flight, one undelivered fetch of every partition, one decompressed record batch
        with a copy of its largest record, and the records of one poll. A single uncompressed record larger than
        `max_partition_fetch_bytes` is not included.
        """
        per_partition = int(self._options["max_partition_fetch_bytes"])
        in_flight = int(self._options["fetch_max_bytes"])
        n_partitions = max(1, sum(len(topic.partitions) for topic in self._watch.topics_by_name.values()))
        decompressed = 2 * self._limits.max_decompressed_bytes
        poll = 2 * MAX_CHUNK_BYTES + _RECORD_ARRAY_BYTES * int(self._options["max_poll_records"])
        return in_flight + 2 * n_partitions * per_partition + decompressed + poll

    def discover(self) -> list[PartitionInfo]:
        """Return all partitions of the topics with the topic's id, the log's start and the last stable offset."""
        connection = self._connect()
        topics = self._directory.describe(self._topics)
        found = [(each, topic.identity) for topic in topics.values() for each in topic.partitions]
        begins = connection.beginning_offsets(partition for partition, _ in found)
        ends = connection.end_offsets(partition for partition, _ in found)
        return [
            PartitionInfo(partition=each, identity=identity, begin=begins[each], end=ends[each])
            for each, identity in sorted(found)
        ]

    def resolve(self, start: StartPosition, partitions: Sequence[PartitionInfo]) -> dict[Partition, Position]:
        """Return the start position of each partition. A time after the last record resolves to the end."""
        if start == "earliest":
            return {each.partition: Position(next_offset=each.begin) for each in partitions}
        ends = {each.partition: Position(next_offset=each.end) for each in partitions}
        if start == "latest" or not partitions:
            return ends
        # Kafka's timestamps are milliseconds. The first record at or after a time is found with the time rounded up.
        first = self._connect().offsets_at_time(ends, max(0, -(-start // 1000)))
        return ends | {each: Position(next_offset=offset) for each, offset in first.items()}

    def seek(self, partition: Partition, position: Position) -> None:
        """Start the delivery of an assigned partition at a position.

        Raises:
            KeyError: The partition is not assigned.
        """
        self._assignment.seek(partition, position.next_offset)
        self._replaced.discard(partition)
        self._skipped = [batch for batch in self._skipped if batch.partition != partition]
        self._seek_client(partition, position.next_offset)
        self._apply_pauses()

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        """Pause exactly these partitions and resume all others that have a position."""
        self._assignment.set_paused(partitions)
        self._apply_pauses()

    def poll(self, timeout_s: float) -> PollResult:
        """Return new batches and partition changes, waiting up to `timeout_s` seconds for the first one."""
        deadline = time.monotonic() + timeout_s
        while True:
            connection = self._connect()
            remaining_s = 0.0 if self._skipped or self._changes else deadline - time.monotonic()
            chunks = self._fetch(connection, max(0.0, min(remaining_s, _WAIT_SLICE_S)))
            poll = self._collect(chunks if self._are_from_known_topics(chunks) else {})
            if poll.batches or poll.assigned or poll.revoked or poll.replaced or time.monotonic() >= deadline:
                return poll

    def caught_up(self, partitions: AbstractSet[Partition]) -> frozenset[Partition]:
        """Return the partitions delivered up to the last stable offset. Return none if no broker answers."""
        asked = partitions & self._assignment.positioned
        if not asked or self._connection is None:
            return frozenset()
        try:
            ends = self._connection.end_offsets(asked, timeout_s=_CAUGHT_UP_TIMEOUT_S)
        except BrokerUnavailable as error:
            log.debug("cannot read the end offsets: %s", error, extra={"action": "caught_up"})
            self._unanswered = error
            return frozenset()
        self._unanswered = None
        self._log_ends = ends
        # Equal, not greater: a position beyond the end belongs to a deleted log.
        return frozenset(each for each in asked if self._assignment.next_offset(each) == ends[each])

    @property
    def log_ends(self) -> Mapping[Partition, int]:
        """The last stable offsets of the last `caught_up` that was answered."""
        return self._log_ends

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Commit positions to Kafka for lag monitors. Failures are only logged."""
        if self._connection is not None:
            self._connection.commit(positions)

    def close(self) -> None:
        """Leave the group and close all connections, within a few seconds even if no broker answers."""
        self._directory.close()
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._watch.forget_check()
        if connection is not None:
            connection.close()

    def _connect(self) -> KafkaConnection:
        """Return the connection of this process. Open it if there is none."""
        if self._connection is None:
            found = self._directory.describe(self._topics)
            self._connection = KafkaConnection(self._options, self._limits)
            self._watch.topics_by_name = found
            if self._joins:
                self._connection.subscribe(self._topics, self._changes)
            else:
                self._assign_without_group({each for topic in found.values() for each in topic.partitions})
        return self._connection

    def _assign_without_group(self, partitions: AbstractSet[Partition]) -> None:
        """Assign partitions without a group. Partitions with a position continue, new ones are reported."""
        if self._connection is not None:
            self._connection.assign(partitions)
        for partition in self._assignment.positioned:
            self._seek_client(partition, self._assignment.next_offset(partition) or 0)
        new = frozenset(partitions - self._assignment.partitions)
        if new:
            self._changes.append(("assigned", new))
        self._apply_pauses()

    def _apply_pauses(self) -> None:
        if self._connection is not None:
            self._connection.resume_only(self._assignment.delivering)

    def _seek_client(self, partition: Partition, next_offset: int) -> None:
        """Set the client's position. A position inside a known unreadable range moves to its end."""
        for begin, end in self._unreadable.get(partition, {}).items():
            if begin <= next_offset < end:
                self._skip_range(partition, next_offset, end, UNREADABLE_BATCH)
                return
        if self._connection is not None:  # otherwise the next connection starts from the assignment
            self._connection.seek(partition, next_offset)

    def _skip_range(self, partition: Partition, begin: int, end: int, reason: str) -> None:
        """Queue a batch without records for a range, and continue after it."""
        gap = _to_raw_batch(partition, begin, pack_records([], end))
        self._skipped.append(replace(gap, skip_reason=reason))
        self._assignment.advance(partition, end)
        self._seek_client(partition, end)

    def _fetch(self, connection: KafkaConnection, wait_s: float) -> Mapping[Partition, Sequence[RecordChunk]]:
        """Return the fetched records. Handle out-of-range positions, truncation and unreadable batches."""
        fetched = connection.fetch(wait_s)
        if fetched.out_of_range:
            self._handle_out_of_range(connection, fetched.out_of_range)
        if fetched.truncated:
            self._stop_replaced(fetched.truncated)
        if fetched.unreadable is not None:
            self._skip_unreadable(fetched.unreadable)
        return fetched.chunks

    def _are_from_known_topics(self, chunks: Mapping[Partition, Sequence[RecordChunk]]) -> bool:
        """Return True if fetched records are from the known logs. Discard them if not, or if that cannot be checked."""
        if not chunks:
            return True
        try:
            replaced = self._watch.find_replaced()
        except (BrokerUnavailable, ConfigError) as error:
            log.debug("cannot look up the topics: %s", error, extra={"action": "look_up"})
            self._discard_fetched(chunks, frozenset())
            return False
        if replaced:
            self._discard_fetched(chunks, replaced)
        return not replaced

    def _discard_fetched(self, partitions: Iterable[Partition], replaced: AbstractSet[str]) -> None:
        """Discard fetched records. Partitions of re-created topics are stopped; others are fetched again."""
        for partition in self._assignment.positioned.intersection(partitions):
            self._seek_client(partition, self._assignment.next_offset(partition) or 0)
        if replaced:
            self._stop_replaced({each for each in self._assignment.partitions if each.topic in replaced})
            # The client may still buffer records of the old log, and cache its leader epochs.
            self._reconnect()

    def _collect(self, chunks: Mapping[Partition, Sequence[RecordChunk]]) -> PollResult:
        """Build the batches of fetched records, and collect all changes since the last poll."""
        self._check_topics()
        changes = [self._changes.popleft() for _ in range(len(self._changes))]
        assigned, revoked = self._assignment.apply_changes(changes)
        delivering = self._assignment.delivering
        batches = [batch for batch in self._skipped if batch.partition in delivering]
        kept = self._assignment.positioned - delivering
        self._skipped = [batch for batch in self._skipped if batch.partition in kept]
        for partition in sorted(delivering):
            batches.extend(self._build_batches(partition, chunks.get(partition, [])))
        replaced, self._replaced = self._replaced, set()
        if changes:
            self._apply_pauses()
        return PollResult(batches=batches, assigned=assigned, revoked=revoked, replaced=frozenset(replaced))

    def _build_batches(self, partition: Partition, chunks: Sequence[RecordChunk]) -> Iterator[RawBatch]:
        """Yield the batches of one partition's chunks, up to its new position."""
        begin = self._assignment.next_offset(partition)
        if begin is None:
            return
        for chunk in merge_empty(chunks):
            if chunk.end <= begin:
                continue
            if chunk.unreadable is not None:
                _warn_of_range(partition, begin, chunk.end, chunk.unreadable)
            yield _to_raw_batch(partition, begin, chunk.trim(begin))
            begin = chunk.end
            self._assignment.advance(partition, begin)
        if begin in self._unreadable.get(partition, {}):
            self._seek_client(partition, begin)

    def _check_topics(self) -> None:
        """Detect re-created topics and, without a group, added partitions."""
        if self._connection is None:
            return
        ids = {name: self._connection.topic_id(name) for name in self._topics}
        self._watch.look_for_missing(ids)
        replaced = self._watch.replaced_by(ids)
        if replaced:
            self._discard_fetched((), replaced)
        elif not self._joins:
            known = self._assignment.partitions.union(*(partitions for _, partitions in self._changes))
            now = known.union(*(self._connection.partitions(name) for name in self._topics))
            if now != known:
                self._assign_without_group(now)

    def _stop_replaced(self, partitions: AbstractSet[Partition]) -> None:
        """Stop partitions with a replaced log, and report them with the next poll."""
        self._assignment.stop(partitions)
        self._replaced |= partitions
        for partition in partitions:
            self._unreadable.pop(partition, None)
        self._apply_pauses()

    def _handle_out_of_range(self, connection: KafkaConnection, positions: Mapping[Partition, int]) -> None:
        """Continue at the log's start after deleted records. A position beyond the end is of another log."""
        try:
            begins, ends = connection.beginning_offsets(positions), connection.end_offsets(positions)
        except BrokerUnavailable as error:  # the next fetch is out of range again
            log.debug("cannot read the log's offsets: %s", error, extra={"action": "leave_range"})
            return
        for partition, position in positions.items():
            if self._assignment.next_offset(partition) != position:
                continue
            if position < begins[partition]:
                self._skip_range(partition, position, begins[partition], RETENTION)
            elif position > ends[partition]:
                self._stop_replaced({partition})

    def _skip_unreadable(self, error: Exception) -> None:
        """Find the unreadable ranges and open a new consumer, because the old one would not return from a poll."""
        message = f"{type(error).__name__}: {error}"
        log.warning("cannot read a batch (%s); searching for its end", message, extra={"action": "recover"})
        positions = {each: self._assignment.next_offset(each) or 0 for each in self._assignment.delivering}
        try:
            for partition, begin, end in find_unreadable_ranges(self._options, self._limits, positions):
                self._unreadable.setdefault(partition, {})[begin] = end
                _warn_of_range(partition, begin, end, message)
        finally:
            self._reconnect()

    def _reconnect(self) -> None:
        """Close the consumer. The next call opens another one. Partitions assigned by the group are revoked."""
        self._disconnect()
        if self._joins:
            self._changes = deque([("revoked", self._assignment.partitions)])


def _to_raw_batch(partition: Partition, begin: int, chunk: RecordChunk) -> RawBatch:
    """Return a chunk as the batch of the offsets from `begin` to its end."""
    return RawBatch(
        partition=partition,
        begin=begin,
        end=chunk.end,
        offsets=chunk.offsets,
        values=chunk.values,
        keys=chunk.keys,
        timestamps_us=chunk.timestamps_us,
        max_event_time_us=time.time_ns() // 1_000 + _CLOCK_ERROR_US,
        batch_offsets=chunk.batch_offsets,
        has_append_time=chunk.has_append_time,
        trace_ids=chunk.trace_ids,
        skip_reason=None if chunk.unreadable is None else UNREADABLE_BATCH,
        skip_detail=chunk.unreadable,
    )


def _warn_of_range(partition: Partition, begin: int, end: int, reason: str) -> None:
    log.warning(
        "cannot read %s from offset %d to %d (%s); continuing after the range",
        partition,
        begin,
        end,
        reason,
        extra={"action": "pass_over"},
    )
