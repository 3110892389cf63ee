"""Export to Parquet: every stored score exactly once, in immutable files, also with late events and after kills."""

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from config.errors import ConfigError
from config.settings import Settings
from config.time_format import HOUR_US
from monitor.cli.main import outrider
from monitor.daemon.daemon import Daemon
from storage.database.engine import Database
from storage.export import ExportResult, export_scores, read_exported
from storage.history import History
from storage.queries.export_facts import read_export_facts

STREAM = "payments"
START_US = 1_767_225_600_000_000
EVENTS, STEP_US = 2_400, 6_000_000  # four hours
COLUMNS = ["topic", "partition", "source_offset", "incarnation"]


def event(number: int, time_us: int) -> str:
    return json.dumps({"ts": time_us, "id": f"e{number}", "a": (number * 7919 % 997) / 100, "b": number % 13})


def settings(url: str, path: Path) -> Settings:
    stream = {
        "source": {"type": "file", "path": str(path)},
        "event": {"time": {"field": "ts", "unit": "us"}, "id": "id", "features": ["a", "b"]},
        "model": {"warm_up": 400, "n_components": 1},
        "window": {"size": "5m", "grace": "10s"},
        "threshold": {"look_back": "1h"},
    }
    return Settings.model_validate({"database": {"url": url}, "device": "cpu", "streams": {STREAM: stream}})


def run_daemon(url: str, path: Path, times_us: list[int], before: int = 0) -> None:
    """Append events to a file and run the daemon to its end."""
    with path.open("a") as file:
        file.writelines(event(before + at, time_us) + "\n" for at, time_us in enumerate(times_us))
    Daemon(settings(url, path)).run()


def export(url: str, folder: Path, since_us: int | None = None) -> ExportResult:
    with Database(url, read_only=True) as db, History(url) as history:
        return export_scores(history, STREAM, read_export_facts(db, STREAM), folder, since_us=since_us)


def stored(url: str, until_us: int) -> pd.DataFrame:
    with History(url) as history:
        frame = history.scores(STREAM).to_frame()
    return frame[frame["event_time_us"] < until_us].drop(columns="event_time_us")


def exported(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob(f"{STREAM}/*/*.parquet"))])


def assert_equal(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    found, wanted = (
        each.drop(columns="key").sort_values(COLUMNS).reset_index(drop=True)  # these events have none
        for each in (found, wanted)
    )
    pd.testing.assert_frame_equal(found[list(wanted.columns)], wanted, check_dtype=False)


@pytest.fixture
def events_file(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_each_sealed_hour_is_written_once_and_late_events_go_to_further_files(
    database_url: str, events_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    run_daemon(database_url, events_file, [START_US + at * STEP_US for at in range(EVENTS)])
    first = export(database_url, folder)
    assert first.until_us == START_US + 4 * HOUR_US or first.until_us == START_US + 3 * HOUR_US
    assert_equal(exported(folder), stored(database_url, first.until_us))
    assert export(database_url, folder) == ExportResult(files=0, rows=0, until_us=first.until_us)
    written = {path: path.read_bytes() for path in folder.glob("*/*/*.parquet")}

    # A day later: five events of the second hour among those of a new hour.
    later_us = START_US + 24 * HOUR_US
    times_us = [later_us + at * STEP_US for at in range(1_300)]
    times_us[700:705] = [START_US + HOUR_US + at for at in range(5)]
    run_daemon(database_url, events_file, times_us, EVENTS)
    second = export(database_url, folder)
    assert second.until_us is not None
    assert_equal(exported(folder), stored(database_url, second.until_us))
    assert {path: path.read_bytes() for path in written} == written
    late = folder / STREAM / "2026-01-01" / "01.1.parquet"
    assert parquet.read_metadata(late).num_rows == 5
    assert read_exported(folder / STREAM, START_US + HOUR_US).n_files == 2
    assert export(database_url, folder).rows == 0


def test_duckdb_reads_the_files_and_the_command_names_them(tmp_path: Path, sqlite_url: str, events_file: Path) -> None:
    run_daemon(sqlite_url, events_file, [START_US + at * STEP_US for at in range(EVENTS)])
    config, folder = tmp_path / "outrider.yaml", tmp_path / "out"
    config.write_text(json.dumps(settings(sqlite_url, events_file).model_dump(mode="json", exclude_unset=True)))
    command = ["-c", str(config), "export", STREAM, "--format", "parquet", "--output", str(folder)]
    result = CliRunner().invoke(outrider, [*command, "--since", "2026-01-01T01:00:00Z"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "are exported" in result.output
    files = f"{folder}/{STREAM}/*/*.parquet"
    query = f"SELECT count(*), min(event_time), count(DISTINCT event_id), count(*) FILTER (is_outlier) FROM '{files}'"
    n, first, ids, outliers = duckdb.sql(query).fetchall()[0]
    frame = exported(folder)
    assert (n, ids, outliers) == (len(frame), len(frame), int(frame["is_outlier"].sum()))
    assert first.timestamp() * 1e6 == START_US + HOUR_US


def test_a_second_export_waits_for_the_first_one_to_end(
    tmp_path: Path, sqlite_url: str, events_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_daemon(sqlite_url, events_file, [START_US + at * STEP_US for at in range(EVENTS)])
    folder = tmp_path / "out"
    scores: Callable[..., Any] = History.scores

    def export_again(history: History, *arguments: Any, **bounds: Any) -> Any:
        monkeypatch.setattr(History, "scores", scores)
        with pytest.raises(ConfigError, match="another export writes to"):
            export(sqlite_url, folder)
        return scores(history, *arguments, **bounds)

    monkeypatch.setattr(History, "scores", export_again)
    assert export(sqlite_url, folder).files > 0


@pytest.mark.fault
@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.long)])
def test_killed_exports_write_each_score_once(kills: int, tmp_path: Path, sqlite_url: str, events_file: Path) -> None:
    run_daemon(sqlite_url, events_file, [START_US + at * STEP_US for at in range(EVENTS)])
    began_s = time.monotonic()
    until_us = export(sqlite_url, tmp_path / "whole").until_us
    duration_s = time.monotonic() - began_s
    assert until_us is not None
    rng, folder = random.Random(kills), tmp_path / "out"
    context = multiprocessing.get_context("fork")
    for number in range(kills):
        process = context.Process(target=export, args=(sqlite_url, folder))
        process.start()
        process.join(rng.uniform(0, duration_s))
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        if number % 10 == 9:  # start anew: most exports are short
            assert_equal(exported_or_none(folder, until_us, sqlite_url), stored(sqlite_url, until_us))
            folder = tmp_path / f"out{number}"
    export(sqlite_url, folder)
    assert_equal(exported(folder), stored(sqlite_url, until_us))
    assert not list(folder.glob("*/*/*.partial"))


def exported_or_none(folder: Path, until_us: int, url: str) -> pd.DataFrame:
    """Complete an export and return its rows."""
    assert export(url, folder).until_us == until_us
    return exported(folder)
