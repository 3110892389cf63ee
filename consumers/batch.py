"""Columnar batches of raw records, with their partitions and positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumers.byte_slices import ByteSlices

Int64 = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_ESTIMATED_ROW_BYTES = 256
_OBJECT_BYTES = 40
"""Bytes of a bytes object and its reference, besides its content."""

UNREADABLE_BATCH = "unreadable_batch"
RETENTION = "retention"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Partition:
    """One partition of one topic. A file is partition 0 of a topic with the file's path as its name."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A read position: the next offset and, for a file, the byte offset of that row."""

    next_offset: int
    cursor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of a CSV or Parquet file as columns by name.

    A CSV column holds text cells, or None for the cells of an invalid row. A Parquet column holds numbers or
    objects. `row_bytes` are the original bytes of each row, if the format has them. `row_errors` maps the
    index of a row that could not be split into cells to its dead-letter reason and detail.
    """

    columns: Mapping[str, Sequence[object] | NDArray[np.generic]]
    n_rows: int
    row_bytes: Sequence[bytes | None] | None = None
    row_errors: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.n_rows

    def slice(self, start: int, stop: int) -> Table:
        """Return the rows [start, stop)."""
        return Table(
            columns={name: column[start:stop] for name, column in self.columns.items()},
            n_rows=max(0, min(stop, self.n_rows) - start),
            row_bytes=None if self.row_bytes is None else self.row_bytes[start:stop],
            row_errors={row - start: fault for row, fault in self.row_errors.items() if start <= row < stop},
        )

    def select(self, rows: Int64) -> Table:
        """Return the rows at ascending indices."""
        chosen = rows.tolist()
        return Table(
            columns={name: _select_items(column, rows) for name, column in self.columns.items()},
            n_rows=len(chosen),
            row_bytes=None if self.row_bytes is None else [self.row_bytes[row] for row in chosen],
            row_errors={i: self.row_errors[row] for i, row in enumerate(chosen) if row in self.row_errors},
        )


def _select_items(
    column: Sequence[object] | NDArray[np.generic], rows: Int64
) -> Sequence[object] | NDArray[np.generic]:
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows.tolist()]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBatch:
    """Consecutive records of one partition before decoding.

    [begin, end) are the source's positions before and after the fetch. `end` is at least the last offset + 1.
    It is larger after control batches, compaction holes and aborted transactions, so that a batch without
    records also advances the position.

    `timestamps_us` are the broker's timestamps, None for files. `max_event_time_us` is the upper bound of a
    plausible event time, None without a bound. `batch_offsets` holds the base offset of the record batch of each
    record, and `has_append_time` is true where that batch has LogAppendTime (the broker's clock has set its
    timestamps); both are None for sources without record batches. `trace_ids` holds the trace of each record (W3C Trace
    Context), or is None if none has one. `cursors` holds the byte offset of each row,
    followed by the byte offset after the last row. `skip_reason` is the reason why the range [begin, end) could not be
    read ("retention" or "unreadable_batch"), and `skip_detail` says more. A batch with a skip reason has no records.
    """

    partition: Partition
    begin: int
    end: int
    offsets: Int64
    values: Sequence[bytes | None] | Table
    keys: Sequence[bytes | None] | None = None
    timestamps_us: Int64 | None = None
    max_event_time_us: int | None = None
    batch_offsets: Int64 | None = None
    has_append_time: Mask | None = None
    trace_ids: list[str | None] | None = None
    cursors: Int64 | None = None
    skip_reason: str | None = None
    skip_detail: str | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def size_bytes(self) -> int:
        """An estimate of the memory of the values and keys in bytes. One bytes object of many records counts whole."""
        if isinstance(self.values, Table):
            return len(self) * _ESTIMATED_ROW_BYTES
        if isinstance(self.values, ByteSlices):
            return self.values.size_bytes
        return sum(len(value) for value in self.values if value is not None) + len(self) * _OBJECT_BYTES

    def trim(self, begin: int) -> RawBatch:
        """Return the batch without the records below offset `begin`, or the batch itself if there are none."""
        if begin <= self.begin:
            return self
        first = int(np.searchsorted(self.offsets, begin))
        return replace(
            self,
            begin=min(begin, self.end),
            offsets=self.offsets[first:],
            values=self.values.slice(first, len(self.offsets))
            if isinstance(self.values, Table)
            else self.values[first:],
            keys=None if self.keys is None else self.keys[first:],
            timestamps_us=None if self.timestamps_us is None else self.timestamps_us[first:],
            batch_offsets=None if self.batch_offsets is None else self.batch_offsets[first:],
            has_append_time=None if self.has_append_time is None else self.has_append_time[first:],
            trace_ids=None if self.trace_ids is None else self.trace_ids[first:],
            cursors=None if self.cursors is None else self.cursors[first:],
        )

    def select(self, rows: Int64) -> RawBatch:
        """Return the batch with the records at ascending indices; its range of offsets and its cursors stay."""
        values = self.values
        selected: Sequence[bytes | None] | Table
        if isinstance(values, Table | ByteSlices):
            selected = values.select(rows)
        else:
            selected = [values[row] for row in rows.tolist()]
        keys = self.keys
        return replace(
            self,
            offsets=self.offsets[rows],
            values=selected,
            keys=None if keys is None else [keys[row] for row in rows.tolist()],
            timestamps_us=None if self.timestamps_us is None else self.timestamps_us[rows],
            batch_offsets=None if self.batch_offsets is None else self.batch_offsets[rows],
            has_append_time=None if self.has_append_time is None else self.has_append_time[rows],
            trace_ids=None if self.trace_ids is None else [self.trace_ids[row] for row in rows.tolist()],
        )

    def head(self, n: int) -> RawBatch:
        """Return the batch first to its first n records, or the batch itself if it has at most n."""
        if len(self) <= n:
            return self
        return replace(
            self,
            end=int(self.offsets[n]),
            offsets=self.offsets[:n],
            values=self.values.slice(0, n) if isinstance(self.values, Table) else self.values[:n],
            keys=None if self.keys is None else self.keys[:n],
            timestamps_us=None if self.timestamps_us is None else self.timestamps_us[:n],
            batch_offsets=None if self.batch_offsets is None else self.batch_offsets[:n],
            has_append_time=None if self.has_append_time is None else self.has_append_time[:n],
            trace_ids=None if self.trace_ids is None else self.trace_ids[:n],
            cursors=None if self.cursors is None else self.cursors[: n + 1],
        )
