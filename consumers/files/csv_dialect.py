"""Detection of the delimiter, the header and the start of the records of a CSV file from its first lines."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from config.errors import ConfigError
from consumers.codecs.table import NUMERAL
from consumers.times import NUMBER, time_us

DELIMITERS = ",;\t|"
SAMPLE_LINES = 100

_SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?', re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*", re.ASCII)
_MIN_ROWS_TO_REFUSE = 3

Record = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvHeader:
    """The column names in order, and how to split the records that follow.

    `n_lines` is the number of lines before the first record: a `sep=` line, comments and the header itself.
    `skips_spaces` is True if spaces stand between a delimiter and a quote.
    """

    names: tuple[str, ...]
    delimiter: str
    n_lines: int = 1
    skips_spaces: bool = False

    def split(self, lines: Iterator[str]) -> Iterator[Record]:
        """Split lines into the cells of records (RFC 4180). Lines may have their line ends.

        Raises:
            csv.Error: A quote is not closed, or a character other than a delimiter follows a closing quote.
        """
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=self.skips_spaces, strict=True)

    def fit(self, cells: Record) -> Record | None:
        """Return as many cells as the header has names, or None. Empty cells after the last name are dropped."""
        width = len(self.names)
        if len(cells) > width and not any(map(str.strip, cells[width:])):
            return cells[:width]
        return cells if len(cells) == width else None


def detect_header(lines: Sequence[bytes], path: str) -> CsvHeader:
    """Detect the header and the delimiter from the first lines of a file, without their line ends.

    A first line `sep=;` names the delimiter. Otherwise it is the one of `DELIMITERS` with which the records have as
    many cells as the header. Lines that begin with # before the header are comments.

    Raises:
        ConfigError: There is no header, it is a row of data, it repeats a name, or no record has its number of cells.
    """
    texts = [line.decode("utf-8", "replace") for line in lines[:SAMPLE_LINES]]
    named = _SEPARATOR_LINE.fullmatch(texts[0].strip(" ")) if texts else None
    first = 0 if named is None else 1
    start = next((i for i, text in enumerate(texts[first:], first) if text.strip() and text[0] != "#"), None)
    if start is None:
        start = next((i for i, text in enumerate(texts[first:], first) if text.strip("# \t")), None)
    if start is None:
        raise ConfigError(f"source.path: {path!r} has no header; its first line has to name the columns")
    header, rows = _parse_head(texts, start, named)
    if start > first and texts[start - 1].startswith("#") and _data_cell(header.names, rows) is not None:
        commented, commented_rows = _parse_head(texts, start - 1, named)
        if len(commented.names) == len(header.names):
            header, rows = commented, commented_rows
    _check_header(header, rows, path)
    return header


def _parse_head(texts: Sequence[str], start: int, named: re.Match[str] | None) -> tuple[CsvHeader, list[Record]]:
    """Parse the header at line `start` with the best delimiter. Return it with the sampled records."""
    delimiters = DELIMITERS if named is None else named[1]
    found = [_parse_with(texts, start, delimiter) for delimiter in delimiters]
    best = max(found, key=lambda each: _rank(*each))
    if named is None and _share_fitting(*best) == 0:
        most = max(DELIMITERS, key=texts[start].count)
        best = found[DELIMITERS.index(most)]
    return best


def _parse_with(texts: Sequence[str], start: int, delimiter: str) -> tuple[CsvHeader, list[Record]]:
    spaced = re.compile(re.escape(delimiter) + ' +"')
    skips_spaces = any(spaced.search(text) for text in texts[start:])
    dialect = CsvHeader(names=(), delimiter=delimiter, skips_spaces=skips_spaces)
    reader = csv.reader(
        (f"{text}\n" for text in texts[start:]), delimiter=delimiter, skipinitialspace=skips_spaces, strict=True
    )
    records: list[Record] = []
    n_lines = 0
    try:
        for cells in reader:
            n_lines = n_lines or start + reader.line_num
            records.append(cells)
    except csv.Error:
        pass  # the sample ends inside a record, or a record is damaged: the records before it suffice
    names = tuple(name.strip() for name in (records[0] if records else texts[start].split(delimiter)))
    header = replace(dialect, names=names, n_lines=n_lines or start + 1)
    return header, [cells for cells in records[1:] if any(map(str.strip, cells))]


def _share_fitting(header: CsvHeader, rows: Sequence[Record]) -> float:
    return sum(header.fit(cells) is not None for cells in rows) / len(rows) if rows else 0.0


def _rank(header: CsvHeader, rows: Sequence[Record]) -> tuple[float, ...]:
    """Return how well a delimiter splits the sample: the largest is the best."""
    cells = [cell for record in rows for cell in record]
    numeric_share = sum(map(_is_number, cells)) / max(1, len(cells))
    return len(header.names) > 1, _share_fitting(header, rows), numeric_share, len(header.names)


def _common_width(header: CsvHeader, rows: Sequence[Record]) -> int | None:
    """Return the number of cells of most records, where it differs from that of the header, or None."""
    if len(rows) < _MIN_ROWS_TO_REFUSE:
        return None
    if _share_fitting(header, rows) == 0:
        return Counter(map(len, rows)).most_common(1)[0][0]
    if len(header.names) == 1:
        widths = ({cells[0].count(delimiter) + 1 for cells in rows} for delimiter in DELIMITERS)
        return next((width for found in widths if len(found) == 1 for width in found if width > 1), None)
    return None


def _check_header(header: CsvHeader, rows: Sequence[Record], path: str) -> None:
    if not any(header.names):
        raise ConfigError(f"source.path: {path!r} has no header; its first line has to name the columns")
    width = _common_width(header, rows)
    if width is not None:
        raise ConfigError(
            f"source.path: line {header.n_lines} of {path!r} names {len(header.names)} "
            f"column{'s' if len(header.names) != 1 else ''}, but the rows after it have {width} cells; remove titles "
            "above the header (comments may begin with #), and name every column"
        )
    n_words = len(header.names[0].split())
    if len(header.names) == 1 < n_words and rows and all(len(cells[0].split()) == n_words for cells in rows):
        raise ConfigError(
            f"source.path: the columns of {path!r} seem to be separated by spaces; use one of comma, semicolon, tab "
            "and vertical bar"
        )
    cell = _data_cell(header.names, rows)
    if cell is not None:
        raise ConfigError(
            f"source.path: line {header.n_lines} of {path!r} has to name the columns, but it seems to be a row of data "
            f"({cell!r}); add a header line, such as {','.join(_example_names(header.names))}"
        )
    duplicates = [name for name, n in Counter(header.names).items() if n > 1 and name]
    if duplicates:
        listed = ", ".join(map(repr, duplicates))
        raise ConfigError(f"source.path: the header of {path!r} repeats {listed}; give every column its own name")


def _example_names(names: Sequence[str]) -> list[str]:
    shown = ["time" if _is_time_text(name) else f"x{i}" for i, name in enumerate(names[:4])]
    return [*shown, "..."] if len(names) > len(shown) else shown


def _data_cell(names: Sequence[str], rows: Sequence[Record]) -> str | None:
    """Return a cell of the header that shows that it is a row of data, or None.

    Data is a row of numbers, a time in a column of times, or a row with a number, not all of them whole, in every
    column of numbers, near the numbers of that column. Names may be numbers: years, quantiles, and 0, 1, ... after the
    empty name of an index, as pandas writes them.
    """
    filled = [name for name in names if name]
    numbers = [name for name in filled if _is_number(name)]
    if names[:1] == ("",) and filled == [str(i) for i in range(len(filled))]:
        return None
    if filled and len(numbers) == len(filled):
        return numbers[0]
    columns = [[cells[i] for cells in rows if len(cells) > i and cells[i].strip()] for i in range(len(names))]
    for name, cells in zip(names, columns, strict=True):
        if _is_time_text(name) and cells and all(map(_is_time_text, cells)):
            return name
    numeric = [
        (name, cells) for name, cells in zip(names, columns, strict=True) if cells and all(map(_is_number, cells))
    ]
    if numeric and all(_lies_near(name, cells) for name, cells in numeric):
        return next((name for name, _ in numeric if not name.strip().lstrip("+-").isdigit()), None)
    return None


def _is_number(cell: str) -> bool:
    return NUMERAL.fullmatch(cell) is not None or _DECIMAL_COMMA.fullmatch(cell) is not None


def _is_time_text(cell: str) -> bool:
    return NUMBER.fullmatch(cell) is None and time_us(cell, "auto") >= 0


def _lies_near(name: str, cells: Sequence[str]) -> bool:
    """Return True if a name is a number within the range of a column, extended by its span on both sides."""
    if not _is_number(name):
        return False
    column = np.array([float(cell.replace(",", ".")) for cell in cells], np.float64)
    low, high = column.min(), column.max()
    return bool(low - (high - low) <= float(name.replace(",", ".")) <= high + (high - low))
