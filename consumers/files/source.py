"""Consumers: one file (JSON lines, CSV, Parquet) or standard input as a source of one partition."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from config.errors import ConfigError
from consumers.batch import UNREADABLE_BATCH, Partition, Position, RawBatch
from consumers.files.csv_rows import CsvHeader, parse_csv_header, parse_csv_rows
from consumers.files.inputs import FileInput, SpooledInput
from consumers.files.lines import BLOCK_BYTES, ByteInput, LineReader
from consumers.files.parquet_reader import ParquetReader
from consumers.source import Layout, PartitionInfo, PollResult, StartPosition

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
IDENTITY_BYTES = 4_096
STANDARD_INPUT = 0


class FileSource:
    """A file as a partition: offsets are row numbers, cursors the bytes at which rows start.

    The identity is the path and a hash of the head: the first line (of CSV the header and the first row),
    up to 4 KiB of it. So a file that grows stays the same source, and one that was replaced is another. Of
    a Parquet file, which cannot grow, it is the size and the end, where its metadata is.

    A file ends where it ends when it is read; what is appended later is read from the stored position by
    the next run. A last line without a newline is a row. Blank lines are rows too, refused as empty.
    Standard input is read once, at the pace of the caller, and is another source in every process.
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
        found = "jsonl" if self._stdin else FORMATS.get(self._path.suffix.lower())
        if found is None:
            known = ", ".join(FORMATS)
            raise ConfigError(f"source.path: the suffix of {str(path)!r} names no format; use {known}, or -")
        self._format = found
        self._max_event_bytes = max_event_bytes
        self._rows_per_poll = rows_per_poll
        self._bytes_per_poll = bytes_per_poll
        self.partition = Partition(topic=str(path), partition=0)
        self._input: ByteInput | None = None
        self._parquet: ParquetReader | None = None
        self._header: CsvHeader | None = None
        self._reader: LineReader | None = None
        self._row: int | None = None
        self._to_skip = 0
        self._held = False
        self._told = False
        self._ended = False
        self._replaced = False
        self._counted = (0, 0, 0)
        self._delivered: deque[tuple[int, int]] = deque()
        self._stdin_identity = f"stdin:{os.getpid()}:{time.time_ns()}"

    @property
    def layout(self) -> Layout:
        """Return "table" for CSV and Parquet, "lines" for JSON lines."""
        return "lines" if self._format == "jsonl" else "table"

    def discover(self) -> list[PartitionInfo]:
        """Return the file as it is under its path now, with the number of its rows."""
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
        if self._format == "csv":
            self._read_header()
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
        """Count the rows; of a file that has grown only the new part is read."""
        source = FileInput(self._path)
        try:
            size = source.size()
            inode, cursor, newlines = self._counted
            if inode != source.inode() or cursor > size:
                cursor, newlines = 0, 0
            last = source.read_at(max(0, size - 1), 1, 0.0)
            while block := source.read_at(cursor, BLOCK_BYTES, 0.0):
                newlines += block.count(b"\n")
                cursor += len(block)
                last = block[-1:]
            self._counted = (source.inode(), cursor, newlines)
        finally:
            source.close()
        unfinished = 1 if cursor and last != b"\n" else 0
        return max(0, newlines + unfinished - (1 if self._format == "csv" else 0))

    def _read_header(self) -> tuple[CsvHeader, int]:
        source = FileInput(self._path)
        try:
            lines = LineReader(source, 0, self._max_event_bytes).read(1, self._bytes_per_poll, 0.0)
        finally:
            source.close()
        header = parse_csv_header(lines.rows[0] if lines.rows else b"", str(self._path))
        return header, int(lines.cursors[-1])

    def resolve(self, start: StartPosition, found: Sequence[PartitionInfo]) -> dict[Partition, Position]:
        """Return the end of the file for "latest", else its beginning."""
        return {each.partition: Position(next_offset=each.end if start == "latest" else 0) for each in found}

    def seek(self, partition: Partition, position: Position) -> None:
        """Go on at a row: at once where its cursor is given, else by skipping rows while polling."""
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
        if not self._stdin:
            if self._input is not None:
                self._input.close()
            self._input = FileInput(self._path)
        elif self._input is None:
            self._input = SpooledInput(STANDARD_INPUT)
        first = 0
        if self._format == "csv":
            self._header, first = self._read_header()
        cursor = position.cursor
        if cursor is None:
            self._to_skip, cursor = position.next_offset, first
        if isinstance(self._input, SpooledInput):
            self._replaced = not self._input.first_byte() <= cursor <= self._input.size()
        else:
            self._replaced = cursor > self._input.size()
            cursor = self._skip_late_newline(cursor, first)
        self._reader = LineReader(self._input, cursor, self._max_event_bytes)

    def _skip_late_newline(self, cursor: int, first: int) -> int:
        """Step over the newline that was appended to a last line after it had been delivered without one."""
        assert self._input is not None
        around = self._input.read_at(cursor - 1, 2, 0.0) if cursor > first else b""
        return cursor + 1 if around[1:] == b"\n" and around[:1] != b"\n" else cursor

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        """Pause the file if it is among these, else resume it."""
        self._held = self.partition in partitions

    def poll(self, timeout_s: float) -> PollResult:
        """Return the next rows; a file has them at once, standard input may keep one waiting."""
        if not self._told:
            self._told = True
            return PollResult(assigned=frozenset({self.partition}))
        if self._row is None or self._held or self._ended:
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
        """Say why a poll brought no rows: not yet, the position is beyond the end, or that was all."""
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
        table = None
        if self._header is not None:
            table = parse_csv_rows(self._header, lines.rows, self._max_event_bytes)
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
        """Return the partition if every row that is there now was delivered."""
        if self.partition in partitions and self._row is not None and not self._to_skip and self._is_at_end():
            return frozenset({self.partition})
        return frozenset()

    def publish(self, positions: Mapping[Partition, int]) -> None:
        """Let go of what standard input brought before the position; nobody reads a file's positions."""
        position = positions.get(self.partition)
        if position is None or not isinstance(self._input, SpooledInput):
            return
        while self._delivered and self._delivered[0][0] <= position:
            self._input.discard_before(self._delivered.popleft()[1])

    def close(self) -> None:
        """Close what is open."""
        if self._input is not None:
            self._input.close()
        if self._parquet is not None:
            self._parquet.close()
        self._input = self._parquet = self._reader = None
        self._row = None
