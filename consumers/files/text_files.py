"""Text files of other encodings and line ends: UTF-16, UTF-32 and CR, recognised from their first bytes."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from consumers.files.inputs import FileInput
from consumers.files.lines import BLOCK_BYTES

_BYTE_ORDER_MARKS = (  # in this order: the mark of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ASCII_UTF16_LE = re.compile(rb"[\t\r\n -~]\0[\t\r\n -~]\0")
_ASCII_UTF16_BE = re.compile(rb"\0[\t\r\n -~]\0[\t\r\n -~]")
_QUOTED = re.compile(rb'"[^"]*"?')


def detect_encoding_of_file(head: bytes) -> str | None:
    """Return the encoding of a file that is not in UTF-8, or None.

    The byte order mark gives the encoding. Without one, it follows from two ASCII characters with zero bytes between
    them (RFC 4627, section 3).
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    if _ASCII_UTF16_LE.match(head):
        return "utf-16-le"
    return "utf-16-be" if _ASCII_UTF16_BE.match(head) else None


def open_text_file(path: Path) -> FileInput | TranscodedFile:
    """Open a regular file as bytes of UTF-8.

    Raises:
        ConfigError: The file does not exist, is not readable, or is not a regular file.
    """
    file = FileInput(path)
    encoding = detect_encoding_of_file(file.read_at(0, 4, 0.0))
    return file if encoding is None else TranscodedFile(file, encoding)


def detect_line_end(file: FileInput | TranscodedFile, *, quoted: bool) -> bytes:
    """Return the line end of a file: LF, or CR if its first block has line ends of CR and none of LF.

    With `quoted`, line breaks between quotes are ignored, as spreadsheets write LF within a cell and CR after a row.
    """
    head = file.read_at(0, BLOCK_BYTES, 0.0)
    size = len(head)
    if quoted and b"\r" in head:
        head = _QUOTED.sub(b"x", head)
    n_lines = 1 if size < BLOCK_BYTES else 2  # a first line longer than a block may contain a CR
    return b"\r" if head.count(b"\r") >= n_lines and b"\n" not in head else b"\n"


class TranscodedFile:
    """A file of another encoding as bytes of UTF-8. Byte offsets and sizes are those of the UTF-8 text.

    Reading forward is sequential. Reading before the current block decodes the file again from its beginning.
    """

    def __init__(self, file: FileInput, encoding: str) -> None:
        self._file = file
        self._encoding = encoding
        self._restart()
        self._counted = (0, 0)
        self._counter = self._new_decoder()

    def _new_decoder(self) -> codecs.IncrementalDecoder:
        return codecs.getincrementaldecoder(self._encoding)(errors="replace")

    def _restart(self) -> None:
        self._decoder = self._new_decoder()
        self._raw_cursor = 0
        self._block = b""
        self._block_start = 0

    def read_at(self, cursor: int, n_bytes: int, timeout_s: float) -> bytes:  # noqa: ARG002 - never waits
        """Return up to `n_bytes` of UTF-8 from byte offset `cursor`."""
        if cursor < self._block_start:
            self._restart()
        pieces: list[bytes] = []
        while n_bytes > 0:
            start = cursor - self._block_start
            piece = self._block[start : start + n_bytes]
            pieces.append(piece)
            cursor, n_bytes = cursor + len(piece), n_bytes - len(piece)
            if n_bytes > 0 and not self._next_block():
                break
        return b"".join(pieces)

    def _next_block(self) -> bool:
        raw = self._file.read_at(self._raw_cursor, BLOCK_BYTES, 0.0)
        if not raw:
            return False
        self._raw_cursor += len(raw)
        self._block_start += len(self._block)
        self._block = self._decoder.decode(raw).encode()
        return True

    def size(self) -> int:
        """Return the size of the text in UTF-8, as far as its characters are complete."""
        raw_size = self._file.size()
        raw_counted, counted = self._counted
        if raw_counted > raw_size:
            raw_counted, counted, self._counter = 0, 0, self._new_decoder()
        while raw_counted < raw_size and (raw := self._file.read_at(raw_counted, BLOCK_BYTES, 0.0)):
            raw_counted += len(raw)
            counted += len(self._counter.decode(raw).encode())
        self._counted = (raw_counted, counted)
        return counted

    def inode(self) -> int:
        """Return the inode number, which distinguishes files of the same name."""
        return self._file.inode()

    def is_complete(self) -> bool:
        """Return True: a regular file is read to its current end."""
        return True

    def close(self) -> None:
        """Close the file. Must be called only once."""
        self._file.close()
