"""The options of the Kafka client, and the construction of consumers and admin clients with them."""

import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.net.sasl import SASL_MECHANISMS

from config.errors import ConfigError
from consumers.kafka.access import check_credentials

REQUEST_TIMEOUT_S = 10.0
_OPEN_MARGIN_S = 5.0
_MIB = 2**20

_FIXED_OPTIONS: dict[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    "allow_auto_create_topics": False,
}
_DEFAULT_OPTIONS: dict[str, Any] = {
    "client_id": "outrider",
    "max_poll_records": 5000,
    "fetch_max_bytes": 16 * _MIB,
    "max_partition_fetch_bytes": _MIB,
    "bootstrap_timeout_ms": 10_000,
    # A partition of a killed daemon is reassigned after this time; the client's default is 45 s.
    "session_timeout_ms": 10_000,
    # The remaining members learn of the reassignment with their next heartbeat; the client's default is 3 s.
    "heartbeat_interval_ms": 1_000,
    # After a long outage the client reconnects every 3 s, not every 30 s.
    "reconnect_backoff_max_ms": 3_000,
    # New partitions and re-created topics are detected by fresh metadata.
    "metadata_max_age_ms": 5_000,
    # The daemon has its own measurements. The client's metrics take 5% of its time.
    "metrics_enabled": False,
}
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def client_options(bootstrap_servers: Sequence[str], client: Mapping[str, Any], group_id: str | None) -> dict[str, Any]:
    """Build the consumer's options: defaults, then the user's options, then the options that exactness requires.

    Raises:
        ConfigError: An option is unknown, missing or set by Outrider, a package is missing, or a file cannot be read.
    """
    known = set(KafkaConsumer.DEFAULT_CONFIG) - {"kafka_client", "key_deserializer", "value_deserializer"}
    fixed = {**_FIXED_OPTIONS, "bootstrap_servers": list(bootstrap_servers), "group_id": group_id}
    for name, value in client.items():
        if name in fixed and value != fixed[name]:
            raise ConfigError(f"kafka.client.{name} cannot be set to {value!r}: Outrider needs {fixed[name]!r}")
        if name not in known:
            matches = get_close_matches(name, known, n=1)
            hint = f"; did you mean {matches[0]}?" if matches else ""
            raise ConfigError(f"kafka.client.{name} is not an option of kafka-python's consumer{hint}")
    protocol = client.get("security_protocol", "PLAINTEXT")
    if protocol not in _PROTOCOLS:  # the client treats any other value as PLAINTEXT
        raise ConfigError(f"kafka.client.security_protocol is {protocol!r}; it is one of {', '.join(_PROTOCOLS)}")
    if importlib.util.find_spec("crc32c") is None:
        raise ConfigError("the package crc32c is missing; without it Kafka is read at a quarter of the speed")
    check_credentials(client, SASL_MECHANISMS)
    return {**_DEFAULT_OPTIONS, **client, **fixed}


def open_consumer(options: Mapping[str, Any]) -> tuple[KafkaConsumer, Any]:
    """Open a consumer. Return it with its cluster metadata."""
    clients: list[Any] = []

    def make_client(**configs: Any) -> Any:
        client = KafkaConsumer.DEFAULT_CONFIG["kafka_client"](**configs)
        # Up to kafka-python 3.0.12 the option does not reach the metadata requests.
        client.cluster.config["allow_auto_create_topics"] = False
        clients.append(client)
        return client

    with _close_on_error(clients):
        consumer = _construct_in_time(lambda: KafkaConsumer(**options, kafka_client=make_client), options)
    return consumer, clients[0].cluster


def open_admin(options: Mapping[str, Any]) -> KafkaAdminClient:
    """Open an admin client."""
    clients: list[Any] = []

    def make_client(**configs: Any) -> Any:
        clients.append(KafkaAdminClient.DEFAULT_CONFIG["kafka_client"](**configs))
        return clients[0]

    shared = {name: value for name, value in options.items() if name in KafkaAdminClient.DEFAULT_CONFIG}
    shared["request_timeout_ms"] = min(int(REQUEST_TIMEOUT_S * 1000), shared.get("request_timeout_ms", 10_000))
    with _close_on_error(clients):
        return _construct_in_time(lambda: KafkaAdminClient(**shared, kafka_client=make_client), options)


def open_producer(options: Mapping[str, Any], *, timeout_ms: int) -> KafkaProducer:
    """Open an idempotent producer that gives a record up after `timeout_ms`."""
    clients: list[Any] = []

    def make_client(**configs: Any) -> Any:
        clients.append(KafkaProducer.DEFAULT_CONFIG["kafka_client"](**configs))
        return clients[0]

    shared = {name: value for name, value in options.items() if name in KafkaProducer.DEFAULT_CONFIG}
    fixed = {
        "enable_idempotence": True,
        "acks": "all",
        "linger_ms": 0,
        "max_block_ms": timeout_ms,
        "request_timeout_ms": max(1_000, timeout_ms // 2),
        "delivery_timeout_ms": timeout_ms,
        "allow_auto_create_topics": False,
    }
    with _close_on_error(clients):
        return _construct_in_time(lambda: KafkaProducer(**{**shared, **fixed}, kafka_client=make_client), options)


def _construct_in_time(construct: Callable[[], Any], options: Mapping[str, Any]) -> Any:
    """Construct a client, within its time-out and a margin.

    Up to kafka-python 3.0.12 the constructor waits without end for a broker that accepts a connection and does not
    answer the TLS handshake.

    Raises:
        KafkaTimeoutError: The time is over.
    """
    constructed: Future[Any] = Future()

    def run() -> None:
        try:
            constructed.set_result(construct())
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            constructed.set_exception(error)

    threading.Thread(target=run, name="kafka-open", daemon=True).start()
    try:
        return constructed.result(options["bootstrap_timeout_ms"] / 1000 + _OPEN_MARGIN_S)
    except TimeoutError:
        raise kafka_errors.KafkaTimeoutError("the broker accepts the connection and does not answer") from None


@contextmanager
def _close_on_error(clients: Sequence[Any]) -> Iterator[None]:
    """Close clients after a failed construction. Otherwise their IO threads reconnect to the broker forever."""
    try:
        yield
    except BaseException as error:
        for client in clients:
            client.close()
        if isinstance(error, TypeError | ValueError | AssertionError):
            raise ConfigError(f"kafka.client has an option that kafka-python rejects: {error}") from error
        raise
