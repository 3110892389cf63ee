"""Record batches of Kafka's current format as bytes, valid or deliberately not, and the chunks of an answer."""

import struct
from dataclasses import dataclass, field

import crc32c
from kafka import TopicPartition, codec
from kafka.consumer.fetcher import IsolationLevel
from kafka.record.memory_records import MemoryRecords

from consumers.kafka.answers import AnswerReader
from consumers.kafka.decompression import GZIP, LZ4, SNAPPY, ZSTD, Decompressor

PARTITION = TopicPartition("t", 0)
ENCODERS = {
    0: bytes,
    GZIP: codec.gzip_encode,
    SNAPPY: codec.snappy_encode,
    LZ4: codec.lz4_encode,
    ZSTD: codec.zstd_encode,
}
LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A record batch. `data` replaces the encoded records, and `stored` their compressed form."""

    base_offset: int
    values: tuple[bytes | None, ...] = ()
    keys: tuple[bytes | None, ...] | None = None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()
    deltas: tuple[int, ...] | None = None
    length: int | None = None
    time_deltas: tuple[int, ...] | None = None
    timestamp_ms: int = 1_700_000_000_000
    append_time: bool = False
    codec: int = 0
    producer_id: int = -1
    is_control: bool = False
    n_records: int | None = None
    data: bytes | None = None
    stored: bytes | None = None
    extra: bytes = field(default=b"")

    @property
    def next_offset(self) -> int:
        return self.base_offset + (len(self.values) if self.length is None else self.length)

    def records(self) -> bytes:
        """Return the encoded records."""
        if self.data is not None:
            return self.data
        encoded = []
        for i, value in enumerate(self.values):
            delta = i if self.deltas is None else self.deltas[i]
            time_delta = 10 * i if self.time_deltas is None else self.time_deltas[i]
            key = None if self.keys is None else self.keys[i]
            body = b"\0" + varint(time_delta) + varint(delta) + sized(key) + sized(value) + varint(len(self.headers))
            body += b"".join(sized(name) + sized(content) for name, content in self.headers)
            encoded.append(varint(len(body)) + body)
        return b"".join(encoded) + self.extra

    def encode(self) -> bytes:
        """Return the bytes of the batch with its checksum."""
        attributes = self.codec | self.append_time << 3 | (self.producer_id >= 0) << 4 | self.is_control << 5
        stored = bytes(ENCODERS.get(self.codec, bytes)(self.records())) if self.stored is None else self.stored
        n = len(self.values) if self.n_records is None else self.n_records
        last_delta = self.next_offset - self.base_offset - 1
        first_ms, last_ms = self.timestamp_ms, self.timestamp_ms + 7
        checked = (
            struct.pack(">hiqqqhii", attributes, last_delta, first_ms, last_ms, self.producer_id, 0, -1, n) + stored
        )
        framed = struct.pack(">ibI", 0, 2, crc32c.crc32c(checked)) + checked
        return struct.pack(">qi", self.base_offset, len(framed)) + framed


def varint(value: int) -> bytes:
    """Return a zigzag varint."""
    rest, encoded = value << 1 if value >= 0 else (-value << 1) - 1, b""
    while rest > 0x7F:
        encoded += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    return encoded + bytes([rest])


def sized(content: bytes | None) -> bytes:
    """Return bytes with their length."""
    return varint(-1) if content is None else varint(len(content)) + content


def read(answer, way, *, begin=0, aborted=(), limit_bytes=LIMIT_BYTES, max_records=5_000, reader=None, take=None):
    """Return the chunks of one answer, the position after it, and the error at its end."""
    reader = reader or AnswerReader(Decompressor(limit_bytes), max_records, way)
    records = reader(
        begin,
        PARTITION,
        MemoryRecords(answer),
        isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=aborted,
    )
    chunks, error = [], None
    while records:
        try:
            chunks += records.take(take)
        except Exception as raised:  # noqa: BLE001 - any error ends an answer
            error = raised
            break
    return chunks, records.next_fetch_offset, error


def summarise(found):
    """Return the records and ranges of chunks, the position and the kind of the error."""
    chunks, position, error = found
    items, begin = [], 0
    for chunk in chunks:
        items += chunk.records()
        if chunk.unreadable is not None:
            items.append((begin, chunk.end, chunk.unreadable))
        begin = chunk.end
    return items, position, type(error)
