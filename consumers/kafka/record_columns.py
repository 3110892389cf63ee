"""Decoding of record batches of Kafka's current format (magic 2) into columns, many batches at a time.

The batches of a fetch answer are decoded together, because producers' batches hold some hundred records and a call of
numpy has a fixed cost. Per record only the varint of its length is read in Python. Records that the vectorised decoder
refuses, and a few records, are read one at a time, with the same results.

The format of a record: length, attributes (one byte), timestamp delta, offset delta, key length, key, value length,
value, number of headers, and per header the length and bytes of its name and of its value. Lengths and numbers are
zigzag varints. A negative length is null.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from consumers.batch import Int64
from consumers.byte_slices import ByteSlices
from consumers.kafka.chunks import (
    MAX_CHUNK_BYTES,
    MAX_CHUNK_RECORDS,
    FetchedRecord,
    RecordChunk,
    pack_records,
    to_us,
    unreadable_range,
)
from consumers.kafka.trace_context import TRACEPARENT, parse_trace_id

MALFORMED = "a record does not have the format of Kafka"
_MIN_VECTOR_RECORDS = 16
"""Number of records from which numpy is faster than one record at a time."""

_MAX_VECTOR_SHIFT = 56
_MAX_SHIFT = 63
_MAX_VECTOR_TIME_MS = 2**61


class MalformedRecordError(ValueError):
    """A record does not have the format, or is one that the vectorised decoder does not read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordBatch:
    """A record batch without compression.

    `timestamp_ms` is the time of the first record, or of all records with LogAppendTime. `next_offset` is the offset
    after the batch. `data` holds the records.
    """

    base_offset: int
    next_offset: int
    timestamp_ms: int
    has_append_time: bool
    n_records: int
    data: bytes | bytearray | memoryview


@dataclass(slots=True, kw_only=True, eq=False)
class _Part:
    """Consecutive records of one batch: bytes [begin, ends[-1]) of its data. `ends` are the ends of the records."""

    batch: RecordBatch
    begin: int
    ends: list[int]
    completes_batch: bool = False
    is_malformed: bool = False


class ChunkBuilder:
    """Collects the records of batches and returns them in chunks of bounded numbers of records and bytes.

    Args:
        max_records: The largest number of records in a chunk.
        min_vector_records: The number of records from which the vectorised decoder is used.
    """

    def __init__(self, max_records: int = MAX_CHUNK_RECORDS, *, min_vector_records: int = _MIN_VECTOR_RECORDS) -> None:
        self.end = 0
        """The offset after the last batch that was added or passed over."""
        self._max_records = max_records
        self._min_vector_records = min_vector_records
        self._parts: list[_Part] = []
        self._n_records = 0
        self._size_bytes = 0
        self._last_offset = -1

    def add(self, batch: RecordBatch) -> Iterator[RecordChunk]:
        """Add a batch, and yield the chunks that are full."""
        place, left = 0, batch.n_records
        if left <= 0 and len(batch.data):
            yield from self.flush()
            yield from self._give_up(batch)
        while left > 0:
            part = _Part(batch=batch, begin=place, ends=[])
            n = min(left, self._max_records - self._n_records)
            part.is_malformed = not _find_ends(batch.data, place, n, MAX_CHUNK_BYTES - self._size_bytes, part.ends)
            if part.ends:
                place = part.ends[-1]
            left -= len(part.ends)
            part.completes_batch = not left and place == len(batch.data)
            self._parts.append(part)
            self._n_records += len(part.ends)
            self._size_bytes += place - part.begin
            if part.completes_batch:
                self.end = batch.next_offset
            elif not left:
                part.is_malformed = True  # bytes are left behind the last record
            if part.is_malformed or self._n_records >= self._max_records or self._size_bytes >= MAX_CHUNK_BYTES:
                yield from self.flush()
                if self.end >= batch.next_offset:
                    return
        self.end = max(self.end, batch.next_offset)

    def flush(self) -> Iterator[RecordChunk]:
        """Yield the collected records."""
        parts, n_records = self._parts, self._n_records
        self._parts, self._n_records, self._size_bytes = [], 0, 0
        if not parts:
            return
        try:
            if n_records < self._min_vector_records:
                raise MalformedRecordError
            chunk = _decode_columns(parts, self._last_offset)
        except (MalformedRecordError, IndexError):
            yield from self._read_one_by_one(parts)
            return
        self._last_offset = int(chunk.offsets[-1])
        yield replace(chunk, end=self.end) if parts[-1].completes_batch else chunk
        if parts[-1].is_malformed:
            yield from self._give_up(parts[-1].batch)

    def _read_one_by_one(self, parts: list[_Part]) -> Iterator[RecordChunk]:
        records: list[FetchedRecord] = []
        end = 0
        for part in parts:
            place, batch = part.begin, part.batch
            is_malformed = part.is_malformed
            for _ in part.ends:
                try:
                    record, place = _read_record(batch, place, self._last_offset)
                except (MalformedRecordError, IndexError):
                    is_malformed = True
                    break
                records.append(record)
                self._last_offset = record.offset
            if is_malformed:
                if records:
                    yield pack_records(records, max(end, self._last_offset + 1))
                records = []
                yield from self._give_up(batch)
            end = batch.next_offset if part.completes_batch else self._last_offset + 1
        if records:
            yield pack_records(records, self.end if parts[-1].completes_batch else end)

    def _give_up(self, batch: RecordBatch) -> Iterator[RecordChunk]:
        """Pass over the rest of a batch."""
        self.end = max(self.end, batch.next_offset)
        begin = max(self._last_offset + 1, batch.base_offset)
        if begin < batch.next_offset:
            yield from unreadable_range(begin, batch.next_offset, MALFORMED)


