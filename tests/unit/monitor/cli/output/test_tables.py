"""Rows are written as JSON, JSON lines, CSV, or a table on a terminal."""

import csv
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monitor.cli.check_memory import MemoryBound
from monitor.cli.output.tables import escape_unprintable, format_value, iterate_rows, write_rows
from storage.database.engine import Database
from storage.queries.history_views import Columns
from tests.unit.monitor.cli.payments_stream import store_spike, write_config


def run_on_terminal(*arguments: str, columns: int) -> str:
    """Run the command on a pseudo-terminal and return its output."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    command = [sys.executable, "-m", "monitor.cli.main", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.wait(timeout=120) == 0
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    return shown


def test_columns_become_rows_of_python_values() -> None:
    batch: Columns = {
        "at": np.array(["2026-01-01T00:00:00.000001", "NaT"], "datetime64[us]"),
        "energy": np.array([0.1, np.nan], np.float32),
        "p_value": np.array([0.25, np.nan]),
        "n": np.array([1, 2]),
        "is_outlier": np.array([True, False]),
        "key": ["a", None],
    }
    first = {
        "at": "2026-01-01T00:00:00.000001Z",
        "energy": 0.1,
        "p_value": 0.25,
        "n": 1,
        "is_outlier": True,
        "key": "a",
    }
    second = {"at": None, "energy": None, "p_value": None, "n": 2, "is_outlier": False, "key": None}
    assert list(iterate_rows([batch])) == [first, second]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_json_is_one_array_and_jsonl_one_object_per_line(capsys: pytest.CaptureFixture[str], n: int) -> None:
    rows = [{"a": place, "b": "x"} for place in range(n)]
    write_rows(rows, ["a"], "json")
    assert json.loads(capsys.readouterr().out) == [{"a": place} for place in range(n)]
    write_rows(rows, ["a"], "jsonl")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"a": place} for place in range(n)]


def test_csv_has_a_header_nested_json_and_empty_cells_for_none(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows([{"a": None, "b": True, "c": {"x": 1}}], ["a", "b", "c"], "csv")
    assert capsys.readouterr().out == 'a,b,c\n,true,"{""x"": 1}"\n'


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+2", "'+1+2"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\uff1d1", "'\uff1d1"),
        ("\t=1", "\\t=1"),
        ("a\x1b[2J\x9b\rb", "a\\x1b[2J\\x9b\\rb"),
        ("a\u202eb", "a\\u202eb"),
        ("caf\u00e9 = 1", "caf\u00e9 = 1"),
        # A number in a text is no formula.
        ("-12.5", "-12.5"),
        ("+1e-3", "+1e-3"),
        ("-", "'-"),
        # Numbers stay numbers.
        (-12.5, "-12.5"),
        (-3, "-3"),
        (None, ""),
    ],
)
def test_csv_cell_holds_no_formula_and_no_control_character(
    capsys: pytest.CaptureFixture[str], value: object, cell: str
) -> None:
    write_rows([{"key": value, "n": 1}], ["key", "n"], "csv")
    assert list(csv.reader(capsys.readouterr().out.splitlines())) == [["key", "n"], [cell, "1"]]


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_json_values_stay_json_without_control_characters(capsys: pytest.CaptureFixture[str], form: str) -> None:
    payload = {"=a": "\x1b[2J\x7f\x9b\u202e\U000e0001 caf\u00e9"}
    write_rows([{"payload": payload}], ["payload"], form)
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert "caf\u00e9" in out
    if form == "csv":
        written = json.loads(next(csv.DictReader(out.splitlines()))["payload"])
    else:
        written = (json.loads(out)[0] if form == "json" else json.loads(out))["payload"]
    assert written == payload


def test_csv_of_no_rows_is_the_header(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows([], ["a", "b"], "csv")
    assert capsys.readouterr().out == "a,b\n"


def test_table_outside_of_a_terminal_has_80_columns_and_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    write_rows([{"text": "x" * 500}], ["text"], "table")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "".join(lines).count("x") == 500 + len("text") - 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (False, ""),
        (0.123456789, "0.12346"),
        ({"a": 1.0, "b": "c"}, "a=1, b=c"),
        ([1, 2], "1, 2"),
    ],
)
def test_table_values_are_short(value: object, text: str) -> None:
    assert format_value(value) == text


def test_unprintable_characters_are_escaped() -> None:
    assert escape_unprintable("a\x1b[31m\r\n\x00é") == "a\\x1b[31m\\r\\n\\x00é"


def test_memory_bound_is_the_sum_of_its_parts() -> None:
    bound = MemoryBound(fetch_bytes=1_000, partitions=3, features=8)
    assert bound.pending_bytes == 40_000 * 3 * (8 * 8 + 192)
    assert bound.total_bytes == 1_000 + 32 * 1024 * 1024 + bound.pending_bytes


@pytest.mark.slow
def test_terminal_gets_a_table(tmp_path: Path, sqlite_url: str) -> None:
    config = write_config(tmp_path, sqlite_url)
    with Database(sqlite_url) as db:
        store_spike(db, config)
    shown = run_on_terminal("-c", str(config), "history", "payments", "--limit", "2", columns=80)
    assert "event time" in shown
    assert "source_offset" not in shown


@pytest.mark.slow
def test_narrow_terminal_cuts_no_number(tmp_path: Path, sqlite_url: str) -> None:
    config = write_config(tmp_path, sqlite_url)
    with Database(sqlite_url) as db:
        store_spike(db, config)
    shown = run_on_terminal("-c", str(config), "history", "payments", "--outliers", "--limit", "1", columns=40)
    assert "2026-01-01T00:02:29Z" in shown
    assert "payments[0] 149" in shown
