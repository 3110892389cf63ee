"""The record batches of a fetch answer: checksums, decompression under a limit, and ranges that cannot be read.

The client parses the header of each batch. A batch that cannot be read becomes a range of offsets, which ends where its
header says.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from kafka.errors import CorruptRecordError
from kafka.record.legacy_records import LegacyRecordBatch

from consumers.kafka.chunks import FetchedRecord
from consumers.kafka.decompression import Decompressor, UndecodableError
from consumers.kafka.record_columns import MALFORMED, RecordBatch
from consumers.kafka.trace_context import TRACEPARENT, parse_trace_id

CURRENT_MAGIC = 2
RECORD_ERRORS = (CorruptRecordError, struct.error, ValueError, LookupError, AssertionError)
_INT32 = struct.Struct(">i")
_LOG_APPEND_TIME = 1


class SkippedBatchError(Exception):
    """A record batch cannot be read. Its header gives the range of offsets."""

    def __init__(self, begin: int, end: int, reason: str) -> None:
        super().__init__(begin, end, reason)
        self.range = (begin, end, reason)


class ReadAgainError(Exception):
    """A checksum is wrong for the first time. The batch is fetched again: it may have been damaged on its way."""


class ClientBatches:
    """The record batches of an answer with valid checksums.

    Args:
        records: The client's iterator of record batches.
        answer: The client's reader of the answer, which has its position and options.
        decompressor: Decompresses record batches under a limit.
        damaged: The base offset of the batch of each partition whose checksum was wrong once; updated.
        hold: Called with the number of decompressed bytes of the last batch.
    """

    def __init__(
        self,
        records: Any,
        answer: Any,
        decompressor: Decompressor,
        damaged: dict[Any, int],
        hold: Callable[[int], None],
    ) -> None:
        self._records = records
        self._answer = answer
        self._decompressor = decompressor
        self._damaged = damaged
        self.hold = hold
        self._put_back: deque[Any] = deque()
        self._end = answer.fetch_offset
        self._last: ClientBatch | None = None
        self.passed_end = answer.fetch_offset
        """The offset after the batches before the last one that was asked for."""
        self.last_offset = -1
        """The offset of the last record that the client's parser returned."""

    @property
    def batch_offset(self) -> int:
        """The base offset of the last batch, or the offset of its first record in the old formats."""
        return self._last.batch_offset if self._last is not None else 0

    def put_back(self, batch: "ClientBatch") -> None:
        """Return this batch again with the next call."""
        self._put_back.append(batch)
        self._end = self.passed_end

    def next_batch(self) -> "ClientBatch | None":
        """Return the next batch, or None after the last one.

        Raises:
            SkippedBatchError: Its checksum is wrong.
            ReadAgainError: The same, for the first time.
            CorruptRecordError: Its checksum is wrong, and its header may be wrong too.
        """
        self.passed_end = self._end
        found = self._put_back.popleft() if self._put_back else self._records.next_batch()
        if found is None:
            return None
        if isinstance(found, ClientBatch):
            batch = found  # its checksum has been verified
        else:
            batch = ClientBatch(found, self, self._decompressor)
            if self._answer.check_crcs and not batch.has_valid_checksum():
                self._skip(batch)
        self._end, self._last = batch.next_offset, batch
        return batch

    def _skip(self, batch: "ClientBatch") -> None:
        """Raise the error of a batch with a wrong checksum. Its header is trusted if the next batch confirms it."""
        following = self._records.next_batch()
        if (
            following is None
            or batch.magic != CURRENT_MAGIC
            or not self._end < batch.next_offset <= following.base_offset
        ):
            raise CorruptRecordError(
                f"the record batch of {self._answer.topic_partition} at offset {batch.base_offset} has a wrong checksum"
            )
        partition, base_offset = self._answer.topic_partition, batch.base_offset
        if self._damaged.get(partition) != base_offset:
            self._damaged[partition] = base_offset
            raise ReadAgainError
        del self._damaged[partition]
        self._put_back.append(following)
        self._end = batch.next_offset
        raise SkippedBatchError(base_offset, batch.next_offset, "the checksum of the record batch is wrong")


