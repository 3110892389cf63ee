"""Columnar batches of raw records, events and dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from consumers.byte_slices import ByteSlices

Int64 = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_Item = TypeVar("_Item", bound=np.generic)

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
    timestamps); both are None for sources without record batches. `cursors` holds the byte offset of each row,
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
            cursors=None if self.cursors is None else self.cursors[: n + 1],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Decoded events of one partition as columns, ordered by offset.

    `batch_offsets` holds the base offset of the record batch of each event, and `has_append_time` is true where that
    batch has LogAppendTime. Both are None for sources without record batches, such as files.

    `features`, (n, D), are float64 as they were decoded, or float32 for records of that format. They are finite in
    float32, or NaN where a value is missing.
    """

    offsets: Int64
    times_us: Int64
    features: Floats
    keys: list[str | None] | None = None
    ids: list[str | None] | None = None
    batch_offsets: Int64 | None = None
    has_append_time: Mask | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def slice(self, start: int, stop: int) -> Events:
        """Return the events [start, stop). The arrays are views."""
        return Events(
            offsets=self.offsets[start:stop],
            times_us=self.times_us[start:stop],
            features=self.features[start:stop],
            keys=None if self.keys is None else self.keys[start:stop],
            ids=None if self.ids is None else self.ids[start:stop],
            batch_offsets=None if self.batch_offsets is None else self.batch_offsets[start:stop],
            has_append_time=None if self.has_append_time is None else self.has_append_time[start:stop],
        )

    def filter(self, mask: Mask) -> Events:
        """Return the events for which the mask is true, or the same object if it is true everywhere."""
        if mask.all():
            return self
        selected = np.flatnonzero(mask)
        return Events(
            offsets=self.offsets[selected],
            times_us=self.times_us[selected],
            features=self.features[selected],
            keys=None if self.keys is None else [self.keys[i] for i in selected],
            ids=None if self.ids is None else [self.ids[i] for i in selected],
            batch_offsets=None if self.batch_offsets is None else self.batch_offsets[selected],
            has_append_time=None if self.has_append_time is None else self.has_append_time[selected],
        )

    @staticmethod
    def empty(n_features: int) -> Events:
        """Return no events of so many features."""
        none = np.empty(0, np.int64)
        return Events(offsets=none, times_us=none, features=np.empty((0, n_features), np.float64))

    @staticmethod
    def concat(pieces: Sequence[Events]) -> Events:
        """Concatenate batches of events. At least one is required, because it defines the number of features."""
        if len(pieces) == 1:
            return pieces[0]
        return Events(
            offsets=np.concatenate([piece.offsets for piece in pieces]),
            times_us=np.concatenate([piece.times_us for piece in pieces]),
            features=np.concatenate([piece.features for piece in pieces]),
            keys=_concatenate_columns([piece.keys for piece in pieces], [len(piece) for piece in pieces]),
            ids=_concatenate_columns([piece.ids for piece in pieces], [len(piece) for piece in pieces]),
            batch_offsets=_concatenate_arrays([(piece.batch_offsets, piece.offsets) for piece in pieces]),
            has_append_time=_concatenate_arrays(
                [(piece.has_append_time, np.zeros(len(piece), np.bool_)) for piece in pieces]
            ),
        )


def _concatenate_arrays(arrays: Sequence[tuple[NDArray[_Item] | None, NDArray[_Item]]]) -> NDArray[_Item] | None:
    """Concatenate optional arrays: missing ones are replaced by their substitutes. Return None if all are missing."""
    if all(array is None for array, _ in arrays):
        return None
    return np.concatenate([substitute if array is None else array for array, substitute in arrays])


