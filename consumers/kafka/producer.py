"""Writes single records to a compacted topic, with the client's idempotent producer."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from enum import StrEnum
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

from config.errors import BrokerUnavailable, ConfigError
from consumers.kafka.client_errors import translate_errors
from consumers.kafka.client_options import client_options, open_admin, open_producer

log = logging.getLogger(__name__)

_COMPACT = "compact"
_POLICY = "cleanup.policy"
_ACCESS_ERRORS = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)
_RECORD_ERRORS = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidTopicError,
    kafka_errors.PolicyViolationError,
)
_OPEN_SHARE = 0.5
"""Share of the time limit for the connection."""


class ProduceFailure(StrEnum):
    """The kinds of failures of a record."""

    AUTH = "auth"
    CLIENT_ERROR = "client_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"


class ProduceError(Exception):
    """The record was not acknowledged; the message has the reason, and no secret."""

    def __init__(self, kind: ProduceFailure, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class RecordWriter:
    """Writes records to one topic. It connects at the first record, and again after a failure; for one thread.

    A record is written once, or reported as a failure: the producer repeats a request under the same sequence number,
    and gives it up within the time limit, so that no record of a failed attempt follows one of a later attempt.
    """

    def __init__(
        self, bootstrap_servers: Sequence[str], client: Mapping[str, Any], topic: str, *, timeout_s: float
    ) -> None:
        self._servers = bootstrap_servers
        self._client = client
        self._topic = topic
        self._timeout_s = timeout_s
        self._producer: KafkaProducer | None = None
        self._lock = threading.Lock()

    def write(self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> str:
        """Write a record and wait until all in-sync replicas have it; return its partition and offset as text.

        Raises:
            ProduceError: The record was not acknowledged within the time limit.
        """
        until_s = time.monotonic() + self._timeout_s
        with self._lock:
            try:
                producer = self._open()
                sent = producer.send(self._topic, value=value, key=key, headers=list(headers))
                written = sent.get(max(0.1, until_s - time.monotonic()))
            except Exception as error:
                self._drop()
                raise _translate(error, self._topic) from error
        return f"{written.topic}[{written.partition}] offset {written.offset}"

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._drop()

    def _open(self) -> KafkaProducer:
        """Return the connected producer.

        Raises:
            ConfigError: An option is wrong, or access is refused.
            BrokerUnavailable: No broker answers.
        """
        if self._producer is None:
            limit_ms = int(self._timeout_s * 1000 * _OPEN_SHARE)
            options = client_options(self._servers, self._client, None) | {"bootstrap_timeout_ms": limit_ms}
            with translate_errors(options):
                _ensure_compacted(options, self._topic)
                self._producer = open_producer(options, timeout_ms=limit_ms)
        return self._producer

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.close(timeout=0)
            except kafka_errors.KafkaError as error:
                log.debug("closing the producer failed: %s", error, extra={"action": "close"})


def _ensure_compacted(options: Mapping[str, Any], topic: str) -> None:
    """Create the topic with compaction if it does not exist; warn if an existing one is not compacted."""
    with closing(open_admin(options)) as admin:
        try:
            admin.create_topics([NewTopic(topic, -1, -1, topic_configs={_POLICY: _COMPACT})], wait_for_metadata=True)
        except kafka_errors.TopicAlreadyExistsError:
            policy = _read_policy(admin, topic)
            if policy is not None and _COMPACT not in policy:
                log.warning(
                    "The topic %s has %s=%s: it loses the state of incidents; set it to compact.",
                    topic,
                    _POLICY,
                    policy,
                    extra={"action": "notify"},
                )
        except kafka_errors.AuthorizationError:
            pass  # The account may only write; a missing topic is an error of the producer.
        else:
            log.info("Created the compacted topic %s.", topic, extra={"action": "notify"})


def _read_policy(admin: Any, topic: str) -> str | None:
    """Return the clean-up policy of a topic, or None if it may not be read."""
    try:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic, [_POLICY])])
    except kafka_errors.KafkaError:
        return None
    return next((str(value) for value in _find_values(found, _POLICY)), None)


def _find_values(found: Any, name: str) -> Any:
    """Yield the values of an option in the client's description of it."""
    if isinstance(found, Mapping):
        if name in found:
            value = found[name]
            yield value["value"] if isinstance(value, Mapping) else value
        else:
            for each in found.values():
                yield from _find_values(each, name)


def _translate(error: Exception, topic: str) -> ProduceError:
    """Return the failure as the reason and the text of a message."""
    kind = ProduceFailure.CONNECTION
    text = str(error) or type(error).__name__
    if isinstance(error, ConfigError):
        is_tls = "certificate" in text or "TLS" in text
        kind = ProduceFailure.TLS if is_tls else ProduceFailure.AUTH
    elif isinstance(error, _ACCESS_ERRORS):
        kind, text = ProduceFailure.AUTH, f"Kafka refuses the topic {topic}: {text}"
    elif isinstance(error, _RECORD_ERRORS):
        kind, text = ProduceFailure.CLIENT_ERROR, f"Kafka refuses the record: {text}"
    elif isinstance(error, kafka_errors.KafkaTimeoutError | kafka_errors.RequestTimedOutError | TimeoutError):
        kind, text = ProduceFailure.TIMEOUT, f"Kafka has not acknowledged the record: {text}"
    elif not isinstance(error, BrokerUnavailable | kafka_errors.KafkaError | OSError):
        raise error
    return ProduceError(kind, text)
