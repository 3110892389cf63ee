"""Columnar batches of events, dead letters and filtered records: the results of decoding a raw batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from consumers.batch import Floats, Int64, Mask, Partition

_Item = TypeVar("_Item", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Decoded events of one partition as columns, ordered by offset.

    `batch_offsets` holds the base offset of the record batch of each event, and `has_append_time` is true where that
    batch has LogAppendTime. Both are None for sources without record batches, such as files. `trace_ids` are the traces
    of the records (W3C Trace Context), None if none has one.

    `features`, (n, D), are float64 as they were decoded, or float32 for records of that format. They are finite in
    float32, or NaN where a value is missing.
    """

    offsets: Int64
    times_us: Int64
    features: Floats
    keys: list[str | None] | None = None
    ids: list[str | None] | None = None
    trace_ids: list[str | None] | None = None
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
            trace_ids=None if self.trace_ids is None else self.trace_ids[start:stop],
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
            trace_ids=None if self.trace_ids is None else [self.trace_ids[i] for i in selected],
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
            trace_ids=_concatenate_columns([piece.trace_ids for piece in pieces], [len(piece) for piece in pieces]),
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