def _find_ends(data: bytes | bytearray | memoryview, place: int, n: int, size_bytes: int, ends: list[int]) -> bool:
    """Append the ends of up to n records from a place on, until they have so many bytes. Return False if damaged."""
    add, stop, size = ends.append, place + size_bytes, len(data)
    try:
        for _ in range(n):
            byte = data[place]
            place += 1
            length = byte & 0x7F
            shift = 7
            while byte >= 0x80:
                byte = data[place]
                place += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if shift > _MAX_SHIFT:
                    return False
            if length & 1:
                return False
            place += length >> 1
            if place > size:
                return False
            add(place)
            if place >= stop:
                break
    except IndexError:
        return False
    return True


def _decode_columns(parts: list[_Part], last_offset: int) -> RecordChunk:
    """Decode the records of parts together.

    Raises:
        MalformedRecordError: A record is damaged, or has a number that does not fit into the arithmetic.
        IndexError: A record ends beyond the data.
    """
    blob, ends = _join(parts)
    batches, counts = [part.batch for part in parts], [len(part.ends) for part in parts]

    def spread(values: list[int]) -> Int64:
        return np.repeat(np.array(values, np.int64), counts)

    octets = np.frombuffer(blob, np.uint8)
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    lengths, place = _read_varints(octets, begins)
    if (octets[place] >= 0x80).any() or (place + lengths != ends).any():
        raise MalformedRecordError
    time_deltas, place = _read_varints(octets, place + 1)
    offset_deltas, place = _read_varints(octets, place)
    key_lengths, key_starts = _read_varints(octets, place)
    value_lengths, value_starts = _read_varints(octets, key_starts + np.maximum(key_lengths, 0))
    trace_ids = _read_headers(blob, octets, value_starts + np.maximum(value_lengths, 0), ends)
    offsets = spread([batch.base_offset for batch in batches]) + offset_deltas
    stops = spread([batch.next_offset for batch in batches])
    if (
        offsets[0] <= last_offset
        or (np.diff(offsets) <= 0).any()
        or (offset_deltas < 0).any()
        or (offsets >= stops).any()
    ):
        raise MalformedRecordError
    first_ms = spread([batch.timestamp_ms for batch in batches])
    if not (_fits(first_ms) and _fits(time_deltas)):
        raise MalformedRecordError
    has_append_time = np.repeat(np.array([batch.has_append_time for batch in batches], np.bool_), counts)
    return RecordChunk(
        end=int(offsets[-1]) + 1,
        offsets=offsets,
        timestamps_us=to_us(np.where(has_append_time, first_ms, first_ms + time_deltas)),
        values=ByteSlices(blob, value_starts, value_lengths),
        keys=ByteSlices(blob, key_starts, key_lengths) if (key_lengths >= 0).any() else None,
        batch_offsets=spread([batch.base_offset for batch in batches]),
        has_append_time=has_append_time,
        trace_ids=trace_ids,
    )


def _fits(times_ms: Int64) -> bool:
    return bool(times_ms.min() > -_MAX_VECTOR_TIME_MS and times_ms.max() < _MAX_VECTOR_TIME_MS)


def _join(parts: list[_Part]) -> tuple[bytes, Int64]:
    """Return the bytes of parts as one object, and the ends of their records in it."""
    pieces, ends, size = [], [], 0
    for part in parts:
        piece = memoryview(part.batch.data)[part.begin : part.ends[-1] if part.ends else part.begin]
        pieces.append(piece)
        ends.append(np.array(part.ends, np.int64) + (size - part.begin))
        size += len(piece)
    return b"".join(pieces), np.concatenate(ends)