class ClientBatch:
    """A record batch of the client, which decompresses it under the limit. Other attributes are those of the client."""

    def __init__(self, batch: Any, batches: ClientBatches, decompressor: Decompressor) -> None:
        self._is_current = batch.magic == CURRENT_MAGIC
        self._batch = batch if self._is_current else _MessageSet(batch, decompressor)
        self._batches = batches
        self._decompressor = decompressor
        self._begin: int | None = None
        self.batch_offset: int = batch.base_offset
        # A message set of the old formats has the offset of its last message.
        self.next_offset: int = batch.next_offset if self._is_current else batch.base_offset + 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        """Yield the parsed records, with ascending offsets inside the batch.

        Raises:
            SkippedBatchError: The batch is too large or damaged. Records before the damage have been yielded.
        """
        is_first = True
        try:
            for record in self.parse():
                if not self._follows(record.offset) or not record.validate_crc():
                    raise CorruptRecordError
                if is_first and not self._is_current:
                    self.batch_offset = record.offset
                is_first = False
                self._batches.last_offset = record.offset
                yield record
        except UndecodableError as error:
            raise self._skipped(str(error)) from None
        except RECORD_ERRORS as error:
            raise self._skipped(MALFORMED) from error

    def parse(self) -> Iterator[Any]:
        """Yield the records that the client's parser returns, from the first on.

        Raises:
            SkippedBatchError: The batch is too large or damaged.
        """
        if self._is_current:
            self._decompress()
        yield from self._batch

    def _follows(self, offset: int) -> bool:
        """Return whether an offset is inside the batch and after the record before."""
        first = self.base_offset if self._is_current else 0
        return max(self._batches.last_offset + 1, first) <= offset < self.next_offset

    def has_valid_checksum(self) -> bool:
        """Return whether the checksum of the batch is right."""
        return bool(self._batch.validate_crc())

    def validate_crc(self) -> bool:
        """Return True: the checksum was verified before the decompression."""
        return True

    def to_columns(self) -> RecordBatch:
        """Return the decompressed batch.

        Raises:
            SkippedBatchError: The batch is too large or damaged.
        """
        self._decompress()
        batch, buffer = self._batch, self._batch._buffer  # noqa: SLF001 -- there is no public equivalent
        has_append_time = batch.timestamp_type == _LOG_APPEND_TIME
        return RecordBatch(
            base_offset=batch.base_offset,
            next_offset=batch.next_offset,
            timestamp_ms=batch.max_timestamp if has_append_time else batch.first_timestamp,
            has_append_time=has_append_time,
            n_records=batch.records_count,
            data=bytes(memoryview(buffer)[self._begin :]) if self._begin else buffer,
        )

    def _decompress(self) -> None:
        """Decompress the records at the first call, and set the client's parser to the first record."""
        batch = self._batch
        if self._begin is None:
            if batch.compression_type:
                data = memoryview(batch._buffer)[batch._pos :]  # noqa: SLF001 -- there is no public equivalent
                try:
                    batch._buffer = self._decompressor.decompress(batch.compression_type, data)  # noqa: SLF001
                except UndecodableError as error:
                    raise self._skipped(str(error)) from None
                batch._pos = 0  # noqa: SLF001
                self._batches.hold(len(batch._buffer))  # noqa: SLF001
            batch._decompressed = True  # noqa: SLF001
            self._begin = batch._pos  # noqa: SLF001
        batch._pos = self._begin  # noqa: SLF001
        batch._next_record_index = 0  # noqa: SLF001

    def _skipped(self, reason: str) -> SkippedBatchError:
        begin = max(self.base_offset, self._batches.last_offset + 1) if self._is_current else 0
        return SkippedBatchError(begin, self.next_offset, reason)


class _MessageSet(LegacyRecordBatch):  # type: ignore[misc]  # the client has no types
    """A batch of the old formats (magic 0 and 1), decompressed under the limit."""

    __slots__ = ("_decompressor",)

    def __init__(self, batch: Any, decompressor: Decompressor) -> None:
        super().__init__(batch._buffer, batch.magic)  # noqa: SLF001 -- there is no public equivalent
        self._decompressor = decompressor

    def _decompress(self, key_offset: int) -> bytearray:
        """Return the messages in the value of the batch's own message."""
        (key_length,) = _INT32.unpack_from(self._buffer, key_offset)
        begin = key_offset + _INT32.size + max(0, key_length)
        (length,) = _INT32.unpack_from(self._buffer, begin)
        begin += _INT32.size
        if not 0 <= length <= len(self._buffer) - begin:
            raise CorruptRecordError
        return self._decompressor.decompress(self.compression_type, self._buffer[begin : begin + length])


def to_fetched(record: Any, batch_offset: int) -> FetchedRecord:
    """Return a record of the client as the fields that are read from it; without a timestamp it has -1 ms."""
    timestamp_ms = -1 if record.timestamp is None else record.timestamp
    has_append_time = record.timestamp_type == _LOG_APPEND_TIME
    trace_ids = (parse_trace_id(value) for name, value in record.headers or () if name.encode() == TRACEPARENT)
    trace_id = next(filter(None, trace_ids), None)
    return FetchedRecord(record.offset, timestamp_ms, record.key, record.value, batch_offset, has_append_time, trace_id)
