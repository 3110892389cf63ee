"""The records of one fetch answer, with the record batch of each."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher

_LOG_APPEND_TIME = 1


class FetchedRecord(NamedTuple):
    """A record of a fetch answer.

    `timestamp` is in milliseconds. `batch_offset` is the base offset of the record's batch, and `has_append_time` is
    true if the broker's clock has set the timestamps of that batch.
    """

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    batch_offset: int
    has_append_time: bool


class _Answer(Fetcher.PartitionRecords):  # type: ignore[misc]  # the client has no types
    """The client's reader of a fetch answer; it yields each record with the base offset of its batch."""

    def _unpack_records(self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any) -> Iterator[Any]:
        batches = _TrackedBatches(records)
        offset, n_read = 0, 0
        for record in super()._unpack_records(tp, batches, key_deserializer, value_deserializer):
            if batches.n_read != n_read:
                # A message set of the old formats has the offset of its last message; the first one identifies it too.
                offset, n_read = min(batches.base_offset, record.offset), batches.n_read
            yield FetchedRecord(
                record.offset,
                record.timestamp,
                record.key,
                record.value,
                offset,
                record.timestamp_type == _LOG_APPEND_TIME,
            )


class _TrackedBatches:
    """The record batches of an answer, with the base offset of the last one that was read."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.base_offset = 0
        self.n_read = 0

    def next_batch(self) -> Any:
        """Return the next record batch, or None after the last one."""
        batch = self._records.next_batch()
        if batch is not None:
            self.base_offset = batch.base_offset
            self.n_read += 1
        return batch


def track_record_batches(consumer: KafkaConsumer) -> None:
    """Make a consumer return `FetchedRecord` objects. The client has no public access to record batches."""
    consumer._fetcher.PartitionRecords = _Answer  # noqa: SLF001 -- for this consumer only
