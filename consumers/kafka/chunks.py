"""Columns of consecutive records of one partition, as the Kafka client delivers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from consumers.batch import Int64, Mask
from consumers.byte_slices import ByteSlices

MAX_CHUNK_RECORDS = 5_000
MAX_CHUNK_BYTES = 16 * 1024 * 1024
"""Bytes of records above which a chunk is closed. Only a single larger record makes a larger chunk."""

_BYTES_PER_RECORD = MAX_CHUNK_BYTES // MAX_CHUNK_RECORDS
_MAX_TIMESTAMP_MS = (2**63 - 1) // 1000


class FetchedRecord(NamedTuple):
    """One record. `timestamp_ms` is -1 if it has none, and `trace_id` is that of its header `traceparent`."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    batch_offset: int
    has_append_time: bool
    trace_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordChunk:
    """Consecutive records of one partition as columns, or a range of offsets that cannot be read.

    The records are below the offset `end`, where the next chunk begins. A chunk without records advances the position
    over control batches, aborted transactions and compaction holes. `unreadable` is the reason why a range cannot be
    read; such a chunk has no records. `trace_ids` is None if no record has a trace.
    """

    end: int
    offsets: Int64
    timestamps_us: Int64
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None] | None
    batch_offsets: Int64
    has_append_time: Mask
    trace_ids: list[str | None] | None = None
    unreadable: str | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def offset(self) -> int:
        """The last offset of the chunk's range."""
        return self.end - 1

    @property
    def cost(self) -> int:
        """The part of `max_poll_records` that the chunk takes: its records, or more if they are large."""
        values = self.values
        size_bytes = values.size_bytes if isinstance(values, ByteSlices) else sum(map(len, filter(None, values)))
        return max(1, len(self), size_bytes // _BYTES_PER_RECORD)

    def trim(self, begin: int) -> RecordChunk:
        """Return the chunk without the records below offset `begin`, or the chunk itself if there are none."""
        first = int(np.searchsorted(self.offsets, begin))
        if not first:
            return self
        return replace(
            self,
            offsets=self.offsets[first:],
            timestamps_us=self.timestamps_us[first:],
            values=self.values[first:],
            keys=None if self.keys is None else self.keys[first:],
            batch_offsets=self.batch_offsets[first:],
            has_append_time=self.has_append_time[first:],
            trace_ids=None if self.trace_ids is None else self.trace_ids[first:],
        )

    def records(self) -> list[FetchedRecord]:
        """Return the records as objects, with times in whole milliseconds."""
        columns = (
            self.offsets.tolist(),
            (self.timestamps_us // 1000).tolist(),
            [None] * len(self) if self.keys is None else list(self.keys),
            list(self.values),
            self.batch_offsets.tolist(),
            self.has_append_time.tolist(),
            [None] * len(self) if self.trace_ids is None else self.trace_ids,
        )
        return [FetchedRecord(*row) for row in zip(*columns, strict=True)]


def pack_records(records: Sequence[FetchedRecord], end: int) -> RecordChunk:
    """Return records as columns."""
    offsets, timestamps_ms, keys, values, batch_offsets, has_append_time, trace_ids = (
        zip(*records, strict=True) if records else ((),) * 7
    )
    timestamps_ms = tuple(min(max(each, -1), _MAX_TIMESTAMP_MS) for each in timestamps_ms)
    return RecordChunk(
        end=end,
        offsets=np.array(offsets, np.int64),
        timestamps_us=to_us(np.array(timestamps_ms, np.int64)),
        values=list(values),
        keys=None if all(key is None for key in keys) else list(keys),
        batch_offsets=np.array(batch_offsets, np.int64),
        has_append_time=np.array(has_append_time, np.bool_),
        trace_ids=None if all(trace_id is None for trace_id in trace_ids) else list(trace_ids),
    )


def unreadable_range(begin: int, end: int, reason: str) -> list[RecordChunk]:
    """Return the chunks of the range [begin, end), which cannot be read: one up to its begin, and the range."""
    return [pack_records([], begin), replace(pack_records([], end), unreadable=reason)]


def merge_empty(chunks: Sequence[RecordChunk]) -> list[RecordChunk]:
    """Return the chunks without empty ones: records extend to the end of an empty chunk that follows them."""
    merged: list[RecordChunk] = []
    for chunk in chunks:
        is_empty = not len(chunk) and chunk.unreadable is None
        if is_empty and merged and merged[-1].unreadable is None:
            merged[-1] = replace(merged[-1], end=max(merged[-1].end, chunk.end))
        else:
            merged.append(chunk)
    return merged


def to_us(timestamps_ms: Int64) -> Int64:
    """Return times in microseconds, -1 ms for all negative ones and the largest int64 for those beyond it."""
    us: Int64 = np.clip(timestamps_ms, -1, _MAX_TIMESTAMP_MS) * 1000
    return us