def _concatenate_columns(columns: Sequence[list[str | None] | None], lengths: Sequence[int]) -> list[str | None] | None:
    """Concatenate optional columns: missing ones are filled with None. Return None if all are missing."""
    if all(column is None for column in columns):
        return None
    joined: list[str | None] = []
    for column, length in zip(columns, lengths, strict=True):
        joined.extend([None] * length if column is None else column)
    return joined


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetters:
    """Rejected records with their reasons. One row may represent a range of offsets.

    `end_offsets` is the offset + 1, except for a range [offset, end_offset) that was unreadable as a whole.
    """

    offsets: Int64
    end_offsets: Int64
    reasons: list[str]
    details: list[str]
    payloads: list[bytes | None]

    def __len__(self) -> int:
        return len(self.offsets)

    def slice(self, start: int, stop: int) -> DeadLetters:
        """Return the dead letters [start, stop)."""
        return DeadLetters(
            offsets=self.offsets[start:stop],
            end_offsets=self.end_offsets[start:stop],
            reasons=self.reasons[start:stop],
            details=self.details[start:stop],
            payloads=self.payloads[start:stop],
        )

    @staticmethod
    def empty() -> DeadLetters:
        """Return a batch without dead letters."""
        none = np.empty(0, np.int64)
        return DeadLetters(offsets=none, end_offsets=none, reasons=[], details=[], payloads=[])

    @staticmethod
    def concat(pieces: Sequence[DeadLetters]) -> DeadLetters:
        """Concatenate batches of dead letters."""
        if not pieces:
            return DeadLetters.empty()
        if len(pieces) == 1:
            return pieces[0]
        return DeadLetters(
            offsets=np.concatenate([piece.offsets for piece in pieces]),
            end_offsets=np.concatenate([piece.end_offsets for piece in pieces]),
            reasons=[reason for piece in pieces for reason in piece.reasons],
            details=[detail for piece in pieces for detail in piece.details],
            payloads=[payload for piece in pieces for payload in piece.payloads],
        )


NO_TIME_US = -1
"""The event time of a filtered record without a valid one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilteredRecords:
    """Records that the stream's filter leaves out, as columns in the order of offsets.

    `times_us` is `NO_TIME_US` for a record without a valid event time. `batch_offsets` and `has_append_time` are those
    of `Events`.
    """

    offsets: Int64
    times_us: Int64
    batch_offsets: Int64 | None = None
    has_append_time: Mask | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def slice(self, start: int, stop: int) -> FilteredRecords:
        """Return the records [start, stop). The arrays are views."""
        return FilteredRecords(
            offsets=self.offsets[start:stop],
            times_us=self.times_us[start:stop],
            batch_offsets=None if self.batch_offsets is None else self.batch_offsets[start:stop],
            has_append_time=None if self.has_append_time is None else self.has_append_time[start:stop],
        )

    @staticmethod
    def empty() -> FilteredRecords:
        """Return no records."""
        none = np.empty(0, np.int64)
        return FilteredRecords(offsets=none, times_us=none)

    @staticmethod
    def concat(pieces: Sequence[FilteredRecords]) -> FilteredRecords:
        """Concatenate batches of filtered records."""
        pieces = [piece for piece in pieces if len(piece)]
        if not pieces:
            return FilteredRecords.empty()
        if len(pieces) == 1:
            return pieces[0]
        return FilteredRecords(
            offsets=np.concatenate([piece.offsets for piece in pieces]),
            times_us=np.concatenate([piece.times_us for piece in pieces]),
            batch_offsets=_concatenate_arrays([(piece.batch_offsets, piece.offsets) for piece in pieces]),
            has_append_time=_concatenate_arrays(
                [(piece.has_append_time, np.zeros(len(piece), np.bool_)) for piece in pieces]
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedBatch:
    """The events, dead letters and filtered records of one raw batch, with the batch's range of offsets.

    Every record is one of the three. `skip_reason` is copied from the raw batch. The caller stores such a range as a
    gap, which opens an incident. An unreadable batch is also a dead letter.
    """

    partition: Partition
    begin: int
    end: int
    cursors: Int64 | None
    events: Events
    dead_letters: DeadLetters
    skip_reason: str | None = None
    filtered: FilteredRecords = field(default_factory=FilteredRecords.empty)

    @property
    def n_records(self) -> int:
        """Return the number of records, whatever became of them; an unreadable range counts as one."""
        return len(self.events) + len(self.dead_letters) + len(self.filtered)

    def cursor_at(self, offset: int) -> int | None:
        """Return the byte offset of row `offset`, begin <= offset <= end. None without cursors."""
        if self.cursors is None:
            return None
        return int(self.cursors[offset - self.begin])