def _read_varints(octets: NDArray[np.uint8], place: Int64) -> tuple[Int64, Int64]:
    """Return the zigzag varints that begin at some places, and the places after them.

    Raises:
        MalformedRecordError: A varint has more than nine bytes.
        IndexError: A varint ends beyond the data.
    """
    octet = octets[place]
    place = place + 1
    value = (octet & 0x7F).astype(np.int64)
    shift = 7
    longer = octet >= 0x80
    while longer.all() and len(longer) and shift <= _MAX_VECTOR_SHIFT:
        octet = octets[place]
        place = place + 1
        value |= (octet & 0x7F).astype(np.int64) << shift
        shift += 7
        longer = octet >= 0x80
    rows = np.flatnonzero(longer)
    while len(rows):
        if shift > _MAX_VECTOR_SHIFT:
            raise MalformedRecordError
        octet = octets[place[rows]]
        place[rows] += 1
        value[rows] |= (octet & 0x7F).astype(np.int64) << shift
        shift += 7
        rows = rows[octet >= 0x80]
    return (value >> 1) ^ -(value & 1), place


def _read_headers(blob: bytes, octets: NDArray[np.uint8], place: Int64, ends: Int64) -> list[str | None] | None:
    """Check that the headers have the format and end with their records; return the first trace of each record.

    None if no record has a trace.

    Raises:
        MalformedRecordError: They do not.
        IndexError: A header ends beyond the data.
    """
    left, place = _read_varints(octets, place)
    if (left < 0).any():
        raise MalformedRecordError
    rows = np.flatnonzero(left)
    traces: dict[int, str] = {}
    while len(rows):
        name_lengths, starts = _read_varints(octets, place[rows])
        if (name_lengths < 0).any():
            raise MalformedRecordError
        stops = starts + name_lengths
        value_lengths, value_starts = _read_varints(octets, stops)
        names = [blob[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)]
        for name in set(names):
            _check_name(name)
        value_stops = value_starts + np.maximum(value_lengths, 0)
        if TRACEPARENT in names:
            for row, name, begin, end in zip(
                rows.tolist(), names, value_starts.tolist(), value_stops.tolist(), strict=True
            ):
                trace_id = parse_trace_id(blob[begin:end]) if name == TRACEPARENT and row not in traces else None
                if trace_id is not None:
                    traces[row] = trace_id
        place[rows] = value_stops
        left[rows] -= 1
        rows = rows[left[rows] > 0]
    if (place != ends).any():
        raise MalformedRecordError
    return [traces.get(row) for row in range(len(ends))] if traces else None


def _check_name(name: bytes) -> None:
    try:
        name.decode()
    except UnicodeDecodeError:
        raise MalformedRecordError from None


def _read_record(batch: RecordBatch, place: int, last_offset: int) -> tuple[FetchedRecord, int]:
    """Read one record; return it with the place after it.

    Raises:
        MalformedRecordError: The record is damaged.
        IndexError: The record ends beyond the data.
    """
    data = batch.data
    length, place = _read_varint(data, place)
    begin = place
    _, place = _read_varint(data, place)  # the attributes
    time_delta, place = _read_varint(data, place)
    offset_delta, place = _read_varint(data, place)
    key, place = _read_bytes(data, place)
    value, place = _read_bytes(data, place)
    n_headers, place = _read_varint(data, place)
    if n_headers < 0:
        raise MalformedRecordError
    trace_id: str | None = None
    for _ in range(n_headers):
        name, place = _read_bytes(data, place)
        if name is None:
            raise MalformedRecordError
        _check_name(name)
        content, place = _read_bytes(data, place)
        if name == TRACEPARENT and trace_id is None:
            trace_id = parse_trace_id(content)
    offset = batch.base_offset + offset_delta
    if place - begin != length or not max(last_offset, batch.base_offset - 1) < offset < batch.next_offset:
        raise MalformedRecordError
    timestamp_ms = batch.timestamp_ms if batch.has_append_time else batch.timestamp_ms + time_delta
    record = FetchedRecord(offset, timestamp_ms, key, value, batch.base_offset, batch.has_append_time, trace_id)
    return record, place


def _read_varint(data: bytes | bytearray | memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = data[place]
        place += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return (value >> 1) ^ -(value & 1), place
        shift += 7
        if shift > _MAX_SHIFT:
            raise MalformedRecordError


def _read_bytes(data: bytes | bytearray | memoryview, place: int) -> tuple[bytes | None, int]:
    length, place = _read_varint(data, place)
    if length < 0:
        return None, place
    return bytes(data[place : place + length]), place + length
