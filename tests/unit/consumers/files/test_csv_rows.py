"""CSV records as in RFC 4180: quoted line breaks, damaged quotes, dialects, encodings and line ends."""

import codecs
import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import ConfigError
from config.streams import EventSettings
from consumers.batch import Position, Table
from consumers.codec import make_codec
from consumers.files.csv_dialect import CsvHeader, detect_header
from consumers.files.csv_rows import CsvReader
from consumers.files.source import FileSource


def batches_of(path, position=None, **options) -> Iterator:
    source = FileSource(path, **options)
    source.poll(0)
    source.seek(source.partition, position or Position(next_offset=0))
    while not (poll := source.poll(0)).ended:
        assert not poll.replaced
        yield from poll.batches
    source.close()


def read_table(path, **options):
    """Return the names, the rows of cells, and the errors by row."""
    names, rows, errors = [], [], {}
    for batch in batches_of(path, **options):
        assert isinstance(batch.values, Table)
        names = list(batch.values.columns)
        errors |= {batch.begin + row: reason for row, (reason, _) in batch.values.row_errors.items()}
        rows += zip(*batch.values.columns.values(), strict=True)
    return names, rows, errors


def write_file(folder, content, name="x.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_quoted_line_break_does_not_end_a_record(tmp_path):
    text = 'note,x,y\r\nok,1,2\r\n"line one,\n7,999999,2",3,4\r\n"a ""b""\r\n\r\n",5,6\r\n'
    path = write_file(tmp_path, text)
    (batch,) = batches_of(path)
    assert list(batch.values.columns["note"]) == ["ok", "line one,\n7,999999,2", 'a "b"\n\n']
    decoded = make_codec(EventSettings(), ["x", "y"], layout="table", max_future_us=0).decode(batch, 5)
    assert decoded.events.features.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert batch.offsets.tolist() == [0, 1, 2]
    assert FileSource(path).discover()[0].end == 3
    for offset, cursor in enumerate(batch.cursors.tolist()):
        again = list(batches_of(path, Position(next_offset=offset, cursor=cursor)))
        assert [row for each in again for row in each.values.columns["x"]] == ["1", "3", "5"][offset:]


def test_record_that_spans_polls_is_complete(tmp_path):
    path = write_file(tmp_path, "a,b\n" + '"x\ny\nz",1\n' * 50)
    assert read_table(path, rows_per_poll=2, bytes_per_poll=1)[1] == [("x\ny\nz", "1")] * 50


@pytest.mark.parametrize("tail", ["", "7,8\n" * 200, '5" pipe,8\n', '7,"8"\n'])
def test_stray_quote_costs_its_own_line_only(tmp_path, tail):
    path = write_file(tmp_path, 'a,b\n1,2\n1,"2\n3,4\n5,6\n' + tail)
    _, rows, errors = read_table(path, max_event_bytes=200)
    assert errors == {1: "wrong_length"}
    assert rows[2:4] == [("3", "4"), ("5", "6")]
    assert FileSource(path, max_event_bytes=200).discover()[0].end == len(rows) == 4 + tail.count("\n")


def test_quote_within_a_cell_is_a_character(tmp_path):
    path = write_file(tmp_path, 'a,b\n5" pipe,1\n"q",2\n')
    assert read_table(path)[1] == [('5" pipe', "1"), ("q", "2")]


@pytest.mark.parametrize("size", [90, 2_000, 3_000_000])
def test_record_that_is_too_large_is_rejected_as_a_whole(tmp_path, size):
    record = '"' + "1,2\n" * (size // 4) + '",2\n'
    path = write_file(tmp_path, f"a,b\n1,2\n{record}3,4\n{record}")
    _, rows, errors = read_table(path, max_event_bytes=80)
    assert errors == {1: "too_large", 3: "too_large"}
    assert [row for i, row in enumerate(rows) if i not in errors] == [("1", "2"), ("3", "4")]
    (found,) = FileSource(path, max_event_bytes=80).discover()
    assert found.end == 4


def test_growing_file_with_quotes_is_counted_on(tmp_path):
    path = write_file(tmp_path, "a,b\n1,2\n")
    source = FileSource(path)
    assert source.discover()[0].end == 1
    for addition, end in (('"x\ny",3\n', 2), ('"x\n', 3), ('y",4\n', 3), ("5,6", 4), ("\n7,8\n", 5)):
        with path.open("a") as file:
            file.write(addition)
        assert source.discover()[0].end == end, addition


ROWS = [
    ("2026-11-01T00:00:00Z", "22.8", "n0"),
    ("2026-11-01T00:00:01Z", "17.9", "n1"),
    ("2026-11-01T00:00:02Z", "16", "n2"),
]
LINES = [",".join(row) for row in ROWS]
HEADER = "ts,temp,name"


@pytest.mark.parametrize(
    "content",
    [
        "\n".join([HEADER, *LINES]),
        "\r\n".join([HEADER, *LINES, ""]),
        "\r".join([HEADER, *LINES, ""]),
        "\ufeff" + "\n".join([HEADER, *LINES]),
        *("\n".join([HEADER, *LINES]).replace(",", delimiter) for delimiter in ";\t|"),
        "sep=;\r\n" + "\r\n".join([HEADER, *LINES]).replace(",", ";"),
        "sep=^\n" + "\n".join([HEADER, *LINES]).replace(",", "^"),
        "# station 12\n# exported 2026-11-29\n\n" + "\n".join([HEADER, *LINES]),
        "\n".join([HEADER, *(line + "," for line in LINES)]),
        "\n".join([HEADER + ",", *(line + "," for line in LINES)]),
        '"ts", "temp", "name"\n' + "\n".join(", ".join(f'"{cell}"' for cell in row) for row in ROWS),
        *(
            mark + "\r\n".join([HEADER, *LINES, ""]).encode(encoding)
            for mark, encoding in (
                (codecs.BOM_UTF16_LE, "utf-16-le"),
                (codecs.BOM_UTF16_BE, "utf-16-be"),
                (codecs.BOM_UTF32_LE, "utf-32-le"),
                (b"", "utf-16-le"),
                (b"", "utf-16-be"),
            )
        ),
    ],
)
def test_dialects_encodings_and_line_ends_are_detected(tmp_path, content):
    path = write_file(tmp_path, content)
    names, rows, errors = read_table(path)
    assert (names, rows, errors) == (["ts", "temp", "name"], ROWS, {})
    (found,) = FileSource(path).discover()
    assert found.end == 3
    batches = list(batches_of(path))
    cursors = [int(batches[0].cursors[0]), *(cursor for batch in batches for cursor in batch.cursors[1:].tolist())]
    for offset, cursor in enumerate(cursors):
        for position in (Position(next_offset=offset, cursor=cursor), Position(next_offset=offset)):
            again = [
                row for each in batches_of(path, position) for row in zip(*each.values.columns.values(), strict=True)
            ]
            assert again == ROWS[offset:]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("ts,temp;a;b;c;d,name", ("ts", "temp;a;b;c;d", "name")),
        ("ts,2019,2020", ("ts", "2019", "2020")),
        ("ts,0.5,0.99", ("ts", "0.5", "0.99")),
        (",0,1", ("", "0", "1")),
        ("#ts,temp,name", ("#ts", "temp", "name")),
    ],
)
def test_unusual_names_are_accepted(header, names):
    rows = [f"{i},{100 + i},{200 + i}".encode() for i in range(5)]
    assert detect_header([header.encode(), *rows], "x.csv").names == names


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (LINES, r"line 1 of 'x\.csv' has to name the columns, but it seems to be a row of data"),
        (["1.5,2.5", "3,4"], r"seems to be a row of data \('1\.5'\); add a header line, such as x0,x1"),
        (["1,2,3", "4,5,6"], "seems to be a row of data"),
        (["0,0,3", "4,5,6"], "seems to be a row of data"),
        (["1,5;2,5", "1,4;2,6"], "seems to be a row of data"),
        (["n0,22.8,1388.2", "n1,20.1,1400", "n2,25,1290"], "seems to be a row of data"),
        (["Station 12", "ts,temp", "1,2", "3,4", "5,6"], "names 1 column, but the rows after it have 2 cells"),
        (["a b c", "1 2 3", "4 5 6"], "separated by spaces; use one of comma, semicolon, tab and"),
        ([], "has no header"),
        ([",,"], "has no header"),
        (["a,b,a", "1,2,3"], "repeats 'a'"),
    ],
)
def test_header_that_does_not_name_the_columns_is_an_error_with_the_cause(lines, message):
    with pytest.raises(ConfigError, match=message):
        detect_header([line.encode() for line in lines], "x.csv")


