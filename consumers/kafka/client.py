"""The wrapper of one consumer of the Kafka client: positions, fetches, errors, and repairs of its faults."""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from consumers.batch import Partition
from consumers.kafka.answers import Way, pack_client_records, read_chunks
from consumers.kafka.assignment import AssignmentChange
from consumers.kafka.chunks import RecordChunk, pack_records
from consumers.kafka.client_errors import (
    PERMANENT_ERRORS,
    READ_ERRORS,
    build_config_error,
    format_addresses,
    translate_errors,
)
from consumers.kafka.client_options import REQUEST_TIMEOUT_S, open_consumer

log = logging.getLogger(__name__)

_MIB = 2**20

_CLOSE_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """The result of one fetch: chunks of records, or the reason for their absence.

    After `unreadable` the client is unusable: close it, and do not fetch from it again.
    """

    chunks: Mapping[Partition, Sequence[RecordChunk]] = field(default_factory=dict)
    out_of_range: Mapping[Partition, int] = field(default_factory=dict)
    truncated: frozenset[Partition] = frozenset()
    unreadable: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLimits:
    """How the record batches of a consumer are read.

    Attributes:
        max_decompressed_bytes: Largest accepted size of a decompressed record batch, in bytes.
        way: Decode record batches as columns, or by the client's own parser.
    """

    max_decompressed_bytes: int = 64 * _MIB
    way: Way = "columns"


class KafkaConnection:
    """One consumer of the client, with partitions and errors translated.

    All calls except `close` must be made by one thread, in the process that opened the connection.

    Args:
        options: The options of the client.
        limits: How records are read.

    Raises:
        BrokerUnavailable: No broker answered within `bootstrap_timeout_ms`.
        ConfigError: The brokers denied access, or the client rejected an option.
    """

    def __init__(self, options: Mapping[str, Any], limits: ReadLimits | None = None) -> None:
        limits = limits or ReadLimits()
        self._process = os.getpid()
        self._options = options
        self._publishes = options["group_id"] is not None
        with translate_errors(self._options):
            self._consumer, self._cluster = open_consumer(options)
        self._returns_chunks = read_chunks(
            self._consumer,
            limit_bytes=limits.max_decompressed_bytes,
            max_records=options["max_poll_records"],
            way=limits.way,
        )

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Assign these partitions without a group. New partitions are paused at an arbitrary position."""
        before = self._consumer.assignment()
        after = [_to_client(each) for each in sorted(partitions)]
        self._consumer.assign(after)
        _pause_at_start(self._consumer, set(after) - before)

    def subscribe(self, topics: Sequence[str], changes: "deque[AssignmentChange]") -> None:
        """Join the group. The IO thread pauses assigned partitions and appends the changes to `changes`."""
        _keep_pending_join(self._consumer)
        self._consumer.subscribe(topics=list(topics), listener=_RebalanceListener(self._consumer, changes))

    def resume_only(self, partitions: AbstractSet[Partition]) -> None:
        """Resume exactly these partitions and pause all others."""
        delivering = {_to_client(each) for each in partitions}
        paused = self._consumer.paused()
        for tp in self._consumer.assignment():
            try:
                if tp in delivering and tp in paused:
                    self._consumer.resume(tp)
                elif tp not in delivering and tp not in paused:
                    self._consumer.pause(tp)
            except KeyError:  # revoked meanwhile, on the IO thread
                continue

    def seek(self, partition: Partition, offset: int) -> None:
        """Set the position.

        Raises:
            KeyError: The partition was revoked in the meantime.
        """
        try:
            self._consumer.seek(_to_client(partition), offset)
        except ValueError as error:
            raise KeyError(partition) from error

    def position(self, partition: Partition) -> int | None:
        """Return the offset after all fetched records, or None if the partition was revoked or truncated."""
        try:
            offset: int | None = self._consumer.position(_to_client(partition), timeout_ms=0)
        except (kafka_errors.KafkaError, KeyError):
            return None
        return offset

    def fetch(self, wait_s: float) -> FetchResult:
        """Return the records that arrive within `wait_s` seconds. An unavailable broker is not an error.

        Raises:
            ConfigError: The brokers denied access.
        """
        if self._process != os.getpid():
            raise RuntimeError("a Kafka consumer cannot be used after a fork; open it in the process that polls")
        _release_exhausted_partition(self._consumer)
        try:
            records = self._consumer.poll(timeout_ms=int(wait_s * 1000))
        except kafka_errors.OffsetOutOfRangeError as error:
            return FetchResult(out_of_range={_from_client(tp): offset for tp, offset in error.args[0].items()})
        except kafka_errors.LogTruncationError as error:
            return FetchResult(truncated=frozenset(map(_from_client, error.divergent_offsets)))
        except kafka_errors.NoOffsetForPartitionError as error:
            _pause_at_start(self._consumer, error.args[0])
        except kafka_errors.RetriableError as error:
            log.debug("no answer from Kafka: %s", error, extra={"action": "fetch"})
            time.sleep(min(wait_s, 0.1))
        except PERMANENT_ERRORS as error:
            raise build_config_error(format_addresses(self._options), error) from error
        except (kafka_errors.KafkaError, *READ_ERRORS) as error:
            return FetchResult(unreadable=error)
        else:
            return FetchResult(chunks={_from_client(tp): chunks for tp, chunks in self._to_chunks(records).items()})
        return FetchResult()

    def _to_chunks(self, records: Mapping[TopicPartition, Sequence[Any]]) -> Mapping[TopicPartition, Sequence[Any]]:
        """Return fetched records as chunks, up to the position of each partition."""
        if self._returns_chunks:
            return records
        chunks = {tp: [pack_client_records(fetched)] for tp, fetched in records.items()}
        for tp in self._consumer.assignment() - self._consumer.paused():
            end = self.position(_from_client(tp))
            if end is not None:
                chunks.setdefault(tp, []).append(pack_records([], end))
        return chunks

    def beginning_offsets(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the first offset of each partition's log."""
        client_partitions = [_to_client(each) for each in partitions]
        with translate_errors(self._options):
            offsets = self._consumer.beginning_offsets(client_partitions, timeout_ms=REQUEST_TIMEOUT_S * 1000)
        return {_from_client(tp): offset for tp, offset in offsets.items()}

    def end_offsets(
        self, partitions: Iterable[Partition], *, timeout_s: float = REQUEST_TIMEOUT_S
    ) -> dict[Partition, int]:
        """Return the current end of each partition's log: the last stable offset."""
        client_partitions = [_to_client(each) for each in partitions]
        with translate_errors(self._options):
            offsets = self._consumer.end_offsets(client_partitions, timeout_ms=timeout_s * 1000)
        return {_from_client(tp): offset for tp, offset in offsets.items()}

    def offsets_at_time(self, partitions: Iterable[Partition], time_ms: int) -> dict[Partition, int]:
        """Return the offset of the first record at or after a time, for the partitions that have one."""
        client_partitions = dict.fromkeys(map(_to_client, partitions), time_ms)
        with translate_errors(self._options):
            offsets = self._consumer.offsets_for_times(client_partitions, timeout_ms=REQUEST_TIMEOUT_S * 1000)
        return {_from_client(tp): hit.offset for tp, hit in offsets.items() if hit is not None}

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Send positions to the group's coordinator. Failures are only logged."""
        if not self._publishes or not positions:
            return
        offsets = {_to_client(each): OffsetAndMetadata(offset, "", -1) for each, offset in positions.items()}
        try:
            self._consumer.commit_async(offsets, callback=_log_commit)
        except kafka_errors.KafkaError as error:
            _log_commit(offsets, error)

    def topic_id(self, topic: str) -> str | None:
        """Return the topic's id in the latest metadata, or None if it is unknown."""
        identity = self._cluster.topic_id(topic)
        return str(identity) if identity is not None and identity.int else None

    def partitions(self, topic: str) -> frozenset[Partition]:
        """Return the topic's partitions in the latest metadata."""
        numbers = self._cluster.partitions_for_topic(topic) or ()
        return frozenset(Partition(topic=topic, partition=number) for number in numbers)

    def close(self) -> None:
        """Leave the group and close, within seconds even if the client's IO thread does not answer."""
        closing = threading.Thread(target=_close_consumer, args=(self._consumer,), daemon=True)
        closing.start()
        closing.join(2 * _CLOSE_TIMEOUT_S)


