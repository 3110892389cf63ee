"""The file source: one file (JSON lines, CSV, Parquet) or standard input as one partition."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from config.errors import BrokerUnavailable, ConfigError
from config.sources import FILE_FORMATS
from consumers.batch import UNREADABLE_BATCH, Partition, Position, RawBatch
from consumers.files.csv_dialect import SAMPLE_LINES, CsvHeader, detect_header
from consumers.files.csv_rows import QUOTE, CsvBatch, CsvReader
from consumers.files.inputs import FileInput, SpooledInput
from consumers.files.lines import BLOCK_BYTES, ByteInput, LineReader
from consumers.files.parquet_reader import ParquetReader
from consumers.files.text_files import TranscodedFile, detect_line_end, open_text_file
from consumers.source import Layout, PartitionInfo, PollResult, StartPosition

IDENTITY_BYTES = 4_096
STANDARD_INPUT = 0


class FileSource:
    """A file as one partition. Offsets are row numbers, and cursors are the byte offsets of rows.

    A row of a CSV file is a record, which may have several lines. In a file of UTF-16 or UTF-32, byte offsets are those
    of the same text in UTF-8.

    The identity is the path and a hash of the first line, up to 4 KiB (for CSV the header and the first row).
    A file that grows therefore keeps its identity, and a replaced file has another one. A Parquet file
    cannot grow: its identity is its size and its end, which contains the metadata.

    A file ends at its current size. Rows that are appended later are read from the stored position by the
    next run. A last line without a newline is a row. Blank lines are rows and are rejected as empty.
    Standard input is read once, at the pace of the caller, and has a new identity in every process.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        max_event_bytes: int = 2**20,
        rows_per_poll: int = 5_000,
        bytes_per_poll: int = 4 << 20,
    ) -> None:
        self._path = Path(path)
        self._stdin = str(path) == "-"
        file_format = "jsonl" if self._stdin else FILE_FORMATS.get(self._path.suffix.lower())
        if file_format is None:
            known = ", ".join(FILE_FORMATS)
            raise ConfigError(f"source.path: the suffix of {str(path)!r} is not a known format; use {known}, or -")
        self._format = file_format
        self._max_event_bytes = max_event_bytes
        self._rows_per_poll = rows_per_poll
        self._bytes_per_poll = bytes_per_poll
        self.partition = Partition(topic=str(path), partition=0)
        self._input: ByteInput | None = None
        self._parquet: ParquetReader | None = None
        self._header: CsvHeader | None = None
        self._reader: LineReader | CsvReader | None = None
        self._line_end = b"\n"
        self._row: int | None = None
        self._to_skip = 0
        self._paused = False
        self._assignment_reported = False
        self._ended = False
        self._replaced = False
        self._counted = (0, 0, 0)
        self._counted_records: tuple[int, int, int] | None = None
        self._delivered: deque[tuple[int, int]] = deque()
        self._stdin_identity = f"stdin:{os.getpid()}:{time.time_ns()}"

    @property
    def layout(self) -> Layout:
        """The layout: "table" for CSV and Parquet, "lines" for JSON lines."""
        return "lines" if self._format == "jsonl" else "table"

    def discover(self) -> list[PartitionInfo]:
        """Return the current file with its number of rows."""
        if self._stdin:
            end = self._row or 0
            return [PartitionInfo(partition=self.partition, identity=self._stdin_identity, begin=0, end=end)]
        if self._format == "parquet":
            parquet = ParquetReader(self._path)
            try:
                end = parquet.n_rows
            finally:
                parquet.close()
            return [PartitionInfo(partition=self.partition, identity=self._identity(), begin=0, end=end)]
        end = self._count_rows()
        return [PartitionInfo(partition=self.partition, identity=self._identity(), begin=0, end=end)]

    def _identity(self) -> str:
        source = FileInput(self._path)
        try:
            if self._format == "parquet":
                size = source.size()
                head = source.read_at(max(0, size - IDENTITY_BYTES), IDENTITY_BYTES, 0.0) + str(size).encode()
            else:
                block = source.read_at(0, IDENTITY_BYTES, 0.0)
                lines = block.splitlines(keepends=True)[: 2 if self._format == "csv" else 1]
                head = b"".join(lines)
        finally:
            source.close()
        return f"file:{self._path.resolve()}:{hashlib.sha256(head).hexdigest()[:16]}"

    def _count_rows(self) -> int:
        """Count the rows. For a file that has grown, only the new part is read."""
        source = open_text_file(self._path)
        try:
            if self._format != "csv":
                line_end = detect_line_end(source, quoted=False)
                return self._count_lines(source, line_end) or 0
            header, first = self._read_header(source)
            n_lines = self._count_lines(source, self._line_end, stop_at=QUOTE)
            if n_lines is None:
                return self._count_records(source, header, first)
            return max(0, n_lines - header.n_lines)
        finally:
            source.close()

    def _count_lines(
        self, source: FileInput | TranscodedFile, line_end: bytes, stop_at: bytes | None = None
    ) -> int | None:
        """Return the number of lines, or None if a byte `stop_at` occurs."""
        if self._counted_records is not None and self._counted_records[0] == source.inode():
            return None
        size = source.size()
        inode, cursor, newlines = self._counted
        if inode != source.inode() or cursor > size:
            cursor, newlines = 0, 0
        last = source.read_at(max(0, size - 1), 1, 0.0)
        while block := source.read_at(cursor, BLOCK_BYTES, 0.0):
            if stop_at is not None and stop_at in block:
                return None
            newlines += block.count(line_end)
            cursor += len(block)
            last = block[-1:]
        self._counted = (source.inode(), cursor, newlines)
        return newlines + (1 if cursor and last != line_end else 0)

    def _count_records(self, source: FileInput | TranscodedFile, header: CsvHeader, first: int) -> int:
        """Return the number of records of a CSV file with quotes, which may contain line ends."""
        inode, cursor, records = self._counted_records or (source.inode(), first, 0)
        if inode != source.inode() or cursor > source.size():
            cursor, records = first, 0
        reader = CsvReader(source, cursor, header, self._max_event_bytes, self._line_end)
        size = source.size()
        while reader.cursor < size:
            records += len(reader.read(self._rows_per_poll, self._bytes_per_poll, 0.0).rows)
        # The last record may be unfinished: it is counted again when the file has grown.
        self._counted_records = (source.inode(), reader.last_cursor, max(0, records - 1))
        return records

    def _read_header(self, source: FileInput | TranscodedFile) -> tuple[CsvHeader, int]:
        """Return the header of a CSV file and the byte offset of the first record."""
        self._line_end = detect_line_end(source, quoted=True)
        reader = LineReader(source, 0, self._max_event_bytes, self._line_end)
        lines: list[bytes] = []
        cursors = [0]
        while len(lines) < SAMPLE_LINES and cursors[-1] < min(source.size(), self._bytes_per_poll):
            batch = reader.read(SAMPLE_LINES - len(lines), self._bytes_per_poll, 0.0)
            lines += batch.rows
            cursors += batch.cursors[1:].tolist()
        header = detect_header(lines, str(self._path))
        return header, cursors[min(header.n_lines, len(lines))]

    def resolve(self, start: StartPosition, partitions: Sequence[PartitionInfo]) -> dict[Partition, Position]:
        """Return the end of the file for "latest", otherwise its beginning."""
        return {each.partition: Position(next_offset=each.end if start == "latest" else 0) for each in partitions}

    def seek(self, partition: Partition, position: Position) -> None:
        """Continue at a row: immediately if the position has a cursor, otherwise by skipping rows in `poll`."""
        if partition != self.partition:
            raise KeyError(partition)
        self._row = position.next_offset
        self._ended = self._replaced = False
        self._to_skip = 0
        self._delivered.clear()
        if self._format == "parquet":
            self._seek_parquet(position.next_offset)
        else:
            self._seek_line(position)

    def _seek_parquet(self, row: int) -> None:
        if self._parquet is not None:
            self._parquet.close()
        self._parquet = ParquetReader(self._path)
        self._parquet.seek(row)
        self._replaced = row > self._parquet.n_rows

    def _seek_line(self, position: Position) -> None:
        first = 0
        if not self._stdin:
            if self._input is not None:
                self._input.close()
            self._input = file = open_text_file(self._path)
            if self._format == "csv":
                self._header, first = self._read_header(file)
            else:
                self._line_end = detect_line_end(file, quoted=False)
        elif self._input is None:
            self._input = SpooledInput(STANDARD_INPUT)
        cursor = position.cursor
        if cursor is None:
            self._to_skip, cursor = position.next_offset, first
        if isinstance(self._input, SpooledInput):
            self._replaced = not self._input.first_byte() <= cursor <= self._input.size()
        else:
            self._replaced = cursor > self._input.size()
            cursor = self._skip_late_newline(cursor, first)
        if self._header is not None:
            self._reader = CsvReader(self._input, cursor, self._header, self._max_event_bytes, self._line_end)
        else:
            self._reader = LineReader(self._input, cursor, self._max_event_bytes, self._line_end)

    def _skip_late_newline(self, cursor: int, first: int) -> int:
        """Skip a newline that was appended after the last line had been delivered without one."""
        assert self._input is not None
        around = self._input.read_at(cursor - 1, 2, 0.0) if cursor > first else b""
        return cursor + 1 if around[1:] == self._line_end and around[:1] != self._line_end else cursor

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        """Pause the file if it is one of these partitions, otherwise resume it."""
        self._paused = self.partition in partitions

    def poll(self, timeout_s: float) -> PollResult:
        """Return the next rows. Only standard input may wait for them."""
        if not self._assignment_reported:
            self._assignment_reported = True
            return PollResult(assigned=frozenset({self.partition}))
        if self._row is None or self._paused or self._ended:
            time.sleep(timeout_s)
            return PollResult()
        deadline = time.monotonic() + timeout_s
        if self._to_skip:
            self._skip_rows(timeout_s)
        lies_beyond = self._replaced or self._has_shrunk()
        batch = None
        if not self._to_skip and not lies_beyond:
            batch = self._read_batch(max(0.0, deadline - time.monotonic()))
        if batch is not None:
            return PollResult(batches=[batch])
        return self._poll_without_rows(lies_beyond=lies_beyond)

    def _poll_without_rows(self, *, lies_beyond: bool) -> PollResult:
        """Return a poll without rows: nothing yet, position beyond the end (replaced), or end of the file."""
        if not lies_beyond and not self._is_at_end():
            return PollResult()
        if lies_beyond or self._to_skip:
            self._row = None
            return PollResult(replaced=frozenset({self.partition}))
        self._ended = True
        return PollResult(ended=frozenset({self.partition}))

    def _has_shrunk(self) -> bool:
        reader = self._reader
        return self._input is not None and reader is not None and reader.cursor > self._input.size()

    def _skip_rows(self, timeout_s: float) -> None:
        assert self._reader is not None
        deadline = time.monotonic() + timeout_s
        while self._to_skip:
            rows = min(self._to_skip, self._rows_per_poll)
            skipped = len(self._reader.read(rows, self._bytes_per_poll, 0.0).rows)
            self._to_skip -= skipped
            if not skipped or time.monotonic() >= deadline:
                return

    def _read_batch(self, timeout_s: float) -> RawBatch | None:
        if self._parquet is not None:
            return self._read_parquet(self._parquet)
        assert self._reader is not None
        assert self._row is not None
        lines = self._reader.read(self._rows_per_poll, self._bytes_per_poll, timeout_s)
        if not lines.rows:
            return None
        begin, self._row = self._row, self._row + len(lines.rows)
        self._delivered.append((self._row, int(lines.cursors[-1])))
        table = lines.to_table() if isinstance(lines, CsvBatch) else None
        return RawBatch(
            partition=self.partition,
            begin=begin,
            end=self._row,
            offsets=np.arange(begin, self._row, dtype=np.int64),
            values=lines.rows if table is None else table,
            cursors=lines.cursors,
        )

    def _read_parquet(self, parquet: ParquetReader) -> RawBatch | None:
        if self._row is None or self._row >= parquet.n_rows:
            return None
        begin, end, table = parquet.read(self._rows_per_poll)
        self._row = end
        return RawBatch(
            partition=self.partition,
            begin=begin,
            end=end,
            offsets=np.arange(begin, end if table is not None else begin, dtype=np.int64),
            values=[] if table is None else table,
            skip_reason=UNREADABLE_BATCH if table is None else None,
        )

    def _is_at_end(self) -> bool:
        if self._parquet is not None:
            return self._row is not None and self._row >= self._parquet.n_rows
        reader, source = self._reader, self._input
        return reader is not None and source is not None and source.is_complete() and reader.cursor >= source.size()

    def caught_up(self, partitions: AbstractSet[Partition]) -> frozenset[Partition]:
        """Return the partition if all current rows were delivered."""
        if self.partition in partitions and self._row is not None and not self._to_skip and self._is_at_end():
            return frozenset({self.partition})
        return frozenset()

    @property
    def problem(self) -> BrokerUnavailable | None:
        """None: there is no broker."""
        return None

    @property
    def log_ends(self) -> Mapping[Partition, int]:
        """Nothing: the records behind a position in a file are not counted."""
        return {}

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Discard spooled standard input before the position. For regular files this does nothing."""
        position = positions.get(self.partition)
        if position is None or not isinstance(self._input, SpooledInput):
            return
        while self._delivered and self._delivered[0][0] <= position:
            self._input.discard_before(self._delivered.popleft()[1])

    def close(self) -> None:
        """Close the open files."""
        if self._input is not None:
            self._input.close()
        if self._parquet is not None:
            self._parquet.close()
        self._input = self._parquet = self._reader = None
        self._row = None
