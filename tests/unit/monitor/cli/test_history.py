"""`outrider history` lists scores in every format, with time bounds and a row limit."""

import csv
import io
import json

import pytest

from tests.unit.monitor.cli.conftest import OutriderRunner

pytestmark = pytest.mark.usefixtures("payments")


def test_a_pipe_gets_a_table_and_csv_has_every_score(outrider: OutriderRunner) -> None:
    assert outrider("history", "payments").out.splitlines()[0].split()[:2] == ["event", "time"]
    result = outrider("history", "payments", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert (result.code, len(rows)) == (0, 240)
    assert rows[0]["event_time"] == "2026-01-01T00:00:00.000000Z"
    assert (rows[0]["energy"], rows[0]["is_outlier"], rows[0]["key"]) == ("0.1", "false", "alice")


def test_since_counts_back_from_the_latest_event(outrider: OutriderRunner) -> None:
    rows = json.loads(outrider("history", "payments", "--since", "30s", "--format", "json").out)
    assert [row["source_offset"] for row in rows] == list(range(209, 240))


def test_since_and_until_take_times(outrider: OutriderRunner) -> None:
    bounds = ("--since", "2026-01-01T00:01:00Z", "--until", "2026-01-01T00:01:05Z")
    lines = outrider("history", "payments", *bounds, "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["source_offset"] for line in lines] == [60, 61, 62, 63, 64]


def test_outliers_are_listed_with_their_features(outrider: OutriderRunner) -> None:
    rows = json.loads(outrider("history", "payments", "--outliers", "--format", "json").out)
    assert len(rows) == 31
    assert rows[0]["features"] == {"amount": 99.5, "card.age_days": 99.5}


def test_limit_selects_the_newest_rows(outrider: OutriderRunner) -> None:
    rows = json.loads(outrider("history", "payments", "--limit", "3", "--format", "json").out)
    assert [row["source_offset"] for row in rows] == [237, 238, 239]


def test_table_is_limited_with_a_note(outrider: OutriderRunner) -> None:
    result = outrider("history", "payments", "--format", "table")
    assert result.out.count("2026-01-01T") == 50
    assert "newest 50 rows at most" in result.err


def test_table_with_explicit_limit_has_no_note(outrider: OutriderRunner) -> None:
    result = outrider("history", "payments", "--format", "table", "--limit", 60)
    assert (result.out.count("2026-01-01T"), result.err) == (60, "")


def test_stream_that_never_ran_has_an_empty_list(outrider: OutriderRunner) -> None:
    result = outrider("history", "clicks", "--format", "json")
    assert (result.code, json.loads(result.out)) == (0, [])
    assert "clicks has no history yet" in result.err


def test_unknown_stream_gets_a_suggestion(outrider: OutriderRunner) -> None:
    result = outrider("history", "paymets")
    assert (result.code, result.out) == (2, "")
    assert "did you mean payments?" in result.err


@pytest.mark.slow
@pytest.mark.parametrize("option", [("--since", "yesterday"), ("--limit", "0"), ("--format", "xml")])
def test_invalid_option_exits_with_2(outrider: OutriderRunner, option: tuple[str, str]) -> None:
    result = outrider("history", "payments", *option)
    assert result.code == 2
    assert "Traceback" not in result.err
