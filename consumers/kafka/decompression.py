"""Decompression of record batches with a maximum output, for the four codecs of Kafka.

A batch of some kilobytes may hold gigabytes. The output is bounded before it is allocated: by the size that the data
states (snappy, and zstd where the frame has it), or by reading in steps up to the limit (gzip, lz4, zstd).
"""

import struct
import zlib
from collections.abc import Callable, Iterator

import lz4.frame
import snappy
import zstandard

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
"""The numbers of the codecs in the attributes of a record batch."""

_STEP_BYTES = 256 * 1024
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_XERIAL_MAGIC = b"\x82SNAPPY\0"
_XERIAL_HEADER_BYTES = 16
_LENGTH = struct.Struct(">i")
_MAX_VARINT_BYTES = 5
_MIB = 1024 * 1024


class UndecodableError(ValueError):
    """Compressed data is damaged, or holds more than the limit. The message is a part of a dead letter's detail."""


class Decompressor:
    """The decompressor of one consumer, for one thread.

    Args:
        limit_bytes: The largest accepted output of one record batch.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._zstd = zstandard.ZstdDecompressor()  # made once: it takes longer than a small batch
        self._readers: dict[int, Callable[[memoryview], Iterator[bytes]]] = {
            GZIP: self._read_gzip,
            SNAPPY: self._read_snappy,
            LZ4: self._read_lz4,
            ZSTD: self._read_zstd,
        }

    def decompress(self, codec: int, data: memoryview) -> bytearray:
        """Return the decompressed data.

        Args:
            codec: The number of the codec.
            data: The compressed data.

        Raises:
            UndecodableError: The output is larger than the limit, the data is damaged, or the codec is unknown.
        """
        read = self._readers.get(codec)
        if read is None:
            raise UndecodableError(f"unknown compression codec {codec}")
        output = bytearray()
        try:
            for piece in read(data):
                output += piece
                if len(output) > self.limit_bytes:
                    raise self._too_large(data)
        except UndecodableError:
            raise
        except _DAMAGE as error:
            raise UndecodableError(f"damaged {_NAMES[codec]} data: {str(error) or error.__cause__}") from error
        return output

    def _too_large(self, data: memoryview) -> UndecodableError:
        return UndecodableError(
            f"{len(data):,} compressed bytes hold more than {self.limit_bytes / _MIB:,.4g} MiB, the limit "
            "kafka.max_decompressed_size"
        )

    def _read_gzip(self, data: memoryview) -> Iterator[bytes]:
        """Yield the output of all members. Zero bytes after the last one are padding."""
        rest = bytes(data)
        while rest:
            member = zlib.decompressobj(_GZIP_OR_ZLIB)
            piece = member.decompress(rest, _STEP_BYTES)
            while not member.eof:
                if not piece and not member.unconsumed_tail:
                    raise EOFError("it ends before its end marker")
                yield piece
                piece = member.decompress(member.unconsumed_tail, _STEP_BYTES)
            yield piece
            rest = member.unused_data.lstrip(b"\0")

    def _read_lz4(self, data: memoryview) -> Iterator[bytes]:
        """Yield the output of the first frame, as the client reads it."""
        frame = lz4.frame.LZ4FrameDecompressor()
        piece = frame.decompress(bytes(data), max_length=_STEP_BYTES)
        while True:
            yield piece
            if frame.eof:
                return
            if frame.needs_input and not piece:
                raise EOFError("it ends before its end marker")
            piece = frame.decompress(b"", max_length=_STEP_BYTES)

    def _read_zstd(self, data: memoryview) -> Iterator[bytes]:
        """Yield the output of all frames."""
        if zstandard.frame_content_size(data) > self.limit_bytes:
            raise self._too_large(data)
        with self._zstd.stream_reader(data, read_across_frames=True) as reader:
            while piece := reader.read(_STEP_BYTES):
                yield piece

    def _read_snappy(self, data: memoryview) -> Iterator[bytes]:
        """Yield the output of one block, or of the blocks of the format of the Java library xerial."""
        if data[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC:
            yield self._read_block(data, data, self.limit_bytes)
            return
        place, left = _XERIAL_HEADER_BYTES, self.limit_bytes
        while place < len(data):
            (length,) = _LENGTH.unpack_from(data, place)
            place += _LENGTH.size
            if not 0 <= length <= len(data) - place:
                raise EOFError("a block is longer than the rest of the data")
            piece = self._read_block(data[place : place + length], data, left)
            left -= len(piece)
            place += length
            yield piece

    def _read_block(self, block: memoryview, data: memoryview, left_bytes: int) -> bytes:
        """Decompress one block of snappy. It begins with a varint of the size of its output, which is allocated.

        Raises:
            UndecodableError: The size is larger than the bytes that are left of the limit.
        """
        size = shift = 0
        for byte in block[:_MAX_VARINT_BYTES]:
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if size > left_bytes:
            raise self._too_large(data)
        output: bytes = snappy.decompress(bytes(block))
        return output


_NAMES = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
_DAMAGE = (
    zlib.error,
    zstandard.ZstdError,
    snappy.UncompressError,
    struct.error,
    ValueError,
    LookupError,
    EOFError,
    RuntimeError,
)
