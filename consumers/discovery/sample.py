"""A sample of the first records as columns of values, for the assignment of field roles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np

from consumers.batch import RawBatch, Table
from consumers.codecs.dead_letters import DeadLetterReason, RejectedRecord
from consumers.codecs.messages import parse_message
from consumers.codecs.table import NON_FINITE, NUMERAL
from consumers.discovery.features import flatten_fields

RecordFormat = Literal["json", "float32", "msgpack"]


@dataclass(slots=True, kw_only=True)
class SampleColumn:
    """The non-null values of one field: one piece for each partition, ordered by offset.

    `rows` has the same shape and holds the index of each value's event.
    """

    name: str
    pieces: list[list[Any]] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)

    def values(self) -> list[Any]:
        """Return the values of all partitions."""
        return list(chain.from_iterable(self.pieces))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSample:
    """The first `n_events` events of a stream as columns, in order of first appearance.

    `rejected` counts the other records by dead-letter reason. `keys` and `stamps_us` are the record keys and the
    broker's timestamps of each event, or None. `unnamed` is True if the events are lists of numbers without names.
    """

    n_events: int
    columns: Mapping[str, SampleColumn]
    rejected: Mapping[DeadLetterReason, int]
    keys: Sequence[bytes | None] | None = None
    stamps_us: Sequence[int] | None = None
    partitions: Sequence[int] = ()
    unnamed: bool = False


def sample_records(batches: Iterable[RawBatch], encoding: RecordFormat) -> RecordSample:
    """Convert records to columns. Records that are not events of this encoding are counted as rejected."""
    builder = _SampleBuilder()
    partition_indices: dict[Any, int] = {}
    for raw in batches:
        partition = partition_indices.setdefault(raw.partition, len(partition_indices))
        if isinstance(raw.values, Table):
            _add_table_rows(builder, raw.values, partition)
        else:
            _add_messages(builder, raw, partition, encoding)
    return builder.build()


@dataclass(slots=True)
class _SampleBuilder:
    """A builder of a sample that appends one event at a time."""

    columns: dict[str, SampleColumn] = field(default_factory=dict)
    rejected: Counter[DeadLetterReason] = field(default_factory=Counter)
    keys: list[bytes | None] = field(default_factory=list)
    stamps_us: list[int] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)
    n_bare: int = 0

    def add(self, partition: int, cells: Iterable[tuple[str, Any]]) -> None:
        row = len(self.partitions)
        self.partitions.append(partition)
        for name, value in cells:
            column = self.columns.setdefault(name, SampleColumn(name=name))
            if value is None:
                continue
            while len(column.pieces) <= partition:
                column.pieces.append([])
                column.rows.append([])
            column.pieces[partition].append(value)
            column.rows[partition].append(row)

    def build(self) -> RecordSample:
        n = len(self.partitions)
        return RecordSample(
            n_events=n,
            columns=self.columns,
            rejected=self.rejected,
            keys=self.keys if any(key is not None for key in self.keys) else None,
            stamps_us=self.stamps_us if len(self.stamps_us) == n else None,
            partitions=self.partitions,
            unnamed=0 < n == self.n_bare,
        )


def _add_table_rows(builder: _SampleBuilder, table: Table, partition: int) -> None:
    columns = {name: _parse_column(column) for name, column in table.columns.items()}
    for reason, _ in table.row_errors.values():
        builder.rejected[DeadLetterReason(reason)] += 1
    for row in range(len(table)):
        if row not in table.row_errors:
            builder.add(partition, ((name, cells[row]) for name, cells in columns.items()))


def _add_messages(builder: _SampleBuilder, raw: RawBatch, partition: int, encoding: RecordFormat) -> None:
    assert not isinstance(raw.values, Table)
    for i, value in enumerate(raw.values):
        try:
            message = _parse_record(value, encoding)
        except RejectedRecord as rejected:
            builder.rejected[rejected.reason] += 1
            continue
        if isinstance(message, dict):
            cells: Iterable[tuple[str, Any]] = flatten_fields(message)
        elif isinstance(message, list):
            cells = ((f"x{number}", cell) for number, cell in enumerate(message))
            builder.n_bare += 1
        else:
            builder.rejected[DeadLetterReason.NOT_AN_OBJECT] += 1
            continue
        builder.add(partition, cells)
        builder.keys.append(None if raw.keys is None else raw.keys[i])
        if raw.timestamps_us is not None:
            builder.stamps_us.append(int(raw.timestamps_us[i]))


def _parse_record(value: bytes | None, encoding: RecordFormat) -> Any:
    if encoding != "float32":
        return parse_message(value, encoding)
    if not value:
        raise RejectedRecord(DeadLetterReason.EMPTY, "a record of no bytes")
    if len(value) % 4:
        raise RejectedRecord(DeadLetterReason.WRONG_LENGTH, f"{len(value)} bytes")
    return np.frombuffer(value, "<f4").astype(np.float64).tolist()


def _parse_column(column: Sequence[object] | np.ndarray[Any, Any]) -> list[Any]:
    """Convert a column of a table to Python values: numeric CSV cells to numbers, empty cells to None."""
    if isinstance(column, np.ndarray):
        if column.dtype.kind == "M":
            column = column.astype("datetime64[us]")
        return list(column.tolist())
    return [_parse_text_cell(cell) if isinstance(cell, str) else _plain_value(cell) for cell in column]


def _plain_value(cell: object) -> object:
    return cell.item() if isinstance(cell, np.generic) else cell


def _parse_text_cell(text: str) -> object:
    stripped = text.strip()
    if not stripped:
        return None
    if NUMERAL.fullmatch(text):
        return int(stripped) if stripped.lstrip("+-").isdigit() and len(stripped) < 300 else float(stripped)
    if NON_FINITE.fullmatch(text):
        return float(stripped)
    if stripped.lower() in {"true", "false"}:
        return stripped.lower() == "true"
    return text
