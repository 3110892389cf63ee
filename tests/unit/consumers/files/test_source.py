"""The file source: rows, cursors, restarts and ends."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from config.errors import ConfigError
from config.streams import EventSettings
from consumers.batch import Partition, Position, Table
from consumers.codec import make_codec
from consumers.files.source import FileSource

ROWS = [json.dumps({"a": i, "b": i / 2}).encode() for i in range(1_000)]


def opened(path, position=None, **options):
    source = FileSource(path, **options)
    assert source.poll(0).assigned == {source.partition}
    source.seek(source.partition, position or Position(next_offset=0))
    return source


def drain(source, timeout_s=0.0):
    """Poll until the source ends or is replaced. Return all batches and the last poll."""
    batches = []
    while True:
        poll = source.poll(timeout_s)
        batches.extend(poll.batches)
        if poll.ended or poll.replaced:
            source.close()
            return batches, poll


def rows_of(batches):
    return [value for batch in batches for value in batch.values]


def read(path, position=None, **options):
    batches, poll = drain(opened(path, position, **options))
    assert poll.ended
    return rows_of(batches)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(row + b"\n" for row in ROWS))
    return path


def test_rows_are_delivered_in_order_and_the_file_ends_once(lines):
    source = opened(lines, rows_per_poll=300)
    batches, poll = drain(source)
    assert [(batch.begin, batch.end) for batch in batches] == [(0, 300), (300, 600), (600, 900), (900, 1000)]
    assert rows_of(batches) == ROWS
    assert poll.ended == {Partition(topic=str(lines), partition=0)}
    assert source.poll(0).ended == frozenset()


def test_nothing_is_delivered_before_seek(lines):
    source = FileSource(lines)
    source.poll(0)
    assert source.poll(0).batches == []


@pytest.mark.parametrize("row", [0, 1, 299, 300, 999, 1_000])
def test_restart_continues_at_the_cursor_or_else_at_the_row(lines, row):
    batches, _ = drain(opened(lines, rows_per_poll=300))
    cursors = [int(c) for batch in batches for c in batch.cursors[:-1]] + [int(batches[-1].cursors[-1])]
    assert read(lines, Position(next_offset=row, cursor=cursors[row])) == ROWS[row:]
    assert read(lines, Position(next_offset=row)) == ROWS[row:]


def test_every_cursor_is_the_byte_offset_of_its_row(lines):
    content = lines.read_bytes()
    batches, _ = drain(opened(lines, rows_per_poll=70))
    for batch in batches:
        for row, cursor in zip(batch.values, batch.cursors.tolist(), strict=False):
            assert content[cursor:].startswith(row + b"\n")
        assert len(batch.cursors) == len(batch) + 1


def test_last_line_without_newline_is_a_row(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"[1]\n[2]")
    assert read(path) == [b"[1]", b"[2]"]
    assert FileSource(path).discover()[0].end == 2


def test_newline_appended_later_is_not_a_row(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"[1]\n[2]")
    batches, _ = drain(opened(path))
    path.write_bytes(b"[1]\n[2]\n[3]\n")
    assert read(path, Position(next_offset=2, cursor=int(batches[-1].cursors[-1]))) == [b"[3]"]


def test_byte_order_mark_and_carriage_returns_are_not_part_of_a_row(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf[1]\r\n[2]\r\n[3]\r")
    batches, _ = drain(opened(path))
    assert rows_of(batches) == [b"[1]", b"[2]", b"[3]"]
    assert [batch.cursors.tolist() for batch in batches] == [[0, 8, 13], [13, 17]]


def test_blank_lines_are_rows_and_dead_letters(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"[1]\n\n  \n[2]\n")
    (batch,), _ = drain(opened(path))
    decoded = make_codec(EventSettings(), ["a"], layout="lines", max_future_us=0).decode(batch, 5)
    assert decoded.events.offsets.tolist() == [0, 3]
    assert decoded.dead_letters.reasons == ["empty", "empty"]


@pytest.mark.parametrize("n_bytes", [1_023, 1_024, 1_025, 5_000, 3_000_000])
def test_row_longer_than_max_bytes_is_cut_and_other_rows_are_complete(tmp_path, n_bytes):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"[1]\n" + b"x" * n_bytes + b"\n[2]\n" + b"y" * n_bytes)
    batches, _ = drain(opened(path, max_event_bytes=1_024))
    n_returned = min(n_bytes, 1_025)
    assert rows_of(batches) == [b"[1]", b"x" * n_returned, b"[2]", b"y" * n_returned]
    assert batches[-1].cursors[-1] == path.stat().st_size


def test_cut_row_that_ends_with_a_carriage_return_is_too_large(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b" " * 1_024 + b"\r" + b" " * 3_000_000 + b"\n")
    (batch,), _ = drain(opened(path, max_event_bytes=1_024))
    decoded = make_codec(EventSettings(max_size="1KiB"), ["a"], layout="lines", max_future_us=0).decode(batch, 5)
    assert decoded.dead_letters.reasons == ["too_large"]


def test_huge_row_takes_bounded_memory(tmp_path):
    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.truncate(2 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n[1]\n")
    began = time.monotonic()
    source = opened(path, max_event_bytes=1_024)
    source.poll(0)
    assert time.monotonic() - began < 1.0
    source.close()
    source = opened(path, Position(next_offset=1, cursor=(2 << 30) + 1))
    assert rows_of(drain(source)[0]) == [b"[1]"]


def test_growing_file_keeps_its_identity_and_a_replaced_file_does_not(lines):
    source = FileSource(lines)
    before = source.discover()[0]
    with lines.open("ab") as file:
        file.write(b'{"a": 1}\n')
    after = source.discover()[0]
    assert (after.identity, after.end) == (before.identity, before.end + 1)
    lines.write_bytes(b'{"other": 1}\n' * 2_000)
    replaced = source.discover()[0]
    assert replaced.identity != before.identity
    assert FileSource(lines).discover()[0].end == 2_000


@pytest.mark.parametrize("position", [Position(next_offset=2_000), Position(next_offset=2_000, cursor=10**9)])
def test_position_beyond_the_end_reports_a_replaced_file(lines, position):
    _, poll = drain(opened(lines, position))
    assert poll.replaced == {Partition(topic=str(lines), partition=0)}


def test_file_that_shrinks_while_it_is_read_is_reported_as_replaced(lines):
    source = opened(lines, rows_per_poll=500, bytes_per_poll=1)
    source.poll(0)
    os.truncate(lines, 10)
    _, poll = drain(source)
    assert poll.replaced


def test_paused_file_delivers_nothing_and_continues_after_resume(lines):
    source = opened(lines, rows_per_poll=300)
    source.set_paused({source.partition})
    assert source.poll(0).batches == []
    source.set_paused(set())
    assert rows_of(drain(source)[0]) == ROWS


def test_caught_up_after_all_current_rows_were_delivered(lines):
    source = opened(lines)
    assert source.caught_up({source.partition}) == frozenset()
    source.poll(0)
    assert source.caught_up({source.partition}) == {source.partition}
    with lines.open("ab") as file:
        file.write(b"[1]\n")
    assert source.caught_up({source.partition}) == frozenset()
    source.close()


def test_latest_is_the_number_of_rows_and_other_starts_the_beginning(lines):
    source = FileSource(lines)
    found = source.discover()
    assert source.resolve("latest", found) == {source.partition: Position(next_offset=1_000)}
    assert source.resolve(123, found) == {source.partition: Position(next_offset=0)}


@pytest.mark.parametrize(("name", "match"), [("absent.jsonl", "no file"), ("x.txt", "suffix"), (".", "suffix")])
def test_unreadable_path_is_an_error_with_the_cause(tmp_path, name, match):
    with pytest.raises(ConfigError, match=match):
        FileSource(tmp_path / name).discover()


def test_folder_and_named_pipe_are_errors(tmp_path):
    (tmp_path / "d.jsonl").mkdir()
    os.mkfifo(tmp_path / "p.jsonl")
    for name in ("d.jsonl", "p.jsonl"):
        with pytest.raises(ConfigError, match="not a regular file"):
            FileSource(tmp_path / name).discover()


def test_seek_of_another_partition_is_a_key_error(lines):
    with pytest.raises(KeyError):
        FileSource(lines).seek(Partition(topic="other", partition=0), Position(next_offset=0))


CSV = b'ts,amount,name\r\n1,2.5,"x, y"\r\n2,3.5,z\r\n'


def table_of(path, **options):
    batches, _ = drain(opened(path, **options))
    (batch,) = batches
    assert isinstance(batch.values, Table)
    return batch


def test_csv_rows_become_columns_named_by_the_header(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(CSV)
    batch = table_of(path)
    columns = {name: list(cells) for name, cells in batch.values.columns.items()}
    assert columns == {"ts": ["1", "2"], "amount": ["2.5", "3.5"], "name": ["x, y", "z"]}
    assert batch.offsets.tolist() == [0, 1]
    assert batch.cursors.tolist() == [16, 30, len(CSV)]
    assert FileSource(path).discover()[0].end == 2


def test_csv_file_continues_at_a_row(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(CSV)
    for position in (Position(next_offset=1), Position(next_offset=1, cursor=30)):
        (batch,), _ = drain(opened(path, position))
        assert list(batch.values.columns["ts"]) == ["2"]


def test_csv_delimiters_byte_order_mark_and_unnamed_index_are_accepted(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbf;a;b\n0;1;2\n")
    assert {name: list(cells) for name, cells in table_of(path).values.columns.items()} == {"a": ["1"], "b": ["2"]}


def test_only_csv_rows_that_do_not_match_the_header_are_rejected(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'a,b\n1,2\n1,2,3\n\n1,"2\n\xff,1\n' + b"1," + b"0" * 2_000 + b"\n3,4\n")
    batch = table_of(path, max_event_bytes=1_000)
    decoded = make_codec(EventSettings(), ["a", "b"], layout="table", max_future_us=0).decode(batch, 5)
    assert decoded.events.features.tolist() == [[1, 2], [3, 4]]
    assert decoded.dead_letters.reasons == ["wrong_length", "empty", "wrong_length", "not_a_number", "too_large"]
    assert decoded.dead_letters.payloads[0] == b"1,2,3"


@pytest.mark.parametrize(("header", "match"), [(b"a,b,a\n1,2,3\n", "repeats 'a'"), (b"", "no header")])
def test_invalid_csv_header_is_an_error(tmp_path, header, match):
    path = tmp_path / "x.csv"
    path.write_bytes(header)
    with pytest.raises(ConfigError, match=match):
        FileSource(path).discover()


def test_empty_file_ends_immediately(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"")
    assert read(path) == []


def parquet_file(path, n=1_000):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "a": np.arange(n),
            "b": pa.array([None if i % 10 == 9 else i / 2 for i in range(n)]),
            "ts": pa.array(np.arange(n) * 1_000_000, pa.timestamp("us", "UTC")),
            "card": pa.array([{"age": i} for i in range(n)]),
            "name": pa.array(["x"] * n).dictionary_encode(),
        }
    )
    parquet.write_table(table, path, row_group_size=300)
    return path


@pytest.mark.parametrize("row", [0, 1, 299, 300, 650, 999])
def test_parquet_rows_become_columns_and_a_restart_continues_at_any_row(tmp_path, row):
    path = parquet_file(tmp_path / "x.parquet")
    batches, poll = drain(opened(path, Position(next_offset=row), rows_per_poll=128))
    assert poll.ended
    codec = make_codec(
        EventSettings(time={"field": "ts"}, key="name"), ["card.age", "a", "b"], layout="table", max_future_us=0
    )
    decoded = [codec.decode(batch, 5) for batch in batches]
    assert [batch.begin for batch in batches[1:]] == [batch.end for batch in batches[:-1]]
    offsets = np.concatenate([each.events.offsets for each in decoded])
    assert offsets.tolist() == [i for i in range(row, 1_000) if i % 10 != 9]
    features = np.concatenate([each.events.features for each in decoded])
    np.testing.assert_array_equal(features, np.stack([offsets, offsets, offsets / 2], axis=1))
    times = np.concatenate([each.events.times_us for each in decoded])
    np.testing.assert_array_equal(times, offsets * 1_000_000)
    assert {reason for each in decoded for reason in each.dead_letters.reasons} <= {"missing_feature"}


def test_parquet_columns_of_one_name_are_an_error_that_names_them(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    numbers, nested = pa.array([1.0, 2.0]), pa.array([{"b": 1}, {"b": 2}])
    for arrays, names, repeated in (
        ([numbers, numbers, numbers], ["ts", "temp", "temp"], "'temp'"),
        ([numbers, nested], ["a.b", "a"], "'a.b'"),
    ):
        path = tmp_path / "x.parquet"
        parquet.write_table(pa.Table.from_arrays(arrays, names=names), path)
        with pytest.raises(ConfigError, match=f"several columns named {repeated}; give every column its own name"):
            FileSource(path).discover()


def test_parquet_position_beyond_the_end_reports_a_replaced_file(tmp_path):
    path = parquet_file(tmp_path / "x.parquet")
    assert drain(opened(path, Position(next_offset=1_001)))[1].replaced
    assert drain(opened(path, Position(next_offset=1_000)))[1].ended


def test_missing_pyarrow_is_an_error_that_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'outrider\[parquet\]'"):
        FileSource(tmp_path / "x.parquet").discover()


def test_file_without_parquet_content_is_an_error(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"not parquet")
    with pytest.raises(ConfigError, match="not a readable Parquet file"):
        FileSource(path).discover()


def test_damaged_parquet_pages_are_skipped_and_the_next_row_group_is_read(tmp_path):
    path = parquet_file(tmp_path / "x.parquet")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    begin = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
    batches, poll = drain(opened(path))
    assert poll.ended
    assert [(batch.begin, batch.end, batch.skip_reason) for batch in batches] == [
        (0, 300, None),
        (300, 600, "unreadable_batch"),
        (600, 900, None),
        (900, 1000, None),
    ]


READ_STANDARD_INPUT = """
import sys
from consumers.batch import Position
from consumers.files.source import FileSource
source = FileSource("-", rows_per_poll=2)
(found,) = source.discover()
source.poll(0)
source.seek(found.partition, Position(next_offset=0))
rows = []
while len(rows) < 2:
    rows += [row for batch in source.poll(5).batches for row in batch.values]
source.seek(found.partition, Position(next_offset=1))
rows = []
while not (poll := source.poll(5)).ended:
    rows += [row for batch in poll.batches for row in batch.values]
print(rows)
"""


def test_standard_input_can_be_read_again_from_an_earlier_row():
    done = subprocess.run(
        [sys.executable, "-c", READ_STANDARD_INPUT], input=b"[1]\n[2]\n[3]\n[4]", capture_output=True, check=True
    )
    assert done.stdout == b"[b'[2]', b'[3]', b'[4]']\n"
