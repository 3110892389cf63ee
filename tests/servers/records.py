"""Production and deletion of records in a topic."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from tests.servers.kafka import KafkaServer


@contextmanager
def open_producer(server: KafkaServer, **options: object) -> Iterator[KafkaProducer]:
    """Yield a producer, closed at the end."""
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
    """Write records, in one batch if they fit, and wait until the broker has acknowledged them."""
    values = list(values)
    # The linger time keeps all records in the buffer until the flush.
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
    """Yield an administration client, closed at the end."""
    client = KafkaAdminClient(bootstrap_servers=server.bootstrap)
    try:
        yield client
    finally:
        client.close()
