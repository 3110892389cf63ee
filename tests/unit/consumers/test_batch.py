"""Slicing, filtering and concatenation of batches."""

from dataclasses import replace

import numpy as np

from consumers.batch import Partition, Table
from consumers.byte_slices import ByteSlices
from consumers.decoded_batch import DeadLetters, DecodedBatch, Events
from tests.unit.consumers.raw_batches import decode, json_records, raw_batch


def events(*offsets, keys=None):
    n = len(offsets)
    return Events(
        offsets=np.array(offsets, np.int64),
        times_us=np.array(offsets, np.int64) * 10,
        features=np.arange(2 * n, dtype=np.float32).reshape(n, 2),
        keys=keys,
    )


def test_partitions_sort_by_topic_and_number_and_are_hashable():
    a0, a1, b0 = (Partition(topic=t, partition=p) for t, p in (("a", 0), ("a", 1), ("b", 0)))
    assert sorted([b0, a1, a0]) == [a0, a1, b0]
    assert {a0: 1}[Partition(topic="a", partition=0)] == 1


def test_concatenated_slices_of_events_equal_the_original():
    whole = events(1, 2, 5, keys=["x", None, "z"])
    again = Events.concat([whole.slice(0, 1), whole.slice(1, 1), whole.slice(1, 3)])
    assert again.offsets.tolist() == [1, 2, 5]
    assert again.keys == ["x", None, "z"]
    np.testing.assert_array_equal(again.features, whole.features)


def test_concat_fills_missing_keys_with_none():
    assert Events.concat([events(1), events(2, keys=["y"])]).keys == [None, "y"]
    assert Events.concat([events(1), events(2)]).keys is None


def test_slice_shares_memory_and_filter_of_everything_does_not_copy():
    whole = events(1, 2, 3)
    assert np.shares_memory(whole.slice(1, 3).features, whole.features)
    assert whole.filter(np.array([True, True, True])) is whole
    assert whole.filter(np.array([False, True, False])).offsets.tolist() == [2]


def test_concatenated_slices_of_dead_letters_equal_the_original():
    dead = DeadLetters(
        offsets=np.array([1, 2]),
        end_offsets=np.array([2, 9]),
        reasons=["a", "b"],
        details=["", ""],
        payloads=[b"", None],
    )
    again = DeadLetters.concat([dead.slice(0, 1), DeadLetters.empty(), dead.slice(1, 2)])
    assert again.end_offsets.tolist() == [2, 9]
    assert again.reasons == ["a", "b"]
    assert len(DeadLetters.concat([])) == 0


def test_trim_drops_records_below_the_position():
    batch = raw_batch([b"a", b"b", b"c"], begin=10, keys=[b"1", b"2", b"3"])
    trimmed = batch.trim(12)
    assert (trimmed.begin, trimmed.end, trimmed.values, trimmed.keys) == (12, 13, [b"c"], [b"3"])
    assert batch.trim(10) is batch
    assert len(batch.trim(13)) == 0


def test_table_slice_keeps_row_errors():
    table = Table(columns={"a": ["1", None, "3"]}, n_rows=3, row_errors={1: ("empty", "")}, row_bytes=[b"1", b"", b"3"])
    cut = table.slice(1, 3)
    assert (len(cut), cut.columns["a"], cut.row_errors, cut.row_bytes) == (
        2,
        [None, "3"],
        {0: ("empty", "")},
        [b"", b"3"],
    )


def test_cursor_at_returns_the_cursor_of_every_row_and_of_the_end():
    decoded = DecodedBatch(
        partition=Partition(topic="f", partition=0),
        begin=5,
        end=7,
        cursors=np.array([100, 110, 130]),
        events=Events.empty(2),
        dead_letters=DeadLetters.empty(),
    )
    assert [decoded.cursor_at(offset) for offset in (5, 6, 7)] == [100, 110, 130]


def test_record_batches_are_kept_by_slices_filters_and_concatenation():
    whole = replace(events(1, 2, 5), batch_offsets=np.array([1, 1, 4]), has_append_time=np.array([True, True, False]))
    again = Events.concat([whole.slice(0, 1), whole.slice(1, 3).filter(np.array([False, True])), events(9)])
    assert again.batch_offsets.tolist() == [1, 4, 9]  # an event without a record batch is a batch of its own
    assert again.has_append_time.tolist() == [True, False, False]
    assert Events.concat([events(1), events(2)]).batch_offsets is None


def test_record_batches_are_kept_by_trim_head_and_decoding():
    raw = raw_batch(
        json_records(*({"a": 1, "b": i} for i in range(3)), "odd", {"a": 1, "b": 4}),
        begin=10,
        batch_offsets=np.array([10, 10, 12, 12, 14]),
        has_append_time=np.array([True, True, False, False, False]),
    )
    decoded = decode(None, batch=raw.trim(11)).events
    assert decoded.batch_offsets.tolist() == [10, 12, 14]
    assert decoded.has_append_time.tolist() == [True, False, False]
    assert raw.head(2).batch_offsets.tolist() == [10, 10]


def test_size_of_a_batch_counts_a_shared_bytes_object_whole():
    blob = ByteSlices(b"x" * 1_000, np.array([0, 10, 0]), np.array([10, 5, -1]))
    batch = raw_batch(blob)
    assert batch.size_bytes == 1_000 + 2 * 3 * 8
    assert batch.trim(2).size_bytes == 1_000 + 2 * 8
    assert raw_batch([b"abc", None, b""]).size_bytes > 3
    assert raw_batch(Table(columns={"x": ["1", "2"]}, n_rows=2)).size_bytes > 0


def test_slices_of_one_bytes_object_are_a_sequence_of_byte_strings():
    slices = ByteSlices(b"abcdef", np.array([0, 2, 0, 3]), np.array([2, 0, -1, 3]))
    assert list(slices) == [slices[i] for i in range(4)] == [b"ab", b"", None, b"def"]
    assert list(slices[1:3]) == [b"", None]
    assert list(ByteSlices(b"", np.empty(0, np.int64), np.empty(0, np.int64))) == []
    assert None in slices