class _RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # the client has no types
    """A listener that records rebalances. It runs on the client's IO thread and must not block."""

    def __init__(self, consumer: KafkaConsumer, changes: deque[AssignmentChange]) -> None:
        self._consumer = consumer
        self._changes = changes

    def on_partitions_assigned(self, assigned: AbstractSet[TopicPartition]) -> None:
        _pause_at_start(self._consumer, assigned)
        self._changes.append(("assigned", frozenset(map(_from_client, assigned))))

    def on_partitions_revoked(self, revoked: AbstractSet[TopicPartition]) -> None:
        self._changes.append(("revoked", frozenset(map(_from_client, revoked))))


def _keep_pending_join(consumer: KafkaConsumer) -> None:
    """Patch the client so that it completes a pending join of the group.

    Up to kafka-python 3.0.12, if a poll ends while the group is joined for new partitions, the next poll does
    not need to join any more. The coordinator's answer is then never processed: the assignment and its
    heartbeats are lost forever. With this patch, an unprocessed join requires a rejoin.
    """
    coordinator = consumer._coordinator  # noqa: SLF001 -- there is no public equivalent
    if hasattr(coordinator, "_join_task"):
        needs = coordinator.need_rejoin
        coordinator.need_rejoin = lambda: coordinator._join_task is not None or needs()  # noqa: SLF001


def _release_exhausted_partition(consumer: KafkaConsumer) -> None:
    """Patch the client so that it delivers buffered records of resumed partitions.

    Up to kafka-python 3.0.12 it searches for them only if it has no current partition. A partition with all
    records delivered stays the current one until records of another partition arrive. This never happens if
    the records of all others are already buffered.
    """
    fetcher = consumer._fetcher  # noqa: SLF001 -- there is no public equivalent
    current = getattr(fetcher, "_next_partition_records", None)
    if current is not None and not current:
        fetcher._next_partition_records = None  # noqa: SLF001


def _pause_at_start(consumer: KafkaConsumer, partitions: AbstractSet[TopicPartition]) -> None:
    """Pause partitions at offset 0, so that the client neither fetches nor determines a position itself."""
    for tp in partitions:
        consumer.pause(tp)
        consumer.seek(tp, 0)


def _close_consumer(consumer: KafkaConsumer) -> None:
    try:
        consumer.close(autocommit=False, timeout_ms=_CLOSE_TIMEOUT_S * 1000)
    except (kafka_errors.KafkaError, RuntimeError) as error:
        log.debug("closing the consumer failed: %s", error, extra={"action": "close"})


def _log_commit(offsets: Mapping[TopicPartition, Any], answer: object) -> None:
    if isinstance(answer, Exception):
        log.debug("publishing the positions failed: %s", answer, extra={"action": "publish", "n": len(offsets)})


def _to_client(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition)


def _from_client(tp: TopicPartition) -> Partition:
    return Partition(topic=tp.topic, partition=tp.partition)
