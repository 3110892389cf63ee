"""A reader of lines with bounded reads, bounded row sizes and a byte offset for each row."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from consumers.batch import Int64

BLOCK_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"


class ByteInput(Protocol):
    """A byte input with random access up to its current end."""

    def read_at(self, cursor: int, n_bytes: int, timeout_s: float) -> bytes:
        """Return up to `n_bytes` from byte offset `cursor`. Return nothing at the end or after the timeout."""
        ...

    def size(self) -> int:
        """Return the current size in bytes."""
        ...

    def is_complete(self) -> bool:
        """Return True if no more bytes will follow."""
        ...

    def close(self) -> None:
        """Close the input."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LineBatch:
    """Consecutive rows without line ends. `cursors` has one more element: the byte offset after the last row."""

    rows: list[bytes]
    cursors: Int64


class LineReader:
    """A reader of rows from a byte offset.

    A row ends with LF or CRLF, or with CR if `line_end` is CR. The last row may have no line end if the input is
    complete. Of a row longer than `max_bytes` only the first `max_bytes` + 1 bytes are returned, which is enough to
    reject it. The rest is skipped block by block, if necessary over several calls.
    """

    def __init__(self, source: ByteInput, cursor: int, max_bytes: int, line_end: bytes = b"\n") -> None:
        self._input = source
        self._line_end = line_end
        self._max_row_bytes = max_bytes + 1
        self._partial_row = b""
        self._n_dropped = 0
        self._block = b""
        self._cursor = cursor
        self._read_cursor = cursor
        self._first = True

    @property
    def cursor(self) -> int:
        """The byte offset of the next row."""
        return self._cursor

    def read(self, max_rows: int, max_bytes: int, timeout_s: float) -> LineBatch:
        """Return up to `max_rows` rows of about `max_bytes`. Return fewer after the timeout or at the end."""
        deadline = time.monotonic() + timeout_s
        rows: list[bytes] = []
        lengths: list[int] = []
        n_bytes = 0
        start = self._cursor
        while len(rows) < max_rows and n_bytes < max_bytes:
            if not self._block:
                self._block = self._read_block(max(0.0, deadline - time.monotonic()) if not rows else 0.0)
            if not self._block:
                if self._input.is_complete() and self._read_cursor >= self._input.size():
                    self._finish_last_row(rows, lengths)
                break
            n_bytes += self._split_block(max_rows - len(rows), rows, lengths)
            if time.monotonic() >= deadline:
                break
        cursors = np.empty(len(rows) + 1, np.int64)
        cursors[0] = start
        np.cumsum(lengths, out=cursors[1:])
        cursors[1:] += start
        self._cursor = int(cursors[-1])
        return LineBatch(rows=rows, cursors=cursors)

    def _read_block(self, timeout_s: float) -> bytes:
        block = self._input.read_at(self._read_cursor, BLOCK_BYTES, timeout_s)
        self._read_cursor += len(block)
        return block

    def _split_block(self, max_rows: int, rows: list[bytes], lengths: list[int]) -> int:
        """Move complete rows from the block to `rows`. Retain the remainder as the rest or as a partial row."""
        before = len(self._block)
        pieces = self._block.split(self._line_end, max_rows)
        last = pieces.pop()
        if pieces:
            pieces[0] = self._partial_row + pieces[0]
            lengths.append(len(pieces[0]) + self._n_dropped + 1)
            lengths.extend([len(piece) + 1 for piece in pieces[1:]])
            rows.append(self._strip_row(pieces[0], complete=not self._n_dropped))
            rows.extend([self._strip_row(piece) for piece in pieces[1:]])
            self._partial_row, self._n_dropped = b"", 0
        if len(pieces) == max_rows:
            self._block = last
        else:
            self._block = b""
            self._keep_partial_row(last)
        return before - len(self._block)

    def _keep_partial_row(self, tail: bytes) -> None:
        """Retain the start of a row that continues in the next block."""
        head = self._partial_row + tail
        self._partial_row = head[: self._max_row_bytes]
        self._n_dropped += len(head) - len(self._partial_row)

    def _finish_last_row(self, rows: list[bytes], lengths: list[int]) -> None:
        if self._partial_row:
            rows.append(self._strip_row(self._partial_row, complete=not self._n_dropped))
            lengths.append(len(self._partial_row) + self._n_dropped)
            self._partial_row, self._n_dropped = b"", 0

    def _strip_row(self, piece: bytes, *, complete: bool = True) -> bytes:
        if self._first:
            self._first = False
            if self._cursor == 0:
                piece = piece.removeprefix(BOM)
        if complete and piece.endswith(b"\r") and self._line_end == b"\n":
            piece = piece[:-1]
        return piece if len(piece) <= self._max_row_bytes else piece[: self._max_row_bytes]
