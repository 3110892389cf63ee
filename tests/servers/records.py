"""Production and deletion of records in a topic."""

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from tests.servers.kafka import KafkaServer

_PRODUCE = 0
_PRODUCE_VERSION = 7


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


def produce_batches(server: KafkaServer, topic: str, batches: Iterable[bytes], *, partition: int = 0) -> None:
    """Write record batches as they are, each with one request, and check the broker's answers.

    The broker replaces the base offset of each batch.
    """
    host, port = server.bootstrap.split(":")
    with socket.create_connection((host, int(port)), timeout=120) as connection, connection.makefile("rb") as answers:
        for batch in batches:
            records = struct.pack(">iii", 1, partition, len(batch)) + batch
            body = struct.pack(">hhii", -1, -1, 120_000, 1) + _pack_text(topic) + records
            request = struct.pack(">hhi", _PRODUCE, _PRODUCE_VERSION, 1) + _pack_text("tests") + body
            connection.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", answers.read(4))
            answer = answers.read(size)
            (error,) = struct.unpack_from(">h", answer, 4 + 4 + len(_pack_text(topic)) + 4 + 4)
            assert error == 0, f"the broker refuses a batch with error {error}"


def _pack_text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
