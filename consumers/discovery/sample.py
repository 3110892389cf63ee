"""Consumers: the fields of some first records as columns of values, for judging what each field is."""

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
    """The values of one field that are not null: for each partition a piece, in the order of its offsets.

    `rows` says of which event each value is, with the same shape.
    """

    name: str
    pieces: list[list[Any]] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)

    def values(self) -> list[Any]:
        """Return all values."""
        return list(chain.from_iterable(self.pieces))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSample:
    """What the first records hold: `n` of them are events, by columns in the order of first appearance.

    `refused` counts the records that are none, by reason. `keys` and `stamps_us` are the log's own for each event,
    where it has them; `bare` says that the events are lists of numbers without names.
    """

    n_events: int
    columns: Mapping[str, SampleColumn]
    rejected: Mapping[DeadLetterReason, int]
    keys: Sequence[bytes | None] | None = None
    stamps_us: Sequence[int] | None = None
    partitions: Sequence[int] = ()
    unnamed: bool = False


def sample_records(batches: Iterable[RawBatch], encoding: RecordFormat) -> RecordSample:
    """Return the records as columns; what is no event of this encoding is counted."""
    gathering = _SampleBuilder()
    order: dict[Any, int] = {}
    for raw in batches:
        partition = order.setdefault(raw.partition, len(order))
        if isinstance(raw.values, Table):
            _add_table_rows(gathering, raw.values, partition)
        else:
            _add_messages(gathering, raw, partition, encoding)
    return gathering.build()


@dataclass(slots=True)
class _SampleBuilder:
    """Columns that grow event by event."""

    columns: dict[str, SampleColumn] = field(default_factory=dict)
    refused: Counter[DeadLetterReason] = field(default_factory=Counter)
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
            rejected=self.refused,
            keys=self.keys if any(key is not None for key in self.keys) else None,
            stamps_us=self.stamps_us if len(self.stamps_us) == n else None,
            partitions=self.partitions,
            unnamed=0 < n == self.n_bare,
        )


def _add_table_rows(gathering: _SampleBuilder, table: Table, partition: int) -> None:
    columns = {name: _parse_column(column) for name, column in table.columns.items()}
    for reason, _ in table.row_errors.values():
        gathering.refused[DeadLetterReason(reason)] += 1
    for row in range(len(table)):
        if row not in table.row_errors:
            gathering.add(partition, ((name, cells[row]) for name, cells in columns.items()))


def _add_messages(gathering: _SampleBuilder, raw: RawBatch, partition: int, encoding: RecordFormat) -> None:
    assert not isinstance(raw.values, Table)
    for i, value in enumerate(raw.values):
        try:
            message = _parse_record(value, encoding)
        except RejectedRecord as refused:
            gathering.refused[refused.reason] += 1
            continue
        if isinstance(message, dict):
            cells: Iterable[tuple[str, Any]] = flatten_fields(message)
        elif isinstance(message, list):
            cells = ((f"x{number}", cell) for number, cell in enumerate(message))
            gathering.n_bare += 1
        else:
            gathering.refused[DeadLetterReason.NOT_AN_OBJECT] += 1
            continue
        gathering.add(partition, cells)
        gathering.keys.append(None if raw.keys is None else raw.keys[i])
        if raw.timestamps_us is not None:
            gathering.stamps_us.append(int(raw.timestamps_us[i]))


def _parse_record(value: bytes | None, encoding: RecordFormat) -> Any:
    if encoding != "float32":
        return parse_message(value, encoding)
    if not value:
        raise RejectedRecord(DeadLetterReason.EMPTY, "a record of no bytes")
    if len(value) % 4:
        raise RejectedRecord(DeadLetterReason.WRONG_LENGTH, f"{len(value)} bytes")
    return np.frombuffer(value, "<f4").astype(np.float64).tolist()


def _parse_column(column: Sequence[object] | np.ndarray[Any, Any]) -> list[Any]:
    """Return a column of a table as plain values: numerals of CSV as numbers, empty cells as None."""
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
