"""Consumers: Kafka topics as a source."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

import numpy as np

from config.errors import BrokerUnavailable, ConfigError
from consumers.batch import RETENTION, UNREADABLE_BATCH, Partition, Position, RawBatch
from consumers.kafka.assignment import Assignment, AssignmentChange
from consumers.kafka.client import KafkaConnection, Topic, TopicDirectory, client_options
from consumers.kafka.unreadable import ReadProbe, find_first_readable
from consumers.source import Layout, PartitionInfo, PollResult, StartPosition

_log = logging.getLogger(__name__)

_CAUGHT_UP_TIMEOUT_S = 3.0
# Assignments and positions that moved without records end a poll only between two waits of this length.
_WAIT_SLICE_S = 0.25
# The broker's timestamp is the producer's own unless the topic says otherwise: one device whose clock is years ahead
# must not close all windows. A day, so that this machine's clock may be wrong by as much as clocks are.
_CLOCK_ERROR_US = 86_400_000_000
# To delete a topic, create it again and fill it takes longer; a look-up takes 1 ms.
_TOPIC_ID_VALID_S = 0.1
_RECORD_OBJECT_BYTES = 600


class KafkaSource:
    """The partitions of some topics, read from where the caller says; Kafka's own positions are never read.

    With `join` the partitions are shared out by the consumer group and come and go; without, all of them are
    taken, and a group id is only the name under which `publish` shows positions to lag tools. The connection
    is made by the first call that needs it, in the process that makes this call; no fork may follow.

    A range that the client cannot read is found by reading from later offsets with other consumers, is
    delivered as a batch without records, and is remembered, so that no consumer of ours meets it again.

    Args:
        topics: Names of topics that exist.
        bootstrap_servers: Brokers to ask first, each as host:port.
        client: Options of kafka-python, in its own words.
        group_id: The consumer group.
        join: Share the partitions with the other members of the group.

    Raises:
        ConfigError: An option is unknown to the client, or is not the user's to set.
    """

    def __init__(
        self,
        topics: Sequence[str],
        bootstrap_servers: Sequence[str],
        client: Mapping[str, Any] | None = None,
        *,
        group_id: str | None = None,
        join: bool = True,
    ) -> None:
        self._topics = tuple(topics)
        self._options = client_options(bootstrap_servers, client or {}, group_id)
        self._joins = join and group_id is not None
        self._directory = TopicDirectory(self._options)
        self._connection: KafkaConnection | None = None
        self._found: dict[str, Topic] = {}
        self._assignment = Assignment()
        # Appended by the client's IO thread, taken from the left by `poll`.
        self._changes: deque[AssignmentChange] = deque()
        self._passed_over: list[RawBatch] = []
        self._replaced: set[Partition] = set()
        self._unreadable: dict[Partition, dict[int, int]] = {}
        self._looked_up_s = 0.0

    @property
    def layout(self) -> Layout:
        """Return that every record is one value."""
        return "lines"

    @property
    def memory_bound_bytes(self) -> int:
        """Return the most that fetched and not yet delivered records take, in bytes, before decompression.

        One answer of a broker on its way in, one undelivered fetch of every partition, and the records of one
        poll as objects. A record that alone exceeds `max_partition_fetch_bytes` comes on top.
        """
        per_partition = int(self._options["max_partition_fetch_bytes"])
        in_flight = int(self._options["fetch_max_bytes"])
        n_partitions = max(1, sum(len(topic.partitions) for topic in self._found.values()))
        record_objects = _RECORD_OBJECT_BYTES * int(self._options["max_poll_records"])
        return in_flight + 2 * n_partitions * per_partition + record_objects

    def discover(self) -> list[PartitionInfo]:
        """Return all partitions of the topics, each with the topic's id, the log's start and stable end."""
        connection = self._connect()
        topics = self._directory.describe(self._topics)
        found = [(each, topic.identity) for topic in topics.values() for each in topic.partitions]
        begins = connection.beginning_offsets(partition for partition, _ in found)
        ends = connection.end_offsets(partition for partition, _ in found)
        return [
            PartitionInfo(partition=each, identity=identity, begin=begins[each], end=ends[each])
            for each, identity in sorted(found)
        ]

    def resolve(self, start: StartPosition, found: Sequence[PartitionInfo]) -> dict[Partition, Position]:
        """Return where each of these partitions begins; a time beyond the last record means the end."""
        if start == "earliest":
            return {each.partition: Position(next_offset=each.begin) for each in found}
        ends = {each.partition: Position(next_offset=each.end) for each in found}
        if start == "latest" or not found:
            return ends
        # Kafka's timestamps are milliseconds: the first at or after a time is at or after the next full one.
        first = self._connect().offsets_at_time(ends, max(0, -(-start // 1000)))
        return ends | {each: Position(next_offset=offset) for each, offset in first.items()}

    def seek(self, partition: Partition, position: Position) -> None:
        """Deliver an assigned partition from a position on.

        Raises:
            KeyError: The partition is not assigned (any more).
        """
        self._assignment.seek(partition, position.next_offset)
        self._replaced.discard(partition)
        self._passed_over = [batch for batch in self._passed_over if batch.partition != partition]
        self._seek_client(partition, position.next_offset)
        self._apply_pauses()

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        """Pause exactly these partitions and resume all others that were sought."""
        self._assignment.set_paused(partitions)
        self._apply_pauses()

    def poll(self, timeout_s: float) -> PollResult:
        """Return what has arrived, waiting up to `timeout_s` for something."""
        deadline = time.monotonic() + timeout_s
        while True:
            connection = self._connect()
            left_s = 0.0 if self._passed_over or self._changes else deadline - time.monotonic()
            records = self._fetch(connection, max(0.0, min(left_s, _WAIT_SLICE_S)))
            poll = self._collect(records if self._are_from_known_topics(records) else {})
            if poll.batches or poll.assigned or poll.revoked or poll.replaced or time.monotonic() >= deadline:
                return poll

    def caught_up(self, partitions: AbstractSet[Partition]) -> frozenset[Partition]:
        """Return those that were delivered up to the last stable offset; none if nobody answers."""
        asked = partitions & self._assignment.positioned
        if not asked or self._connection is None:
            return frozenset()
        try:
            ends = self._connection.end_offsets(asked, timeout_s=_CAUGHT_UP_TIMEOUT_S)
        except BrokerUnavailable as error:
            _log.debug("nobody said where the logs end: %s", error, extra={"action": "caught_up"})
            return frozenset()
        # Equal and no less: a position beyond the end belongs to a log that is gone.
        return frozenset(each for each in asked if self._assignment.next_offset(each) == ends[each])

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Commit positions to Kafka for lag tools; what becomes of it is only logged."""
        if self._connection is not None:
            self._connection.commit(positions)

    def close(self) -> None:
        """Leave the group and close all connections, within a few seconds whatever the brokers do."""
        self._directory.close()
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._looked_up_s = 0.0
        if connection is not None:
            connection.close()

    def _connect(self) -> KafkaConnection:
        """Return the connection; make it, in this process, where there is none."""
        if self._connection is None:
            found = self._directory.describe(self._topics)
            self._connection = KafkaConnection(self._options)
            self._found = found
            if self._joins:
                self._connection.subscribe(self._topics, self._changes)
            else:
                self._assign_without_group({each for topic in found.values() for each in topic.partitions})
        return self._connection

    def _assign_without_group(self, partitions: AbstractSet[Partition]) -> None:
        """Assign partitions without a group: those that were sought go on, new ones are reported."""
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
        """Set the client's position; where a known unreadable range begins, to its end."""
        for begin, end in self._unreadable.get(partition, {}).items():
            if begin <= next_offset < end:
                self._skip_range(partition, next_offset, end, UNREADABLE_BATCH)
                return
        if self._connection is not None:  # else the next one starts from the assignment
            self._connection.seek(partition, next_offset)

    def _skip_range(self, partition: Partition, begin: int, end: int, reason: str) -> None:
        """Queue a batch without records and go on behind it."""
        self._passed_over.append(_to_raw_batch(partition, begin, end, [], passed_over=reason))
        self._assignment.advance(partition, end)
        self._seek_client(partition, end)

    def _fetch(self, connection: KafkaConnection, wait_s: float) -> Mapping[Partition, Sequence[Any]]:
        """Return the client's records; what keeps it from having some is dealt with here."""
        fetched = connection.fetch(wait_s)
        if fetched.out_of_range:
            self._handle_out_of_range(connection, fetched.out_of_range)
        if fetched.truncated:
            self._stop_replaced(fetched.truncated)
        if fetched.unreadable is not None:
            self._skip_unreadable(fetched.unreadable)
        return fetched.records

    def _are_from_known_topics(self, records: Mapping[Partition, Sequence[Any]]) -> bool:
        """Tell whether what was fetched is of the logs that we know, and not of topics created again.

        The client fetches by the topic's name: when the topic was deleted, created again and filled beyond our
        position, it goes on as if nothing had been. So records are believed when the topics' ids were looked
        up after the fetch, or so shortly before that nobody can have done all this meanwhile.
        """
        if not records or time.monotonic() - self._looked_up_s < _TOPIC_ID_VALID_S:
            return True
        try:
            found = self._directory.describe(self._topics)
        except (BrokerUnavailable, ConfigError) as error:
            _log.debug("nobody said what topics there are: %s", error, extra={"action": "look_up"})
            self._discard_fetched(records, frozenset())
            return False
        self._looked_up_s = time.monotonic()
        replaced = {topic for topic in found if found[topic].identity != self._found[topic].identity}
        if replaced:
            self._discard_fetched(records, replaced)
        return not replaced

    def _discard_fetched(self, partitions: Iterable[Partition], replaced: AbstractSet[str]) -> None:
        """Drop what was fetched of partitions: those of replaced topics are given up, others fetched again."""
        for partition in self._assignment.positioned.intersection(partitions):
            self._seek_client(partition, self._assignment.next_offset(partition) or 0)
        if replaced:
            self._stop_replaced({each for each in self._assignment.partitions if each.topic in replaced})
            # Data of the old log may still be buffered in the client, and leader epochs cached.
            self._reconnect()

    def _collect(self, records: Mapping[Partition, Sequence[Any]]) -> PollResult:
        """Return batches of what the client handed over, and every change since the last poll."""
        self._check_topics()
        changes = [self._changes.popleft() for _ in range(len(self._changes))]
        assigned, revoked = self._assignment.apply_changes(changes)
        delivering = self._assignment.delivering
        batches = [batch for batch in self._passed_over if batch.partition in delivering]
        kept = self._assignment.positioned - delivering
        self._passed_over = [batch for batch in self._passed_over if batch.partition in kept]
        for partition in sorted(delivering):
            batch = self._build_batch(partition, records.get(partition, []))
            if batch is not None:
                batches.append(batch)
        replaced, self._replaced = self._replaced, set()
        if changes:
            self._apply_pauses()
        return PollResult(batches=batches, assigned=assigned, revoked=revoked, replaced=frozenset(replaced))

    def _build_batch(self, partition: Partition, records: Sequence[Any]) -> RawBatch | None:
        """Return one partition's records and the move of its position as a batch; None for neither."""
        begin = self._assignment.next_offset(partition)
        end = self._connection.position(partition) if self._connection is not None else None
        if begin is None or end is None or end <= begin:
            return None
        batch = _to_raw_batch(partition, begin, end, [record for record in records if record.offset >= begin])
        self._assignment.advance(partition, end)
        if end in self._unreadable.get(partition, {}):
            self._seek_client(partition, end)
        return batch

    def _check_topics(self) -> None:
        """Notice topics that were created again and, without a group, partitions that were added."""
        if self._connection is None:
            return
        ids = {name: self._connection.topic_id(name) for name in self._topics}
        replaced = {name for name in self._topics if ids[name] not in {None, self._found[name].identity}}
        if replaced:
            self._discard_fetched((), replaced)
        elif not self._joins:
            known = self._assignment.partitions.union(*(partitions for _, partitions in self._changes))
            now = known.union(*(self._connection.partitions(name) for name in self._topics))
            if now != known:
                self._assign_without_group(now)

    def _stop_replaced(self, partitions: AbstractSet[Partition]) -> None:
        """Stop partitions whose log is another one now, and say so with the next poll."""
        self._assignment.stop(partitions)
        self._replaced |= partitions
        for partition in partitions:
            self._unreadable.pop(partition, None)
        self._apply_pauses()

    def _handle_out_of_range(self, connection: KafkaConnection, positions: Mapping[Partition, int]) -> None:
        """Go on at the log's start where records were deleted; a position beyond its end is another log's."""
        try:
            begins, ends = connection.beginning_offsets(positions), connection.end_offsets(positions)
        except BrokerUnavailable as error:  # it will be out of range again
            _log.debug("nobody said where the logs begin: %s", error, extra={"action": "leave_range"})
            return
        for partition, position in positions.items():
            if self._assignment.next_offset(partition) != position:
                continue
            if position < begins[partition]:
                self._skip_range(partition, position, begins[partition], RETENTION)
            elif position > ends[partition]:
                self._stop_replaced({partition})

    def _skip_unreadable(self, error: Exception) -> None:
        """Find what cannot be read, and make a new consumer: the old one would never return from a poll."""
        said = f"{type(error).__name__}: {error}"
        _log.warning("a batch could not be read (%s); looking for its extent", said, extra={"action": "recover"})
        try:
            for partition, begin, end in self._unreadable_ranges():
                self._unreadable.setdefault(partition, {})[begin] = end
                _log.warning(
                    "%s cannot be read from offset %d to %d; going on behind it",
                    partition,
                    begin,
                    end,
                    extra={"action": "pass_over"},
                )
        finally:
            self._reconnect()

    def _unreadable_ranges(self) -> Iterator[tuple[Partition, int, int]]:
        """Yield the range, from its position on, of each partition that cannot be read there."""
        with ReadProbe(self._options) as probe:
            for partition in sorted(self._assignment.delivering):
                begin, end = self._assignment.next_offset(partition) or 0, probe.end_offset(partition)
                if begin < end and not probe.is_readable(partition, begin):
                    is_readable = partial(probe.is_readable, partition)
                    yield partition, begin, find_first_readable(is_readable, begin, end)

    def _reconnect(self) -> None:
        """Close the consumer; the next call makes another one. What a group had assigned is gone."""
        self._disconnect()
        if self._joins:
            self._changes = deque([("revoked", self._assignment.partitions)])


def _to_raw_batch(
    partition: Partition, begin: int, end: int, records: Sequence[Any], *, passed_over: str | None = None
) -> RawBatch:
    """Return records of the client as columns."""
    return RawBatch(
        partition=partition,
        begin=begin,
        end=end,
        offsets=np.fromiter((record.offset for record in records), np.int64, len(records)),
        values=[record.value for record in records],
        keys=[record.key for record in records],
        timestamps_us=np.fromiter((record.timestamp for record in records), np.int64, len(records)) * 1000,
        max_event_time_us=time.time_ns() // 1_000 + _CLOCK_ERROR_US,
        skip_reason=passed_over,
    )
