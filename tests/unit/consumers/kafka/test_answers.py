"""Fetch answers as columns and by the client's parser: the same records, ranges, positions and errors."""

import logging
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from consumers.byte_slices import ByteSlices
from consumers.kafka import answers, record_columns
from consumers.kafka.answers import AnswerReader, find_difference, pack_client_records
from consumers.kafka.chunks import MAX_CHUNK_BYTES
from consumers.kafka.decompression import GZIP, LZ4, SNAPPY, ZSTD, Decompressor
from tests.unit.consumers.kafka.record_batches import LIMIT_BYTES, PARTITION, Batch, read, summarise, varint

WAYS = ("columns", "records")
CODECS = (0, GZIP, SNAPPY, LZ4, ZSTD)
VALUES = tuple(b"value-%d" % i for i in range(40))
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT_VALUE = f"00-{TRACE_ID}-00f067aa0ba902b7-01".encode()


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


def values_of(chunks):
    return [value for chunk in chunks for value in chunk.values]


def ranges_of(chunks):
    ends = [0, *(chunk.end for chunk in chunks)]
    return [
        (begin, chunk.end, chunk.unreadable) for begin, chunk in zip(ends, chunks, strict=False) if chunk.unreadable
    ]


def join(*batches):
    return b"".join(batch.encode() for batch in batches)


@pytest.mark.parametrize("codec", CODECS)
def test_batches_of_each_codec_are_read_from_an_offset_inside(way, codec):
    batches = [
        Batch(base_offset=10, values=VALUES, codec=codec),
        Batch(base_offset=50, values=VALUES[:3], keys=(b"k", None, b""), codec=codec, append_time=True),
    ]
    chunks, position, error = read(join(*batches), way, begin=13)
    assert (position, error) == (53, None)
    records = [record for chunk in chunks for record in chunk.records()]
    assert [record.offset for record in records] == list(range(13, 53))
    assert [record.value for record in records] == [*VALUES[3:], *VALUES[:3]]
    assert [record.key for record in records] == [None] * 37 + [b"k", None, b""]
    assert [record.batch_offset for record in records] == [10] * 37 + [50] * 3
    assert [record.has_append_time for record in records] == [False] * 37 + [True] * 3
    assert [record.timestamp_ms - 1_700_000_000_000 for record in records] == [10 * i for i in range(3, 40)] + [7] * 3


def test_tombstones_headers_large_keys_and_varints_of_several_bytes_are_read(way):
    batch = Batch(
        base_offset=0,
        values=(None, b"", b"x" * 70, b"y" * 20_000) * 5,
        keys=(b"k" * 300, None, b"", b"k") * 5,
        headers=((b"trace", b"\xff\x00"), ("größe".encode(), None)),
        time_deltas=tuple(i * 10**9 for i in range(20)),
    )
    chunks, _, error = read(batch.encode(), way)
    assert error is None
    assert values_of(chunks) == list(batch.values)
    assert [key for chunk in chunks for key in chunk.keys] == list(batch.keys)
    assert [record.timestamp_ms for chunk in chunks for record in chunk.records()] == [
        1_700_000_000_000 + i * 10**9 for i in range(20)
    ]


def test_the_first_valid_trace_of_a_record_is_read(way):
    headers = ((b"Traceparent", TRACEPARENT_VALUE), (b"traceparent", b"00-zz"), (b"traceparent", TRACEPARENT_VALUE))
    with_trace = Batch(base_offset=0, values=VALUES, headers=(*headers, (b"traceparent", b"00-" + b"1" * 52)))
    without = Batch(base_offset=40, values=VALUES[:20])
    chunks, _, _ = read(join(with_trace, without), way)
    records = [record for chunk in chunks for record in chunk.records()]
    assert [record.trace_id for record in records] == [TRACE_ID] * 40 + [None] * 20
    assert [record.trace_id for chunk in chunks for record in chunk.trim(39).records()] == [TRACE_ID] + [None] * 20
    (chunk,), _, _ = read(join(without), way, begin=40)
    assert chunk.trace_ids is None


