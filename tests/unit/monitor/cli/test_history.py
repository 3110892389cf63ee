"""`outrider history` lists scores in every format, bounded as asked."""

import csv
import io
import json

import pytest

from tests.unit.monitor.cli.conftest import OutriderRunner

pytestmark = pytest.mark.usefixtures("payments")


def test_it_writes_every_score_as_csv_where_no_terminal_is(outrider: OutriderRunner) -> None:
    ran = outrider("history", "payments")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert (ran.code, len(rows)) == (0, 240)
    assert rows[0]["event_time"] == "2026-01-01T00:00:00.000000Z"
    assert (rows[0]["energy"], rows[0]["is_outlier"], rows[0]["key"]) == ("0.1", "false", "alice")


def test_since_counts_back_from_the_latest_event(outrider: OutriderRunner) -> None:
    rows = json.loads(outrider("history", "payments", "--since", "30s", "--format", "json").out)
    assert [row["source_offset"] for row in rows] == list(range(209, 240))


def test_since_and_until_take_times(outrider: OutriderRunner) -> None:
    bounds = ("--since", "2026-01-01T00:01:00Z", "--until", "2026-01-01T00:01:05Z")
    lines = outrider("history", "payments", *bounds, "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["source_offset"] for line in lines] == [60, 61, 62, 63, 64]


def test_outliers_come_with_their_features(outrider: OutriderRunner) -> None:
    rows = json.loads(outrider("history", "payments", "--outliers", "--format", "json").out)
    assert len(rows) == 31
    assert rows[0]["features"] == {"amount": 99.5, "card.age_days": 99.5}


def test_limit_keeps_the_newest(outrider: OutriderRunner) -> None:
    rows = json.loads(outrider("history", "payments", "--limit", "3", "--format", "json").out)
    assert [row["source_offset"] for row in rows] == [237, 238, 239]


def test_a_table_is_limited_and_says_so(outrider: OutriderRunner) -> None:
    ran = outrider("history", "payments", "--format", "table")
    assert ran.out.count("2026-01-01T") == 50
    assert "newest 50 rows at most" in ran.err


def test_a_table_with_a_limit_of_its_own_says_nothing(outrider: OutriderRunner) -> None:
    ran = outrider("history", "payments", "--format", "table", "--limit", 60)
    assert (ran.out.count("2026-01-01T"), ran.err) == (60, "")


def test_a_stream_that_never_ran_has_an_empty_list(outrider: OutriderRunner) -> None:
    ran = outrider("history", "clicks", "--format", "json")
    assert (ran.code, json.loads(ran.out)) == (0, [])
    assert "clicks has no history yet" in ran.err


def test_an_unknown_stream_is_answered_with_the_nearest_name(outrider: OutriderRunner) -> None:
    ran = outrider("history", "paymets")
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean payments?" in ran.err


@pytest.mark.parametrize("option", [("--since", "yesterday"), ("--limit", "0"), ("--format", "xml")])
def test_a_wrong_option_ends_with_2(outrider: OutriderRunner, option: tuple[str, str]) -> None:
    ran = outrider("history", "payments", *option)
    assert ran.code == 2
    assert "Traceback" not in ran.err
