"""Decompression with a maximum output: equal to the client's below it, an error above it and for damaged data."""

import random
import tracemalloc
import zlib

import pytest
from kafka import codec

from consumers.kafka.decompression import GZIP, LZ4, SNAPPY, ZSTD, Decompressor, UndecodableError
from tests.unit.consumers.kafka.record_batches import ENCODERS

CODECS = {GZIP: codec.gzip_decode, SNAPPY: codec.snappy_decode, LZ4: codec.lz4_decode, ZSTD: codec.zstd_decode}
MIB = 1 << 20


@pytest.fixture(params=CODECS, ids=["gzip", "snappy", "lz4", "zstd"])
def number(request):
    return request.param


@pytest.mark.parametrize("size", [1, 300, 200_000, 600_000])
def test_output_up_to_the_limit_is_that_of_the_client(number, size):
    content = random.Random(size).randbytes(size).hex().encode()[:size]
    stored = bytes(ENCODERS[number](content))
    assert Decompressor(size).decompress(number, memoryview(stored)) == CODECS[number](stored) == content
    with pytest.raises(UndecodableError, match="hold more than"):
        Decompressor(size - 1).decompress(number, memoryview(stored))


def test_damaged_and_cut_data_is_an_error_or_shorter(number):
    content = random.Random(1).randbytes(5_000)
    stored = bytes(ENCODERS[number](content))
    for damaged in (stored[:-1], stored[: len(stored) // 2], stored[:9], b"\xff" * 50, stored[:30] + b"\xff\xff"):
        try:
            output = Decompressor(MIB).decompress(number, memoryview(damaged))
        except UndecodableError:
            continue
        assert len(output) < len(content)  # a cut stream of zstd; the records in it then end too early


def test_all_members_of_gzip_are_read_and_padding_is_not():
    members = zlib.compress(b"first", wbits=31) + zlib.compress(b"second", wbits=31) + bytes(20)
    assert Decompressor(MIB).decompress(GZIP, memoryview(members)) == b"firstsecond"


def test_single_block_of_snappy_is_read():
    block = codec.snappy_encode(b"content" * 9, xerial_compatible=False)
    assert Decompressor(MIB).decompress(SNAPPY, memoryview(block)) == b"content" * 9


def test_bomb_takes_little_more_than_the_limit(number):
    stored = bytes(ENCODERS[number](bytes(64 * MIB)))
    tracemalloc.start()
    with pytest.raises(UndecodableError, match="hold more than 4 MiB"):
        Decompressor(4 * MIB).decompress(number, memoryview(stored))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 16 * MIB