def test_utf_16_json_lines_are_read(tmp_path):
    path = write_file(tmp_path, '{"a": "é😀"}\r\n{"a": 2}\r\n'.encode("utf-16"), "x.jsonl")
    (batch,) = batches_of(path)
    assert batch.values == ['{"a": "é😀"}'.encode(), b'{"a": 2}']
    assert FileSource(path).discover()[0].end == 2
    with path.open("ab") as file:
        file.write('{"a": 3}'.encode("utf-16-le"))
    (batch,) = batches_of(path, Position(next_offset=2, cursor=int(batch.cursors[-1])))
    assert batch.values == [b'{"a": 3}']


class BytesInput:
    def __init__(self, content):
        self._content = content

    def read_at(self, cursor, n_bytes, timeout_s):
        return self._content[cursor : cursor + n_bytes]

    def size(self):
        return len(self._content)

    def is_complete(self):
        return True

    def close(self):
        pass


CELLS = st.text(st.sampled_from('ab1,;"\n é'), max_size=6)


@given(
    st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=12), st.integers(1, 5), st.sampled_from(["\n", "\r\n"])
)
def test_records_written_by_the_csv_module_are_read_back_from_every_cursor(rows, rows_per_read, line_end):
    text = io.StringIO()
    csv.writer(text, lineterminator=line_end).writerows(rows)
    content = text.getvalue().encode()
    header = CsvHeader(names=("a", "b"), delimiter=",")
    expected = [tuple(row) for row in rows]

    def read_from(cursor):
        reader = CsvReader(BytesInput(content), cursor, header, 10_000)
        found, cursors = [], [cursor]
        while reader.cursor < len(content):
            batch = reader.read(rows_per_read, 100, 0.0)
            table = batch.to_table()
            assert not table.row_errors
            found += zip(*table.columns.values(), strict=True)
            cursors += batch.cursors[1:].tolist()
        return found, cursors

    found, cursors = read_from(0)
    assert found == expected
    assert cursors[-1] == len(content)
    for i, cursor in enumerate(cursors):
        assert read_from(cursor)[0] == expected[i:]


@given(st.binary(max_size=80) | st.text(st.sampled_from('a1,"\n\r'), max_size=80).map(str.encode), st.integers(3, 40))
def test_any_bytes_are_records_and_errors_with_growing_cursors(content, max_bytes):
    reader = CsvReader(BytesInput(content), 0, CsvHeader(names=("a", "b"), delimiter=","), max_bytes)
    cursors = [0]
    while reader.cursor < len(content):
        batch = reader.read(3, 20, 0.0)
        table = batch.to_table()
        assert len(table) == len(batch.rows) == len(batch.cursors) - 1
        assert batch.cursors[0] == cursors[-1]
        cursors += batch.cursors[1:].tolist()
    assert cursors == sorted(set(cursors))
    assert cursors[-1] == len(content)
