"""Byte inputs of the file source: a regular file, or standard input spooled to temporary files."""

from __future__ import annotations

import os
import select
import stat
import tempfile
from collections import deque
from pathlib import Path
from typing import IO

from config.errors import ConfigError

SEGMENT_BYTES = 64 << 20


def open_regular(path: Path) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises:
        ConfigError: The file does not exist, is not readable, or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigError(f"source.path: there is no file {str(path)!r} (in {Path.cwd()})") from None
    except OSError as error:
        raise ConfigError(f"source.path: {str(path)!r} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"source.path: {str(path)!r} is not a regular file; for a pipe write path: '-'")
    return descriptor


class FileInput:
    """An open regular file. It stays the same file if another one replaces it under its name."""

    def __init__(self, path: Path) -> None:
        self._descriptor = open_regular(path)

    def read_at(self, cursor: int, n_bytes: int, timeout_s: float) -> bytes:  # noqa: ARG002 - never waits
        """Return up to `n_bytes` from byte offset `cursor`."""
        return os.pread(self._descriptor, n_bytes, cursor)

    def size(self) -> int:
        """Return the current file size in bytes."""
        return os.fstat(self._descriptor).st_size

    def inode(self) -> int:
        """Return the inode number, which distinguishes files of the same name."""
        return os.fstat(self._descriptor).st_ino

    def is_complete(self) -> bool:
        """Return True: a regular file is read to its current end."""
        return True

    def close(self) -> None:
        """Close the file. Must be called only once."""
        os.close(self._descriptor)


class SpooledInput:
    """Bytes received from a pipe, spooled to temporary files so that they can be read again.

    Bytes are read from the pipe on demand, so that a slow reader slows the writer down. `discard_before`
    deletes segments that are not needed any more.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._segments: deque[tuple[int, IO[bytes]]] = deque()
        self._size = 0
        self._ended = False

    def read_at(self, cursor: int, n_bytes: int, timeout_s: float) -> bytes:
        """Return up to `n_bytes` from byte offset `cursor`. Wait for the pipe if it is not spooled yet."""
        if cursor >= self._size:
            self._receive(n_bytes, timeout_s)
        for start, file in self._segments:
            if start <= cursor < start + SEGMENT_BYTES:
                return os.pread(file.fileno(), n_bytes, cursor - start)
        return b""

    def _receive(self, n_bytes: int, timeout_s: float) -> None:
        if self._ended:
            return
        readable, _, _ = select.select([self._descriptor], [], [], timeout_s)
        if not readable:
            return
        free_bytes = SEGMENT_BYTES - self._size % SEGMENT_BYTES
        received = os.read(self._descriptor, min(n_bytes, free_bytes))
        if not received:
            self._ended = True
            return
        if self._size % SEGMENT_BYTES == 0:
            self._segments.append((self._size, tempfile.TemporaryFile(buffering=0)))  # noqa: SIM115 - kept open
        written = 0
        while written < len(received):
            written += self._segments[-1][1].write(received[written:])
        self._size += len(received)

    def size(self) -> int:
        """Return the number of bytes received so far."""
        return self._size

    def is_complete(self) -> bool:
        """Return True if the writer has closed the pipe."""
        return self._ended

    def first_byte(self) -> int:
        """Return the first byte offset that can still be read."""
        return self._segments[0][0] if self._segments else 0

    def discard_before(self, before: int) -> None:
        """Delete the whole segments before a byte offset. The last segment is never deleted."""
        while len(self._segments) > 1 and self._segments[1][0] <= before:
            self._segments.popleft()[1].close()

    def close(self) -> None:
        """Delete all segments. The pipe itself stays open."""
        while self._segments:
            self._segments.popleft()[1].close()