def test_times_outside_of_int64_microseconds_are_clipped(way):
    batch = Batch(base_offset=0, values=VALUES[:20], time_deltas=(2**62, -(2**62), 2**63 - 1, -(2**63), *range(16)))
    (chunk,), _, _ = read(batch.encode(), way)
    assert chunk.timestamps_us[:4].tolist() == [(2**63 - 1) // 1000 * 1000, -1000] * 2


def test_aborted_and_control_batches_and_holes_move_the_position_only(way):
    abort, commit = b"\0\0\0\0", b"\0\0\0\1"
    answer = join(
        Batch(base_offset=0, values=(b"dropped", b"dropped"), producer_id=7),
        Batch(base_offset=2, values=(b"kept",), producer_id=8, length=5),  # compaction has removed four records
        Batch(base_offset=7, values=(b"",), keys=(abort,), producer_id=7, is_control=True),
        Batch(base_offset=8, values=(b"kept",), producer_id=7),
        Batch(base_offset=9, values=(b"",), keys=(commit,), producer_id=7, is_control=True),
    )
    aborted = [SimpleNamespace(producer_id=7, first_offset=0)]
    chunks, position, error = read(answer, way, aborted=aborted)
    assert (values_of(chunks), position, error) == ([b"kept", b"kept"], 10, None)
    assert [int(offset) for chunk in chunks for offset in chunk.offsets] == [2, 8]
    only_dropped, position, _ = read(join(Batch(base_offset=0, values=(b"x",), producer_id=7)), way, aborted=aborted)
    assert [(len(chunk), chunk.end) for chunk in only_dropped] == [(0, 1)]
    assert position == 1


@pytest.mark.parametrize("codec", CODECS[1:])
def test_batch_above_the_limit_is_a_range_and_its_neighbours_are_read(way, codec):
    bomb = Batch(base_offset=3, values=(b"0" * LIMIT_BYTES, b"0"), codec=codec)
    answer = join(Batch(base_offset=0, values=VALUES[:3]), bomb, Batch(base_offset=5, values=VALUES[:2], codec=codec))
    chunks, position, error = read(answer, way)
    assert (values_of(chunks), position, error) == ([*VALUES[:3], *VALUES[:2]], 7, None)
    ((begin, end, reason),) = ranges_of(chunks)
    assert (begin, end) == (3, 5)
    assert "hold more than 1 MiB, the limit kafka.max_decompressed_size" in reason


def test_snappy_block_that_states_gigabytes_is_refused_before_they_are_allocated(way):
    stated = b"\xff\xff\xff\xff\x0f" + b"\0"
    chunks, _, _ = read(Batch(base_offset=0, length=9, codec=SNAPPY, stored=stated).encode(), way)
    assert [(begin, end) for begin, end, _ in ranges_of(chunks)] == [(0, 9)]


def test_no_batch_is_decompressed_twice(way):
    calls = []

    class Counting(Decompressor):
        def decompress(self, codec, data):
            calls.append(codec)
            return super().decompress(codec, data)

    reader = AnswerReader(Counting(LIMIT_BYTES), 10, way)
    answer = join(
        Batch(base_offset=0, values=VALUES, codec=ZSTD),
        Batch(base_offset=40, values=(b"0" * LIMIT_BYTES,), codec=GZIP),
        Batch(base_offset=41, values=VALUES, codec=LZ4),
    )
    chunks, position, _ = read(answer, way, reader=reader, take=1)
    assert (len(values_of(chunks)), position, calls) == (80, 81, [ZSTD, GZIP, LZ4])


def test_malformed_record_ends_its_batch_and_the_records_before_it_are_read(way):
    record = b"\0\0\0\1\1\0"  # without key, value and headers
    records = [b"".join((varint(len(body)), body)) for body in (record, b"\0\0\2\1\1\0", b"\0\0\4\1\1\1")]
    broken = Batch(base_offset=5, length=4, n_records=3, data=b"".join(records))
    answer = join(Batch(base_offset=0, values=VALUES[:5]), broken, Batch(base_offset=9, values=VALUES[:1]))
    chunks, position, error = read(answer, way)
    assert (values_of(chunks), position, error) == ([*VALUES[:5], None, None, VALUES[0]], 10, None)
    assert [(begin, end) for begin, end, _ in ranges_of(chunks)] == [(7, 9)]


def test_unknown_codec_is_a_range(way):
    chunks, _, error = read(Batch(base_offset=0, values=VALUES, codec=6).encode(), way)
    assert (ranges_of(chunks), error) == ([(0, 40, "unknown compression codec 6")], None)


def test_wrong_checksum_is_read_again_once_and_then_a_range_that_the_next_batch_confirms(way):
    damaged = bytearray(Batch(base_offset=3, values=VALUES[:4]).encode())
    damaged[-1] ^= 1
    answer = join(Batch(base_offset=0, values=VALUES[:3])) + bytes(damaged) + join(Batch(base_offset=7, values=(b"x",)))
    reader = AnswerReader(Decompressor(LIMIT_BYTES), 5_000, way)
    chunks, position, error = read(answer, way, reader=reader)
    assert (values_of(chunks), position, error) == (list(VALUES[:3]), 3, None)
    chunks, position, error = read(answer, way, reader=reader, begin=position)
    assert (values_of(chunks), position, error) == ([b"x"], 8, None)
    assert ranges_of(chunks)[0][1:] == (7, "the checksum of the record batch is wrong")


def test_wrong_checksum_of_the_last_batch_is_an_error(way):
    damaged = bytearray(Batch(base_offset=3, values=VALUES[:4]).encode())
    damaged[-1] ^= 1
    chunks, position, error = read(join(Batch(base_offset=0, values=VALUES[:3])) + bytes(damaged), way)
    assert (values_of(chunks), position) == (list(VALUES[:3]), 3)
    assert "wrong checksum" in str(error)


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", [0, GZIP, SNAPPY])
def test_message_sets_of_the_old_formats_are_read(way, magic, codec):
    builder = MemoryRecordsBuilder(magic, codec, 1 << 20, offset=20)
    for i, value in enumerate(VALUES[:5]):
        builder.append(1_700_000_000_000 + i, b"k", value)
    builder.close()
    old = bytes(builder.buffer())
    if codec:
        old = (24).to_bytes(8, "big") + old[8:]  # the broker gives a message set the offset of its last message
    chunks, _, error = read(old, way, begin=22)
    assert (values_of(chunks), error) == (list(VALUES[2:5]), None)
    if codec:
        assert {int(each) for chunk in chunks for each in chunk.batch_offsets} == {20}
        chunks, _, error = read(old, way, begin=20, limit_bytes=20)
        assert (values_of(chunks), len(ranges_of(chunks)), error) == ([], 1, None)


def test_chunks_are_bounded_in_records_and_bytes(way):
    batches = [Batch(base_offset=40 * i, values=VALUES) for i in range(5)]
    chunks, _, _ = read(join(*batches), way, max_records=30)
    assert max(map(len, chunks)) == 30
    assert values_of(chunks) == list(VALUES) * 5
    large = Batch(base_offset=0, values=(b"0" * (MAX_CHUNK_BYTES // 4),) * 9, codec=ZSTD)
    chunks, _, _ = read(large.encode(), way, limit_bytes=4 * MAX_CHUNK_BYTES, take=5_000)
    assert [len(chunk) for chunk in chunks] == [4, 4, 1]


def test_poll_ends_after_one_chunk_of_large_records(way):
    large = Batch(base_offset=0, values=(b"0" * (MAX_CHUNK_BYTES // 4),) * 9, codec=ZSTD)
    reader = AnswerReader(Decompressor(4 * MAX_CHUNK_BYTES), 5_000, way)
    records = reader(0, PARTITION, MemoryRecords(large.encode()))
    taken = records.take(4_990)
    assert len(list(taken)) == 1
    assert len(taken) >= 4_990


def test_answers_of_several_partitions_hold_no_more_than_the_limit_together(way):
    large = Batch(base_offset=0, values=(b"0" * (MAX_CHUNK_BYTES // 4),) * 9, codec=ZSTD)
    reader = AnswerReader(Decompressor(3 * MAX_CHUNK_BYTES), 5_000, way)
    first, second = (reader(0, PARTITION, MemoryRecords(large.encode())) for _ in range(2))
    (chunk,) = list(first.take(1))
    assert first
    list(second.take(1))
    assert not first, "its batch is dropped"
    assert first.next_fetch_offset == chunk.end == 4
    assert second
    rest, position, _ = read(large.encode(), way, reader=reader, begin=first.next_fetch_offset)
    assert ([len(chunk) for chunk in rest], position) == ([4, 1], 9)


def test_values_of_columns_are_slices_of_one_object():
    (chunk,), _, _ = read(join(*(Batch(base_offset=40 * i, values=VALUES) for i in range(5))), "columns")
    assert isinstance(chunk.values, ByteSlices)
    assert chunk.values.size_bytes > sum(map(len, VALUES)) * 5


def test_columns_that_differ_from_the_clients_parser_are_not_used(monkeypatch, caplog):
    decode = record_columns._decode_columns

    def wrong(parts, last_offset):
        chunk = decode(parts, last_offset)
        return replace(chunk, values=chunk.values[::-1])

    monkeypatch.setattr("consumers.kafka.record_columns._decode_columns", wrong)
    reader = AnswerReader(Decompressor(LIMIT_BYTES), 5_000, "columns")
    answer = join(Batch(base_offset=0, values=VALUES), Batch(base_offset=40, values=VALUES, codec=ZSTD))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            chunks, position, error = read(answer, "columns", reader=reader)
            assert (values_of(chunks), position, error) == ([*VALUES, *VALUES], 80, None)
    assert (reader.way, len(caplog.records)) == ("records", 1)


def test_installed_client_is_verified_and_other_versions_are_not(monkeypatch):
    assert find_difference() is None
    monkeypatch.setattr(answers.kafka, "__version__", "3.1.0")
    assert find_difference() == "verified are 3.0.x"
    monkeypatch.undo()
    monkeypatch.setattr(answers.Fetcher.PartitionRecords, "__init__", lambda self, records: None)
    assert find_difference() == "Fetcher.PartitionRecords has other parameters"


def test_records_of_an_unverified_client_are_packed():
    record = SimpleNamespace(offset=4, timestamp=None, timestamp_type=None, key=None, value=b"x", headers=None)
    chunk = pack_client_records([record])
    assert (chunk.end, chunk.timestamps_us.tolist(), chunk.batch_offsets.tolist()) == (5, [-1000], [4])


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_damaged_answers_give_the_same_records_and_ranges_both_ways(seed):
    answer, begin, options = random_answer(random.Random(seed))
    columns, records = (summarise(read(answer, way, begin=begin, **options)) for way in WAYS)
    assert columns == records


def random_answer(rng):
    """Return an answer with odd and damaged batches, the offset it was fetched from, and limits."""
    base, answer = rng.choice([0, 100, 2**40]), b""
    begin = base + rng.choice([0, 0, 1, 7, 50])
    for _ in range(rng.choice([1, 2, 3, 8])):
        batch = random_batch(rng, base)
        encoded = bytearray(batch.encode())
        if rng.random() < 0.05:
            encoded[rng.randrange(8, len(encoded))] ^= 1 << rng.randrange(8)
        answer += bytes(encoded)
        base = batch.next_offset + rng.choice([0, 0, 0, 4])
    if rng.random() < 0.1:
        answer = answer[: rng.randrange(len(answer))]
    return (
        answer,
        begin,
        {
            "limit_bytes": rng.choice([LIMIT_BYTES, LIMIT_BYTES, 500]),
            "max_records": rng.choice([5_000, 10, 33]),
            "take": rng.choice([None, 1, 50]),
        },
    )


def random_batch(rng, base):
    n = rng.choice([0, 1, 2, 5, 17, 40, 100])
    deltas = tuple(sorted(rng.sample(range(2 * n), n))) if n and rng.random() < 0.2 else None
    times = (0, -5, 2**40, -(2**40), 2**62, -(2**63), 2**63 - 1)
    batch = Batch(
        base_offset=base,
        values=tuple(rng.choice([None, b"", rng.randbytes(rng.randint(0, 200))]) for _ in range(n)),
        keys=None if rng.random() < 0.5 else tuple(rng.choice([None, b"", rng.randbytes(70)]) for _ in range(n)),
        headers=tuple(
            (rng.choice([b"a", "é".encode(), b"traceparent"]), rng.choice([None, b"v", TRACEPARENT_VALUE]))
            for _ in range(rng.choice([0, 0, 2]))
        ),
        deltas=deltas,
        length=2 * n if deltas else max(1, n + rng.choice([0, 0, 3])),
        time_deltas=tuple(rng.choice(times) for _ in range(n)) if rng.random() < 0.2 else None,
        timestamp_ms=rng.choice([1_700_000_000_000, 1_700_000_000_000, -1, 2**62]),
        append_time=rng.random() < 0.2,
        codec=rng.choice(CODECS),
        n_records=n + rng.choice([0] * 20 + [-1, 1]),
        extra=rng.choice([b""] * 30 + [b"\0\1"]),
    )
    if n == 0 or rng.random() < 0.7:
        return batch
    data = bytearray(batch.records())
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(data))
        data[at] = rng.choice([data[at] ^ (1 << rng.randrange(8)), 0x80, 0xFF])
    return replace(batch, data=bytes(data))
