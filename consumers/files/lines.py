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

    A row ends with LF or CRLF. The last row may have no line end if the input is complete. Of a row longer
    than `max_bytes` only the first `max_bytes` + 1 bytes are returned, which is enough to reject it. The rest
    is skipped block by block, if necessary over several calls.
    """

    def __init__(self, source: ByteInput, cursor: int, max_bytes: int) -> None:
        self._input = source
        self._keep = max_bytes + 1
        self._head = b""
        self._cut = 0
        self._rest = b""
        self._cursor = cursor
        self._read = cursor
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
            if not self._rest:
                self._rest = self._read_block(max(0.0, deadline - time.monotonic()) if not rows else 0.0)
            if not self._rest:
                if self._input.is_complete() and self._read >= self._input.size():
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
        block = self._input.read_at(self._read, BLOCK_BYTES, timeout_s)
        self._read += len(block)
        return block

    def _split_block(self, max_rows: int, rows: list[bytes], lengths: list[int]) -> int:
        """Move complete rows from the block to `rows`. Retain the remainder as the rest or as a partial row."""
        before = len(self._rest)
        pieces = self._rest.split(b"\n", max_rows)
        last = pieces.pop()
        if pieces:
            pieces[0] = self._head + pieces[0]
            lengths.append(len(pieces[0]) + self._cut + 1)
            lengths.extend([len(piece) + 1 for piece in pieces[1:]])
            rows.append(self._strip_row(pieces[0], complete=not self._cut))
            rows.extend([self._strip_row(piece) for piece in pieces[1:]])
            self._head, self._cut = b"", 0
        if len(pieces) == max_rows:
            self._rest = last
        else:
            self._rest = b""
            self._keep_partial_row(last)
        return before - len(self._rest)

    def _keep_partial_row(self, tail: bytes) -> None:
        """Retain the start of a row that continues in the next block."""
        head = self._head + tail
        self._head = head[: self._keep]
        self._cut += len(head) - len(self._head)

    def _finish_last_row(self, rows: list[bytes], lengths: list[int]) -> None:
        if self._head:
            rows.append(self._strip_row(self._head, complete=not self._cut))
            lengths.append(len(self._head) + self._cut)
            self._head, self._cut = b"", 0

    def _strip_row(self, piece: bytes, *, complete: bool = True) -> bytes:
        if self._first:
            self._first = False
            if self._cursor == 0:
                piece = piece.removeprefix(BOM)
        if complete and piece.endswith(b"\r"):
            piece = piece[:-1]
        return piece if len(piece) <= self._keep else piece[: self._keep]
