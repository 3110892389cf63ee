"""Tests: put records into a topic in the ways that producers have."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from tests.servers.kafka import KafkaServer


@contextmanager
def open_producer(server: KafkaServer, **options: object) -> Iterator[KafkaProducer]:
    """A producer that waits for acknowledgement and is closed."""
    made = KafkaProducer(bootstrap_servers=server.bootstrap, **options)
    try:
        yield made
    finally:
        made.close()


def produce(
    server: KafkaServer,
    topic: str,
    values: Iterable[bytes | None],
    *,
    partition: int = 0,
    keys: Iterable[bytes | None] | None = None,
    **options: object,
) -> None:
    """Write records, in one batch where they fit, and wait until the broker has them all."""
    values = list(values)
    # Nothing leaves before the flush, however slow this process is.
    with open_producer(server, linger_ms=60_000, **options) as writer:
        for key, value in zip(keys or [None] * len(values), values, strict=True):
            writer.send(topic, value, key=key, partition=partition)
        writer.flush()


def delete_records(server: KafkaServer, topic: str, before: int, *, partition: int = 0) -> None:
    """Delete the records below an offset, as retention does."""
    with open_admin(server) as client:
        client.delete_records({TopicPartition(topic, partition): before})


@contextmanager
def open_admin(server: KafkaServer) -> Iterator[KafkaAdminClient]:
    """A client for administration that is closed."""
    client = KafkaAdminClient(bootstrap_servers=server.bootstrap)
    try:
        yield client
    finally:
        client.close()
