"""Parsing of CSV rows into columns by name. One row is one line."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from config.errors import ConfigError
from consumers.batch import Table
from consumers.codecs.dead_letters import DeadLetterReason

DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvHeader:
    """The first line of a CSV file: the column names in order."""

    names: tuple[str, ...]
    delimiter: str


def parse_csv_header(line: bytes, path: str) -> CsvHeader:
    """Parse the first line. The delimiter is the most frequent of comma, semicolon and tab.

    Raises:
        ConfigError: The line is empty or names a column twice.
    """
    text = line.decode("utf-8", "replace").strip("\r\n")
    delimiter = max(DELIMITERS, key=text.count)
    names = [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
    if not any(names):
        raise ConfigError(f"source.path: {path!r} has no header; its first line has to name the columns")
    duplicates = [name for name, n in Counter(names).items() if n > 1]
    if duplicates:
        listed = ", ".join(map(repr, duplicates))
        raise ConfigError(f"source.path: the header of {path!r} repeats {listed}; give every column its own name")
    return CsvHeader(names=tuple(names), delimiter=delimiter)


def parse_csv_rows(header: CsvHeader, lines: Sequence[bytes], max_bytes: int) -> Table:
    """Parse lines into columns. A line with another number of cells is a row error.

    A column without a name (such as the index that pandas writes) is omitted.
    """
    width = len(header.names)
    row_errors: dict[int, tuple[str, str]] = {}
    empty_row: list[str | None] = [None] * width
    rows: list[Sequence[str | None]] = []
    for row, line in enumerate(lines):
        cells, error = _split_cells(line, header.delimiter, width, max_bytes)
        if error is not None:
            row_errors[row] = error
        rows.append(empty_row if error is not None else cells)
    columns = zip(*rows, strict=True) if rows else ((),) * width
    return Table(
        columns={name: column for name, column in zip(header.names, columns, strict=True) if name},
        n_rows=len(lines),
        row_bytes=lines,
        row_errors=row_errors,
    )


def _split_cells(
    line: bytes, delimiter: str, width: int, max_bytes: int
) -> tuple[Sequence[str], tuple[str, str] | None]:
    if len(line) > max_bytes:
        return (), (DeadLetterReason.TOO_LARGE, f"more than {max_bytes} bytes")
    text = line.decode("utf-8", "replace")
    if '"' in text:
        try:
            cells = next(csv.reader([text], delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            return (), (DeadLetterReason.WRONG_LENGTH, f"the quotes do not end within the line: {error}")
    else:
        cells = text.split(delimiter)
    if len(cells) == width:
        return cells, None
    if not text.strip():
        return (), (DeadLetterReason.EMPTY, "a blank line")
    return (), (DeadLetterReason.WRONG_LENGTH, f"{len(cells)} cells, the header has {width}")
