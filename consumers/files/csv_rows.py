"""A reader of CSV records (RFC 4180) with a byte offset for each record. A quoted cell may contain line breaks."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from consumers.batch import Int64, Table
from consumers.codecs.dead_letters import DeadLetterReason
from consumers.files.csv_dialect import CsvHeader, Record
from consumers.files.lines import BLOCK_BYTES, ByteInput, LineReader

QUOTE = b'"'
_MAX_CELL_CHARS = 2**31 - 1
csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL_CHARS))  # the size of a record is bounded in bytes here


class _RecordTooLong(Exception):  # noqa: N818 - control flow inside this module
    """A record is longer than `max_bytes`."""


@dataclass(slots=True, kw_only=True)
class CsvBatch:
    """Consecutive records: their cells, their bytes without line ends, and the errors of some of them by index.

    `columns` holds the cells by column, if all records have the number of cells of the header. `cursors` has one more
    element than there are records: the byte offset after the last record.
    """

    header: CsvHeader
    cells: list[Record] = field(default_factory=list)
    columns: Sequence[Sequence[str | None]] | None = None
    rows: list[bytes] = field(default_factory=list)
    cursors: Int64
    errors: dict[int, tuple[str, str]] = field(default_factory=dict)

    def to_table(self) -> Table:
        """Convert the records to columns. A record with another number of cells than the header is a row error.

        A column without a name (such as the index that pandas writes) is omitted.
        """
        names = self.header.names
        columns = self.columns
        if columns is None:
            cells = [self._fit(row) for row in range(len(self.cells))]
            columns = list(zip(*cells, strict=True)) if cells else [()] * len(names)
        return Table(
            columns={name: column for name, column in zip(names, columns, strict=True) if name},
            n_rows=len(self.rows),
            row_bytes=self.rows,
            row_errors=self.errors,
        )

    def _fit(self, row: int) -> list[str | None]:
        """Return the cells of a record, or empty cells after an error, which is added to `errors`."""
        header, cells = self.header, self.cells[row]
        fitting = None if row in self.errors else header.fit(cells)
        if fitting is not None:
            return list(fitting)
        if row not in self.errors and len(cells) < 2 and not "".join(cells).strip():
            self.errors[row] = (DeadLetterReason.EMPTY, "a blank line")
        elif row not in self.errors:
            detail = f"{len(cells)} cells, the header has {len(header.names)}"
            self.errors[row] = (DeadLetterReason.WRONG_LENGTH, detail)
        return [None] * len(header.names)


class CsvReader:
    """A reader of CSV records from a byte offset.

    A record with a quote that is closed wrongly or never is rejected with its first line only: reading continues at the
    second line, so that a stray quote affects only its own line. A record longer than `max_bytes` is
    rejected as a whole.
    """

    def __init__(
        self, source: ByteInput, cursor: int, header: CsvHeader, max_bytes: int, line_end: bytes = b"\n"
    ) -> None:
        self._input = source
        self._header = header
        self._max_bytes = max_bytes
        self._line_end = line_end
        self._lines = LineReader(source, cursor, max_bytes, line_end)
        self._rows: list[bytes] = []
        self._starts: list[int] = [cursor]
        self._last = cursor

    @property
    def cursor(self) -> int:
        """The byte offset of the next record."""
        return self._starts[0]

    @property
    def last_cursor(self) -> int:
        """The byte offset of the last record that was read."""
        return self._last

    def read(self, max_rows: int, max_bytes: int, timeout_s: float) -> CsvBatch:
        """Return up to `max_rows` records of about `max_bytes`. Return fewer after the timeout or at the end."""
        if not self._rows:
            self._load(max_rows, max_bytes, timeout_s)
        columns = self._split_plain(max_rows)
        if columns is None:
            return self._read_records(max_rows)
        rows, starts = self._rows, self._starts
        self._rows, self._starts, self._last = [], starts[-1:], starts[-2]
        return CsvBatch(header=self._header, columns=columns, rows=rows, cursors=np.array(starts, np.int64))

    def _split_plain(self, max_rows: int) -> list[list[str]] | None:
        """Return the columns of the loaded lines, or None if they need the csv module.

        Without quotes and with the same number of cells in each line, splitting at the delimiter is sufficient.
        """
        rows, header = self._rows, self._header
        joined = b"\n".join(rows)
        if not 0 < len(rows) <= max_rows or max(map(len, rows)) > self._max_bytes or header.skips_spaces:
            return None
        if QUOTE in joined or b"\r" in joined or joined.count(b"\n") != len(rows) - 1:
            return None
        width, delimiter = len(header.names), header.delimiter
        text = joined.decode("utf-8", "replace")
        cells = text.replace("\n", f"{delimiter}\n{delimiter}").split(delimiter)
        ends = cells[width :: width + 1]
        if len(cells) != len(rows) * (width + 1) - 1 or ends != ["\n"] * (len(rows) - 1):
            return None
        return [cells[i :: width + 1] for i in range(width)]

    def _load(self, max_rows: int, max_bytes: int, timeout_s: float) -> bool:
        """Read lines behind those that are loaded. Return False if there are none."""
        lines = self._lines.read(max_rows, max_bytes, timeout_s)
        self._rows.extend(lines.rows)
        self._starts.extend(lines.cursors[1:].tolist())
        return bool(lines.rows)

    def _read_records(self, max_rows: int) -> CsvBatch:
        """Split the loaded lines into records. A record at their end may load more lines."""
        batch = CsvBatch(header=self._header, cursors=np.empty(0, np.int64))
        cursors = [self._starts[0]]
        feed = _LineFeed(self)
        records = self._header.split(feed)
        first = 0
        while first < len(self._rows) and len(batch.rows) < max_rows:
            feed.first = feed.next = first
            error: tuple[str, str] | None = None
            cells: Record = []
            try:
                cells, stop = next(records), feed.next
            except (csv.Error, _RecordTooLong) as failure:
                cells, stop, error = self._recover(first, failure)
                records = self._header.split(feed)
            if error is not None:
                batch.errors[len(batch.rows)] = error
            batch.cells.append(cells)
            batch.rows.append(b"\n".join(self._rows[first:stop]))
            first = stop
            cursors.append(self._starts[first])
        self._rows, self._starts = self._rows[first:], self._starts[first:]
        batch.cursors = np.array(cursors, np.int64)
        self._last = cursors[-2] if batch.rows else self._last
        return batch

    def _recover(self, first: int, failure: Exception) -> tuple[Record, int, tuple[str, str] | None]:
        """Return cells, the end, and the error of a record that the csv module could not split."""
        line = self._rows[first]
        if isinstance(failure, _RecordTooLong):
            end = self._find_record_end(self._starts[first])
            if end is not None:
                self._forget_lines_before(first, end)
                return [], first + 1, (DeadLetterReason.TOO_LARGE, f"more than {self._max_bytes} bytes")
            if len(line) > self._max_bytes:
                return [], first + 1, (DeadLetterReason.TOO_LARGE, f"more than {self._max_bytes} bytes")
        elif QUOTE not in line:  # a carriage return inside a line
            return line.decode("utf-8", "replace").split(self._header.delimiter), first + 1, None
        return [], first + 1, (DeadLetterReason.WRONG_LENGTH, f"a quote is not closed as in RFC 4180: {failure}")

    def _find_record_end(self, cursor: int) -> int | None:
        """Return the end of the record at a byte offset: the first line end after an even number of quotes."""
        quotes = 0
        while block := self._input.read_at(cursor, BLOCK_BYTES, 0.0):
            characters = np.frombuffer(block, np.uint8)
            before = quotes + np.cumsum(characters == QUOTE[0])
            ends = np.flatnonzero((characters == self._line_end[0]) & (before % 2 == 0))
            if len(ends):
                return cursor + int(ends[0]) + 1
            quotes, cursor = int(before[-1]), cursor + len(block)
        return cursor if quotes % 2 == 0 else None

    def _forget_lines_before(self, first: int, end: int) -> None:
        """Remove the lines between line `first` and the byte offset `end`. Line `first` then ends at `end`."""
        loaded = next((i for i, start in enumerate(self._starts) if i > first and start >= end), None)
        if loaded is None:
            self._lines = LineReader(self._input, end, self._max_bytes, self._line_end)
            loaded = len(self._rows)
            self._starts[loaded] = end
        del self._rows[first + 1 : loaded]
        del self._starts[first + 1 : loaded]


class _LineFeed(Iterator[str]):
    """The lines of one record after another for the csv module, loaded as far as a record goes."""

    def __init__(self, reader: CsvReader) -> None:
        self._reader = reader
        self.first = 0
        self.next = 0

    def __next__(self) -> str:
        reader = self._reader
        rows, starts, limit = reader._rows, reader._starts, reader._max_bytes  # noqa: SLF001 - one class in two parts
        if self.next == len(rows) and not reader._load(1_000, limit, 0.0):  # noqa: SLF001
            raise StopIteration
        line = rows[self.next]
        if starts[self.next] - starts[self.first] + len(line) > limit:
            raise _RecordTooLong(f"it does not end within {limit} bytes")
        self.next += 1
        return line.decode("utf-8", "replace") + "\n"
