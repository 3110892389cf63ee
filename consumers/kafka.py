"""Consumers: Kafka topics as a source; the one door to the Kafka client."""

import importlib.util
import logging
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Self, cast

import numpy as np
import zstandard
from kafka import (
    ConsumerRebalanceListener,
    KafkaAdminClient,
    KafkaConsumer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka import errors as kafka_errors

from config.errors import BrokerUnavailable, ConfigError
from consumers.assignment import Assignment, Change
from consumers.batch import RETENTION, UNREADABLE_BATCH, Partition, Position, RawBatch
from consumers.source import Found, Layout, Poll, Start
from consumers.unreadable import first_readable

_log = logging.getLogger(__name__)

MIB = 2**20

_RULES: dict[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    "allow_auto_create_topics": False,
}
_DEFAULTS: dict[str, Any] = {
    "client_id": "outrider",
    "max_poll_records": 5000,
    "fetch_max_bytes": 16 * MIB,
    "max_partition_fetch_bytes": MIB,
    "bootstrap_timeout_ms": 10_000,
    # After a long outage the client asks again every 3 s, not every 30.
    "reconnect_backoff_max_ms": 3_000,
    # New partitions and re-created topics are noticed by fresh metadata.
    "metadata_max_age_ms": 5_000,
    # Measured by the daemon itself; the client's own cost a twentieth of its time.
    "metrics_enabled": False,
}
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_REQUEST_S = 10.0
_CAUGHT_UP_S = 3.0
_CLOSE_S = 3.0
# Assignments and positions that moved without records end a poll only between two waits of this length.
_SLICE_S = 0.25

# What reading a damaged or malformed batch raises: its checksum, its codec, its lengths, its header names.
_UNREADABLE = (
    kafka_errors.CorruptRecordError,
    zlib.error,
    zstandard.ZstdError,
    struct.error,
    ValueError,
    LookupError,
    EOFError,
    OSError,
    MemoryError,
    RuntimeError,
)
_NEEDS_A_PERSON = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.UnsupportedCodecError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.InvalidTopicError,
    kafka_errors.InvalidGroupIdError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.InconsistentGroupProtocolError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.GroupMaxSizeReachedError,
)


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
        self._addresses = ", ".join(bootstrap_servers)
        self._joins = join and group_id is not None
        self._consumer: KafkaConsumer | None = None
        self._cluster: Any = None
        self._process = 0
        self._topic_ids: dict[str, str] = {}
        self._n_partitions = 0
        self._assignment = Assignment()
        # The rebalance listener appends on the client's IO thread, `poll` takes from the left.
        self._changes: deque[Change] = deque()
        self._passed_over: list[RawBatch] = []
        self._replaced: set[Partition] = set()
        self._unreadable: dict[Partition, dict[int, int]] = {}

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
        record_objects = 600 * int(self._options["max_poll_records"])
        return in_flight + 2 * max(1, self._n_partitions) * per_partition + record_objects

    def discover(self) -> list[Found]:
        """Return all partitions of the topics, each with the topic's id, the log's start and stable end."""
        consumer = self._connected()
        with _translated(self._addresses):
            topics = self._described()
            at = [
                TopicPartition(topic, number) for topic, (_, numbers) in topics.items() for number in numbers
            ]
            begins = consumer.beginning_offsets(at, timeout_ms=_REQUEST_S * 1000)
            ends = consumer.end_offsets(at, timeout_ms=_REQUEST_S * 1000)
        return [
            Found(partition=_partition(tp), identity=topics[tp.topic][0], begin=begins[tp], end=ends[tp])
            for tp in sorted(at)
        ]

    def resolve(self, start: Start, found: Sequence[Found]) -> dict[Partition, Position]:
        """Return where each of these partitions begins; a time beyond the last record means the end."""
        if start == "earliest":
            return {each.partition: Position(next_offset=each.begin) for each in found}
        ends = {each.partition: Position(next_offset=each.end) for each in found}
        if start == "latest" or not found:
            return ends
        # Kafka's timestamps are milliseconds: the first at or after a time is at or after the next full one.
        time_ms = max(0, -(-start // 1000))
        consumer = self._connected()
        with _translated(self._addresses):
            at = consumer.offsets_for_times(
                {_tp(each.partition): time_ms for each in found}, timeout_ms=_REQUEST_S * 1000
            )
        first = {
            _partition(tp): Position(next_offset=hit.offset) for tp, hit in at.items() if hit is not None
        }
        return ends | first

    def seek(self, partition: Partition, position: Position) -> None:
        """Deliver an assigned partition from a position on.

        Raises:
            KeyError: The partition is not assigned (any more).
        """
        self._assignment.start(partition, position.next_offset)
        self._replaced.discard(partition)
        self._passed_over = [batch for batch in self._passed_over if batch.partition != partition]
        self._move(partition, position.next_offset)
        self._apply_pauses()

    def hold(self, partitions: AbstractSet[Partition]) -> None:
        """Pause exactly these partitions and resume all others that were sought."""
        self._assignment.hold(partitions)
        self._apply_pauses()

    def poll(self, timeout_s: float) -> Poll:
        """Return what has arrived, waiting up to `timeout_s` for something."""
        deadline = time.monotonic() + timeout_s
        while True:
            consumer = self._connected()
            left_s = 0.0 if self._passed_over or self._changes else deadline - time.monotonic()
            records = self._fetched(consumer, max(0.0, min(left_s, _SLICE_S)))
            poll = self._gathered(records)
            if poll.batches or poll.assigned or poll.revoked or poll.replaced or time.monotonic() >= deadline:
                return poll

    def caught_up(self, partitions: AbstractSet[Partition]) -> frozenset[Partition]:
        """Return those that were delivered up to the last stable offset; none if nobody answers."""
        asked = {_tp(each): each for each in partitions & self._assignment.started}
        if not asked or self._consumer is None:
            return frozenset()
        try:
            ends = self._consumer.end_offsets(list(asked), timeout_ms=_CAUGHT_UP_S * 1000)
        except kafka_errors.KafkaError as error:
            _log.debug("nobody said where the logs end: %s", error, extra={"action": "caught_up"})
            return frozenset()
        # Equal and no less: a position beyond the end belongs to a log that is gone.
        return frozenset(each for tp, each in asked.items() if self._assignment.next_offset(each) == ends[tp])

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Commit positions to Kafka for lag tools; what becomes of it is only logged."""
        consumer = self._consumer
        if consumer is None or self._options["group_id"] is None or not positions:
            return
        offsets = {_tp(each): OffsetAndMetadata(offset, "", -1) for each, offset in positions.items()}
        try:
            consumer.commit_async(offsets, callback=_log_commit)
        except kafka_errors.KafkaError as error:
            _log_commit(offsets, error)

    def close(self) -> None:
        """Leave the group and close all connections, within a few seconds whatever the brokers do."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            _close(consumer)

    def _connected(self) -> KafkaConsumer:
        """Return the consumer; make it, in this process, where there is none."""
        if self._consumer is not None:
            if self._process != os.getpid():
                raise RuntimeError("a KafkaSource does not survive a fork: make it in the process that polls")
            return self._consumer
        with _translated(self._addresses):
            topics = self._described()
            consumer, self._cluster = _open(self._options)
        self._process = os.getpid()
        self._consumer = consumer
        self._topic_ids = {topic: identity for topic, (identity, _) in topics.items()}
        if self._joins:
            consumer.subscribe(topics=list(self._topics), listener=_Listener(consumer, self._changes))
        else:
            self._take({Partition(topic=topic, partition=n) for topic, (_, ns) in topics.items() for n in ns})
        return consumer

    def _described(self) -> dict[str, tuple[str, list[int]]]:
        """Return the topic id and the partition numbers of every topic, freshly asked."""
        admin = _open_admin(self._options)
        try:
            described = {topic["name"]: topic for topic in admin.describe_topics(list(self._topics))}
            for topic in self._topics:
                error = kafka_errors.for_code(described[topic]["error_code"])
                if error is kafka_errors.UnknownTopicOrPartitionError:
                    raise ConfigError(_no_such_topic(topic, admin.list_topics(), self._addresses))
                if error is not kafka_errors.NoError:
                    raise error(topic)
        finally:
            admin.close()
        topics = {
            topic: (str(described[topic]["topic_id"]), _numbers(described[topic])) for topic in self._topics
        }
        self._n_partitions = sum(len(numbers) for _, numbers in topics.values())
        return topics

    def _take(self, partitions: set[Partition]) -> None:
        """Assign partitions without a group: those that were sought go on, new ones are reported."""
        consumer = cast("KafkaConsumer", self._consumer)
        consumer.assign([_tp(each) for each in sorted(partitions)])
        for partition in partitions:
            consumer.pause(_tp(partition))
            self._move(partition, self._assignment.next_offset(partition) or 0)
        new = frozenset(partitions - self._assignment.partitions)
        if new:
            self._changes.append(("assigned", new))
        self._apply_pauses()

    def _apply_pauses(self) -> None:
        """Pause everything that does not deliver, and nothing else."""
        consumer = self._consumer
        if consumer is None:
            return
        paused = consumer.paused()
        delivering = {_tp(each) for each in self._assignment.delivering}
        for tp in consumer.assignment():
            try:
                if tp in delivering and tp in paused:
                    consumer.resume(tp)
                elif tp not in delivering and tp not in paused:
                    consumer.pause(tp)
            except KeyError:  # revoked meanwhile, on the IO thread
                continue

    def _move(self, partition: Partition, next_offset: int) -> None:
        """Set the client's position; where a known unreadable range begins, to its end."""
        for begin, end in self._unreadable.get(partition, {}).items():
            if begin <= next_offset < end:
                self._pass_over(partition, next_offset, end, UNREADABLE_BATCH)
                return
        if self._consumer is None:  # the next one starts from the assignment
            return
        try:
            self._consumer.seek(_tp(partition), next_offset)
        except ValueError as error:  # revoked meanwhile, on the IO thread
            raise KeyError(partition) from error

    def _pass_over(self, partition: Partition, begin: int, end: int, reason: str) -> None:
        """Queue a batch without records and go on behind it."""
        self._passed_over.append(_batch(partition, begin, end, [], passed_over=reason))
        self._assignment.advance(partition, end)
        self._move(partition, end)

    def _fetched(self, consumer: KafkaConsumer, wait_s: float) -> dict[TopicPartition, list[Any]]:
        """Return the client's records; what keeps it from having some is dealt with here."""
        try:
            records = consumer.poll(timeout_ms=int(wait_s * 1000))
        except kafka_errors.OffsetOutOfRangeError as error:
            self._leave_range(consumer, error.args[0])
        except kafka_errors.LogTruncationError as error:
            self._replace({_partition(tp) for tp in error.divergent_offsets})
        except kafka_errors.NoOffsetForPartitionError as error:
            _park(consumer, error.args[0])
        except kafka_errors.RetriableError as error:
            _log.debug("Kafka does not answer: %s", error, extra={"action": "poll"})
            time.sleep(min(wait_s, 0.1))
        except _NEEDS_A_PERSON as error:
            raise _refusal(self._addresses, error) from error
        except (kafka_errors.KafkaError, *_UNREADABLE) as error:
            self._recover(error)
        else:
            return cast("dict[TopicPartition, list[Any]]", records)
        return {}

    def _gathered(self, records: Mapping[TopicPartition, list[Any]]) -> Poll:
        """Return batches of what the client handed over, and every change since the last poll."""
        self._watch_topics()
        changes = [self._changes.popleft() for _ in range(len(self._changes))]
        assigned, revoked = self._assignment.apply(changes)
        delivering = self._assignment.delivering
        batches = [batch for batch in self._passed_over if batch.partition in delivering]
        kept = self._assignment.started - delivering
        self._passed_over = [batch for batch in self._passed_over if batch.partition in kept]
        for partition in sorted(delivering):
            batch = self._delivered(partition, records.get(_tp(partition), []))
            if batch is not None:
                batches.append(batch)
        replaced, self._replaced = self._replaced, set()
        if changes:
            self._apply_pauses()
        return Poll(batches=batches, assigned=assigned, revoked=revoked, replaced=frozenset(replaced))

    def _delivered(self, partition: Partition, records: list[Any]) -> RawBatch | None:
        """Return one partition's records and the move of its position as a batch; None for neither."""
        if self._consumer is None:
            return None
        begin = cast("int", self._assignment.next_offset(partition))
        try:
            end = self._consumer.position(_tp(partition), timeout_ms=0)
        except (kafka_errors.KafkaError, KeyError):  # revoked meanwhile, or truncated: the next poll says so
            return None
        if end is None or end <= begin:
            return None
        batch = _batch(partition, begin, end, [record for record in records if record.offset >= begin])
        self._assignment.advance(partition, end)
        if end in self._unreadable.get(partition, {}):
            self._move(partition, end)
        return batch

    def _watch_topics(self) -> None:
        """Notice topics that were created again and, without a group, partitions that were added."""
        if self._consumer is None:
            return
        for topic, known in self._topic_ids.items():
            identity = self._cluster.topic_id(topic)
            if identity is not None and identity.int and str(identity) != known:
                self._replace({each for each in self._assignment.partitions if each.topic == topic})
                # Data of the old log may still be buffered in the client, and leader epochs cached.
                self._reconnect()
                return
        if not self._joins:
            numbers = {topic: self._cluster.partitions_for_topic(topic) or () for topic in self._topics}
            all_now = {Partition(topic=topic, partition=n) for topic, ns in numbers.items() for n in ns}
            pending = {each for _, partitions in self._changes for each in partitions}
            if all_now - self._assignment.partitions - pending:
                self._take(all_now | self._assignment.partitions)

    def _replace(self, partitions: set[Partition]) -> None:
        """Stop partitions whose log is another one now, and say so with the next poll."""
        self._assignment.stop(partitions)
        self._replaced |= partitions
        for partition in partitions:
            self._unreadable.pop(partition, None)
        self._apply_pauses()

    def _leave_range(self, consumer: KafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
        """Go on at the log's start where records were deleted; a position beyond its end is another log's."""
        try:
            begins = consumer.beginning_offsets(list(positions), timeout_ms=_REQUEST_S * 1000)
            ends = consumer.end_offsets(list(positions), timeout_ms=_REQUEST_S * 1000)
        except kafka_errors.KafkaError as error:
            _log.debug("nobody said where the logs begin: %s", error, extra={"action": "leave_range"})
            return
        for tp, position in positions.items():
            partition = _partition(tp)
            if self._assignment.next_offset(partition) != position:
                continue
            if position < begins[tp]:
                self._pass_over(partition, position, begins[tp], RETENTION)
            elif position > ends[tp]:
                self._replace({partition})

    def _recover(self, error: Exception) -> None:
        """Find what cannot be read, and make a new consumer: the old one would never return from a poll."""
        _log.warning(
            "a batch could not be read (%s: %s); looking for its extent",
            type(error).__name__,
            error,
            extra={"action": "recover"},
        )
        try:
            with _translated(self._addresses):
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
        with _Probe(self._options) as probe:
            for partition in sorted(self._assignment.delivering):
                tp = _tp(partition)
                begin, end = cast("int", self._assignment.next_offset(partition)), probe.end(tp)
                if begin < end and not probe.is_readable(tp, begin):
                    yield (
                        partition,
                        begin,
                        first_readable(lambda at, tp=tp: probe.is_readable(tp, at), begin, end),
                    )

    def _reconnect(self) -> None:
        """Close the consumer; the next call makes another one. What a group had assigned is gone."""
        self.close()
        if self._joins:
            self._changes = deque([("revoked", self._assignment.partitions)])


class _Listener(ConsumerRebalanceListener):
    """Takes notes of rebalances on the client's IO thread, where nothing may block."""

    def __init__(self, consumer: KafkaConsumer, changes: deque[Change]) -> None:
        self._consumer = consumer
        self._changes = changes

    def on_partitions_assigned(self, assigned: AbstractSet[TopicPartition]) -> None:
        _park(self._consumer, assigned)
        self._changes.append(("assigned", frozenset(map(_partition, assigned))))

    def on_partitions_revoked(self, revoked: AbstractSet[TopicPartition]) -> None:
        self._changes.append(("revoked", frozenset(map(_partition, revoked))))


class _Probe:
    """Reads single offsets with consumers of its own, each thrown away when a read has failed."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        one_batch = {
            "group_id": None,
            "max_poll_records": 1,
            "max_partition_fetch_bytes": 1,
            "fetch_max_wait_ms": 50,
        }
        self._options = {**options, **one_batch}
        self._consumer: KafkaConsumer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._consumer is not None:
            _close(self._consumer)
            self._consumer = None

    def end(self, tp: TopicPartition) -> int:
        """Return the last stable offset."""
        return int(self._opened().end_offsets([tp], timeout_ms=_REQUEST_S * 1000)[tp])

    def is_readable(self, tp: TopicPartition, offset: int) -> bool:
        """Tell whether the batch that holds an offset below the end can be read from there."""
        consumer = self._opened()
        consumer.assign([tp])
        consumer.seek(tp, offset)
        deadline = time.monotonic() + _REQUEST_S
        while time.monotonic() < deadline:
            try:
                if consumer.poll(timeout_ms=200) or consumer.position(tp, timeout_ms=0) != offset:
                    return True
            except kafka_errors.RetriableError:
                continue
            except _NEEDS_A_PERSON:
                raise
            except (kafka_errors.KafkaError, *_UNREADABLE):
                self.__exit__()
                return False
        raise kafka_errors.KafkaTimeoutError(f"no answer about offset {offset} of {tp.topic}[{tp.partition}]")

    def _opened(self) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer, _ = _open(self._options)
        return self._consumer


def client_options(
    bootstrap_servers: Sequence[str], client: Mapping[str, Any], group_id: str | None
) -> dict[str, Any]:
    """Return the consumer's options: the user's over our defaults, and over both what exactness rests on.

    Raises:
        ConfigError: An option is unknown or set by Outrider, or a package is missing.
    """
    known = set(KafkaConsumer.DEFAULT_CONFIG) - {"kafka_client", "key_deserializer", "value_deserializer"}
    fixed = {**_RULES, "bootstrap_servers": list(bootstrap_servers), "group_id": group_id}
    for name, value in client.items():
        if name in fixed and value != fixed[name]:
            raise ConfigError(
                f"kafka.client.{name} cannot be set to {value!r}: Outrider needs {fixed[name]!r}"
            )
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"kafka.client.{name} is no option of kafka-python's consumer{hint}")
    protocol = client.get("security_protocol", "PLAINTEXT")
    if protocol not in _PROTOCOLS:  # the client takes any other word for PLAINTEXT
        raise ConfigError(
            f"kafka.client.security_protocol is {protocol!r}; it is one of {', '.join(_PROTOCOLS)}"
        )
    if importlib.util.find_spec("crc32c") is None:
        raise ConfigError(
            "the package crc32c is missing, without which Kafka is read at a quarter of the speed"
        )
    return {**_DEFAULTS, **client, **fixed}


def _open(options: Mapping[str, Any]) -> tuple[KafkaConsumer, Any]:
    """Return a connected consumer and its view of the cluster."""
    made: list[Any] = []

    def make_client(**configs: Any) -> Any:
        client = KafkaConsumer.DEFAULT_CONFIG["kafka_client"](**configs)
        # Up to 3.0.12 the option does not reach the requests for metadata.
        client.cluster.config["allow_auto_create_topics"] = False
        made.append(client)
        return client

    with _closing_on_error(made):
        consumer = KafkaConsumer(**options, kafka_client=make_client)
    return consumer, made[0].cluster


def _open_admin(options: Mapping[str, Any]) -> KafkaAdminClient:
    """Return a connected client for questions about topics."""
    made: list[Any] = []

    def make_client(**configs: Any) -> Any:
        made.append(KafkaAdminClient.DEFAULT_CONFIG["kafka_client"](**configs))
        return made[0]

    shared = {name: value for name, value in options.items() if name in KafkaAdminClient.DEFAULT_CONFIG}
    shared["request_timeout_ms"] = min(int(_REQUEST_S * 1000), shared.get("request_timeout_ms", 10_000))
    with _closing_on_error(made):
        return KafkaAdminClient(**shared, kafka_client=make_client)


@contextmanager
def _closing_on_error(made: Sequence[Any]) -> Iterator[None]:
    """Stop the IO thread of a client that could not be made, else it knocks at the broker forever."""
    try:
        yield
    except BaseException as error:
        for client in made:
            client.close()
        if isinstance(error, TypeError | ValueError | AssertionError):
            raise ConfigError(f"kafka.client has an option that kafka-python refuses: {error}") from error
        raise


@contextmanager
def _translated(addresses: str) -> Iterator[None]:
    """Raise the client's errors as ours, by what the caller should do about them."""
    try:
        yield
    except _NEEDS_A_PERSON as error:
        raise _refusal(addresses, error) from error
    except (kafka_errors.KafkaError, OSError) as error:
        raise BrokerUnavailable(
            f"Kafka at {addresses} does not answer ({error}); check the address and that the broker runs"
        ) from error


def _refusal(addresses: str, error: Exception) -> ConfigError:
    return ConfigError(f"Kafka at {addresses} cannot be used like this: {error}; check kafka.client")


def _no_such_topic(topic: str, topics: Sequence[str], addresses: str) -> str:
    near = get_close_matches(topic, topics, n=1)
    hint = f"did you mean {near[0]}?" if near else "create it, or correct streams.<name>.source.topics"
    return f"there is no topic {topic!r} on Kafka at {addresses}; {hint}"


def _numbers(described: Mapping[str, Any]) -> list[int]:
    return sorted(each["partition_index"] for each in described["partitions"])


def _park(consumer: KafkaConsumer, partitions: AbstractSet[TopicPartition]) -> None:
    """Pause partitions at some position, lest the client fetch, or look for a position of its own."""
    for tp in partitions:
        consumer.pause(tp)
        consumer.seek(tp, 0)


def _close(consumer: KafkaConsumer) -> None:
    """Close a consumer, and wait no longer than bearable: its IO thread may never answer again."""
    closing = threading.Thread(target=_leave, args=(consumer,), daemon=True)
    closing.start()
    closing.join(2 * _CLOSE_S)


def _leave(consumer: KafkaConsumer) -> None:
    try:
        consumer.close(autocommit=False, timeout_ms=_CLOSE_S * 1000)
    except (kafka_errors.KafkaError, RuntimeError) as error:
        _log.debug("the consumer did not close in order: %s", error, extra={"action": "close"})


def _log_commit(offsets: Mapping[TopicPartition, Any], answer: object) -> None:
    if isinstance(answer, Exception):
        _log.debug("positions were not published: %s", answer, extra={"action": "publish", "n": len(offsets)})


def _tp(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition)


def _partition(tp: TopicPartition) -> Partition:
    return Partition(topic=tp.topic, partition=tp.partition)


def _batch(
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
        passed_over=passed_over,
    )
