"""The records of fetch answers as columns, by a replacement of the client's reader of one answer.

The client has no public access to record batches. Its fetcher makes one `PartitionRecords` for each answer; an
attribute of one fetcher replaces that class for one consumer. The replacement uses the client's rules for transactions,
positions and checksums. It returns chunks of records in place of records, decompresses under a limit, and turns a batch
that cannot be read into a range of offsets, which ends where the batch's header says.
"""

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Literal
from weakref import WeakKeyDictionary

import kafka
from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.legacy_records import LegacyRecordBatch

from consumers.kafka.chunks import (
    MAX_CHUNK_BYTES,
    MAX_CHUNK_RECORDS,
    FetchedRecord,
    RecordChunk,
    pack_records,
    unreadable_range,
)
from consumers.kafka.client_batches import (
    CURRENT_MAGIC,
    RECORD_ERRORS,
    ClientBatch,
    ClientBatches,
    ReadAgainError,
    SkippedBatchError,
    to_fetched,
)
from consumers.kafka.decompression import Decompressor
from consumers.kafka.record_columns import ChunkBuilder

log = logging.getLogger(__name__)

_VERSIONS = ("3.0.",)
_PARAMETERS = [
    "self",
    "fetch_offset",
    "tp",
    "records",
    "key_deserializer",
    "value_deserializer",
    "check_crcs",
    "isolation_level",
    "aborted_transactions",
    "metric_aggregator",
    "on_drain",
]
_METHODS = ("_unpack_records", "_consume_aborted_transactions_up_to", "_contains_abort_marker", "_is_batch_aborted")
_ATTRIBUTES = ("_buffer", "_pos", "_decompressed", "_next_record_index", "records_count")

Way = Literal["columns", "records"]


class AnswerReader:
    """The readers of all fetch answers of one consumer.

    The first batch is decoded both ways, as columns and by the client's own parser. If they differ, it and all later
    ones are decoded by the client's parser.

    Args:
        decompressor: Decompresses record batches under a limit.
        max_records: The largest number of records in a chunk.
        way: Decode batches as columns, or by the client's parser.
    """

    def __init__(self, decompressor: Decompressor, max_records: int, way: Way = "columns") -> None:
        self.decompressor = decompressor
        self.max_records = max_records
        self.way: Way = way
        self.is_compared = False
        self.damaged: dict[Any, int] = {}
        """The base offset of the batch of each partition whose checksum was wrong once."""
        self._held_bytes: WeakKeyDictionary[Answer, int] = WeakKeyDictionary()

    def __call__(self, fetch_offset: int, tp: Any, records: Any, **options: Any) -> "Answer":
        """Return the reader of one answer, as the client's class does."""
        return Answer(self, fetch_offset, tp, records, **options)

    def hold(self, answer: "Answer", size_bytes: int) -> None:
        """Record the decompressed bytes that an answer holds between two polls.

        The answers of paused partitions hold the rest of a batch each. When all together hold more than the limit of
        one batch, the oldest ones are dropped: the client fetches their rest again from the position.
        """
        self.release(answer)
        self._held_bytes[answer] = size_bytes
        while len(self._held_bytes) > 1 and sum(self._held_bytes.values()) > self.decompressor.limit_bytes:
            next(iter(self._held_bytes)).drain()

    def release(self, answer: "Answer") -> None:
        """Record that an answer holds nothing."""
        self._held_bytes.pop(answer, None)

    def has_wrong_columns(self, batch: ClientBatch) -> bool:
        """Return whether the first records of a batch as columns differ from those of the client's parser."""
        builder = ChunkBuilder(self.max_records, min_vector_records=0)
        columns = batch.to_columns()
        chunks = (chunk for found in (builder.add(columns), builder.flush()) for chunk in found)
        expected: list[FetchedRecord] = []
        with suppress(*RECORD_ERRORS):  # both ways pass over the damage
            for record in islice(batch.parse(), self.max_records):
                if not (expected[-1].offset if expected else batch.base_offset - 1) < record.offset < batch.next_offset:
                    break
                expected.append(to_fetched(record, batch.base_offset))
        found: list[FetchedRecord] = []
        while len(found) < len(expected) and (chunk := next(chunks, None)) is not None:
            found += chunk.records()
        self.is_compared = True
        return found[: len(expected)] != pack_records(expected, 0).records()


