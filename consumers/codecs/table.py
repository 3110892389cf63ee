"""The codec for tables (CSV, Parquet) with one event per row. Columns are matched by name, in any order."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError
from consumers.batch import Mask, RawBatch, Table
from consumers.codecs.assembly import ColumnValues, FeatureRows, assemble_batch
from consumers.codecs.dead_letters import DeadLetterBuilder, DeadLetterReason, RejectedRecord
from consumers.codecs.message_fields import parse_number
from consumers.codecs.schema import Schema
from consumers.codecs.text import describe_value
from consumers.decoded_batch import DecodedBatch

NUMERAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
NON_FINITE = re.compile(r"\s*[+-]?(nan|inf|infinity)\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TableCodec:
    """Convert whole columns to numbers. Only cells that are not plain numbers are parsed individually."""

    schema: Schema

    def decode(self, raw: RawBatch, now_us: int) -> DecodedBatch:
        """Decode a batch. A row with a feature cell that is not a number is rejected."""
        table, schema = raw.values, self.schema
        if not isinstance(table, Table):
            table = Table(columns={}, n_rows=0)
        dead_letters = DeadLetterBuilder()
        good = np.ones(len(table), np.bool_)
        for row, (reason, detail) in table.row_errors.items():
            dead_letters.add(row, DeadLetterReason(reason), detail)
            good[row] = False
        cells = np.empty((len(table), len(schema.features)), np.float64)
        for j, name in enumerate(schema.features):
            self._fill_column(cells[:, j], name, table, good, dead_letters)
        if schema.mean_if_missing:
            for row in np.flatnonzero(good & np.isnan(cells).all(axis=1)).tolist():
                dead_letters.add(
                    row, DeadLetterReason.MISSING_FEATURE, f"{schema.features[0]} and all other features: absent"
                )
                good[row] = False
        index = np.flatnonzero(good)
        rows = FeatureRows(
            index=index,
            features=cells if len(index) == len(cells) else cells[index],
            times=_select_cells(table, schema.time_field, index),
            keys=_select_cells(table, schema.key_field, index),
            ids=_select_cells(table, schema.id_field, index),
        )
        return assemble_batch(raw, schema, rows, dead_letters, now_us)

    def _fill_column(self, cells: Any, name: str, table: Table, good: Mask, dead_letters: DeadLetterBuilder) -> None:
        """Fill one column of `cells` with numbers, and reject rows without a number."""
        column = table.columns.get(name)
        if column is None:
            column = [None] * len(table)
        numbers = parse_numeric_column(column)
        if numbers is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                finite = np.isfinite(numbers.astype(np.float32))
            cells[:] = numbers
            doubtful: Iterable[int] = np.flatnonzero(~finite & good).tolist()
        else:
            doubtful = np.flatnonzero(good).tolist()
        for row in doubtful:
            try:
                cells[row] = parse_cell(name, column[row], mean_if_missing=self.schema.mean_if_missing)
            except RejectedRecord as rejected:
                dead_letters.add(row, rejected.reason, rejected.detail)
                good[row] = False


def parse_numeric_column(column: ColumnValues) -> NDArray[np.float64] | None:
    """Convert a column to numbers. Return None if any cell has to be parsed individually."""
    if isinstance(column, np.ndarray):
        return column.astype(np.float64) if column.dtype.kind in "iuf" else None
    try:
        joined = "".join(column)  # type: ignore[arg-type]
        if "_" in joined or not joined.isascii():
            return None  # float() reads 1_000 and digits of other scripts
        return np.fromiter(map(float, column), np.float64, len(column))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def parse_cell(name: str, cell: object, *, mean_if_missing: bool) -> float:
    """Return the number in a cell. The cell is text in a CSV file, or a value in a Parquet file.

    Raises:
        RejectedRecord: The cell is empty, not a number, or not finite as float32.
    """
    value: object = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, str):
        if not value.strip():
            value = None
        elif NUMERAL.fullmatch(value) or NON_FINITE.fullmatch(value):
            value = float(value)
    if isinstance(value, float) and math.isnan(value):
        raise RejectedRecord(DeadLetterReason.NOT_FINITE, f"{name}: {describe_value(cell)}")
    return parse_number(name, value, mean_if_missing=mean_if_missing)


def _select_cells(table: Table, name: str | None, index: NDArray[np.intp]) -> ColumnValues | None:
    if name is None:
        return None
    column = table.columns.get(name)
    if column is None:
        return [None] * len(index)
    if isinstance(column, np.ndarray):
        return column[index]
    cells = column if len(index) == len(column) else [column[row] for row in index.tolist()]
    return [None if cell == "" else cell for cell in cells]


def check_columns(names: Sequence[str], wanted: Iterable[tuple[str, str]]) -> None:
    """Check that a table has the columns named in the settings.

    Args:
        names: The columns of the table.
        wanted: Pairs of a setting and the column it names.

    Raises:
        ConfigError: A column does not exist. The message suggests the nearest one.
    """
    problems = []
    for setting, name in wanted:
        if name in names:
            continue
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"the columns are {', '.join(names[:20])}"
        problems.append(f"{setting}: the table has no column {name!r}; {hint}")
    if problems:
        raise ConfigError(*problems)