class Answer(Fetcher.PartitionRecords):  # type: ignore[misc]  # the client has no types
    """The reader of one fetch answer: an iterator of `RecordChunk`."""

    def __init__(self, reader: AnswerReader, fetch_offset: int, tp: Any, records: Any, **options: Any) -> None:
        self._reader = reader
        super().__init__(fetch_offset, tp, records, **options)

    def take(self, n: int | None = None) -> "_Chunks":
        """Return the next chunks, until they have n records."""
        self._maybe_raise_next_inline_exception()
        taken = _Chunks()
        try:
            for chunk in self.record_iterator:
                taken.append(chunk)
                taken.cost += chunk.cost
                if n is not None and taken.cost >= n:
                    break
        except Exception as error:
            if not taken.cost:
                raise
            self._next_inline_exception = error
        return taken

    def drain(self) -> None:
        """End the answer, and free its memory."""
        self._reader.release(self)
        super().drain()

    def _unpack_records(self, tp: Any, records: Any, *_: Any) -> Iterator[RecordChunk]:
        """Yield the chunks. The client's deserializers are not used."""
        del tp
        batches = ClientBatches(
            records,
            self,
            self._reader.decompressor,
            self._reader.damaged,
            partial(self._reader.hold, self),
        )
        end = self.fetch_offset
        read = self._read_columns if self._reader.way == "columns" else self._read_records
        try:
            for chunk in read(batches):
                if chunk.end > end:
                    end = self.next_fetch_offset = chunk.end
                    yield chunk.trim(self.fetch_offset)
        finally:
            self.next_fetch_offset = end  # the client's parser moves it to records that are not delivered

    def _read_columns(self, batches: ClientBatches) -> Iterator[RecordChunk]:
        builder = ChunkBuilder(self._reader.max_records)
        while True:
            try:
                batch = batches.next_batch()
                if batch is None:
                    break
                if batch.magic < CURRENT_MAGIC:
                    yield from builder.flush()
                    yield self._read_message_set(batch)
                elif self._is_invisible(batch):
                    builder.end = batch.next_offset
                elif not self._reader.is_compared and self._reader.has_wrong_columns(batch):
                    self._stop_columns()
                    yield from builder.flush()
                    batches.put_back(batch)
                    yield from self._read_records(batches)
                    return
                else:
                    yield from builder.add(batch.to_columns())
                    self.records_read += batch.records_count
                    self.bytes_read += batch.size_in_bytes
            except SkippedBatchError as skipped:
                yield from _read_to_end(builder)
                yield from unreadable_range(*skipped.range)
            except ReadAgainError:
                break
            except Exception:
                yield from _read_to_end(builder)
                raise
        yield from _read_to_end(builder)
        self.drain()

    def _stop_columns(self) -> None:
        self._reader.way = "records"
        log.warning(
            "the Kafka client parses a record batch of %s differently than this program; its records are read one at a "
            "time from now on",
            self.topic_partition,
            extra={"action": "compare"},
        )

    def _is_invisible(self, batch: ClientBatch) -> bool:
        """Return whether a batch is a control batch or of an aborted transaction, by the client's rules."""
        self.leader_epoch = batch.leader_epoch
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)

    def _read_message_set(self, batch: ClientBatch) -> RecordChunk:
        """Return the records of a batch of the old formats."""
        records = [to_fetched(record, batch.batch_offset) for record in batch]
        self.records_read += len(records)
        self.bytes_read += batch.size_in_bytes
        return pack_records(records, batch.next_offset)

    def _read_records(self, batches: ClientBatches) -> Iterator[RecordChunk]:
        """Yield the records that the client's parser returns."""
        fetched: list[FetchedRecord] = []
        size_bytes = 0
        while True:
            try:
                for record in super()._unpack_records(self.topic_partition, batches, None, None):
                    fetched.append(to_fetched(record, batches.batch_offset))
                    size_bytes += len(record.value or b"")
                    if len(fetched) >= self._reader.max_records or size_bytes >= MAX_CHUNK_BYTES:
                        yield pack_records(fetched, record.offset + 1)
                        fetched, size_bytes = [], 0
            except (SkippedBatchError, ReadAgainError) as error:
                yield _pack_until(fetched, batches.passed_end)
                fetched, size_bytes = [], 0
                if isinstance(error, ReadAgainError):
                    self.drain()
                    return
                yield from unreadable_range(*error.range)
            except Exception:
                yield _pack_until(fetched, batches.passed_end)
                raise
            else:
                yield pack_records(fetched, self.next_fetch_offset)
                return


class _Chunks(list[RecordChunk]):
    """Chunks of records. The length is their part of `max_poll_records`, because the client counts by it."""

    cost = 0

    def __len__(self) -> int:
        return self.cost


def _read_to_end(builder: ChunkBuilder) -> Iterator[RecordChunk]:
    """Yield the collected records, and a chunk up to the end of the last batch."""
    yield from builder.flush()
    yield pack_records([], builder.end)


def _pack_until(records: Sequence[FetchedRecord], end: int) -> RecordChunk:
    return pack_records(records, max(end, records[-1].offset + 1) if records else end)


def pack_client_records(records: Sequence[Any]) -> RecordChunk:
    """Return records of the client's own reader as columns. Each is a record batch of its own."""
    return pack_records([to_fetched(record, record.offset) for record in records], records[-1].offset + 1)


def read_chunks(consumer: KafkaConsumer, *, limit_bytes: int, max_records: int, way: Way = "columns") -> bool:
    """Make a consumer return chunks of records. Return False if this version of the client does not allow it.

    Args:
        consumer: The consumer; no other one is changed.
        limit_bytes: The largest accepted output of the decompression of one record batch.
        max_records: The largest number of records in a chunk.
        way: Decode batches as columns, or by the client's parser.
    """
    if (difference := find_difference()) is not None:
        log.warning(
            "kafka-python %s differs from the verified versions (%s): its records are read one at a time, without a "
            "limit on decompressed data",
            kafka.__version__,
            difference,
            extra={"action": "read_chunks"},
        )
        return False
    reader = AnswerReader(Decompressor(limit_bytes), min(max_records, MAX_CHUNK_RECORDS), way)
    consumer._fetcher.PartitionRecords = reader  # noqa: SLF001 -- for this consumer only
    return True


def find_difference() -> str | None:
    """Return the first difference of the installed client from the verified versions, or None."""
    if not kafka.__version__.startswith(_VERSIONS):
        return f"verified are {', '.join(f'{version}x' for version in _VERSIONS)}"
    records = getattr(Fetcher, "PartitionRecords", None)
    if records is None or list(inspect.signature(records.__init__).parameters) != _PARAMETERS:
        return "Fetcher.PartitionRecords has other parameters"
    missing = [name for name in _METHODS if not hasattr(records, name)]
    missing += [name for name in _ATTRIBUTES if not hasattr(DefaultRecordBatch, name)]
    missing += [name for name in ("_buffer", "_decompress") if not hasattr(LegacyRecordBatch, name)]
    return f"{missing[0]} is missing" if missing else None
