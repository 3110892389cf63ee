"""The back-test and the daemon decide the same over the same events, row by row."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from config.loading import load
from config.settings import Settings
from monitor.backtest import Backtest, backtest
from monitor.control_plane.control_plane import BUDGETED_KINDS
from monitor.server.trials import TrialRequest, Trials
from storage.database.engine import Database
from tests.daemon.events import BurstStream
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import STREAM, file_settings

Rows = list[tuple[Any, ...]]
PERCENTILE, BUDGET = 99.0, "1/week"
HABITUAL = "HA"
FAR_HOUR = 139.3
"""Hours after the first event of the far event of the habitual key."""

THRESHOLDS = (
    "SELECT computed_at_us, valid_from_us, percentile, threshold, lower, upper, n, method, details FROM thresholds "
    "ORDER BY id"
)
WINDOWS = (
    "SELECT window_start_us, window_end_us, events, outliers, dead, expected, p_value, energy_p50, energy_p99, "
    "energy_max, fires_at, payload, details FROM windows WHERE judged_at_us IS NOT NULL ORDER BY window_start_us"
)
INCIDENTS = (
    "SELECT kind, severity, status, window_start_us, opened_at_us, resolved_at_us, last_told_us, clean_windows, "
    "windows_fired, summary FROM incidents ORDER BY opened_at_us, kind"
)


@dataclass(frozen=True, kw_only=True)
class DaemonRun:
    """Result of a daemon that has read a file to its end."""

    settings: Settings
    file: Path
    db: Database

    def rows(self, query: str) -> Rows:
        with self.db.read() as conn:
            return [tuple(row) for row in conn.execute(sa.text(query))]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRun]:
    records = BurstStream(events=9_000, seconds=1_800).records()
    records[4_321] = b"no event"
    with run_daemon_over(tmp_path_factory.mktemp("backtest"), records) as result:
        yield result


@pytest.fixture(scope="module")
def ran_27_hours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRun]:
    """Daemon run over 27 hours with most kinds of incidents: see `events_of_27_hours`."""
    slow = {
        "model": {"n_components": 1, "warm_up": 4_000},
        "window": {"size": "1m", "grace": "10s", "ahead": "10m"},
        "threshold": {"refresh": "30m", "look_back": "8h", "percentile": PERCENTILE},
        "alerts": {"drift": {"horizons": ["10m", "1h"]}},
    }
    with run_daemon_over(tmp_path_factory.mktemp("days"), events_of_27_hours(), **slow) as result:
        yield result


def events_of_27_hours() -> list[bytes]:
    """Build the events of 27 hours: a burst, unreadable records, a tripled outlier rate, and a lasting shift."""
    rng = np.random.default_rng(5)
    n = 27 * 3600 // 2
    hours = np.arange(n) / 1_800
    x = rng.normal(size=(n, 3))
    burst = (hours > 5) & (hours < 5.1) & (rng.random(n) < 0.5)
    risen = (hours > 9) & (hours < 16) & (rng.random(n) < 0.02)
    x[burst | risen] += 9.0
    x[hours > 25, 1] += 1.0
    records = [
        json.dumps({"ts": 1_767_225_600 + 2 * i, "id": i, "x0": a, "x1": b, "x2": c}).encode()
        for i, (a, b, c) in enumerate(np.round(x, 6).tolist())
    ]
    for i in range(20 * 1_800, 20 * 1_800 + 120, 2):
        records[i] = b"no event"
    return records


@pytest.fixture(scope="module")
def ran_6_days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRun]:
    """Daemon run over six days whose events spread more around noon, in local time, than at midnight."""
    seasonal = {
        "timezone": "Europe/Berlin",
        "model": {"n_components": 1, "warm_up": 4_000},
        "window": {"size": "30m", "grace": "10s"},
        "threshold": {"refresh": "2h", "look_back": "1d", "percentile": PERCENTILE, "season": "auto"},
        "event": {"time": {"field": "ts"}, "id": "id", "key": "key"},
    }
    with run_daemon_over(tmp_path_factory.mktemp("season"), events_of_6_days(), **seasonal) as result:
        yield result


def events_of_6_days() -> list[bytes]:
    """Build 12,000 events of six days from a midnight in winter, and those of a habitual key.

    All events of the key are far away: one every two hours, and 12 in one window of the last day. Its last one is ten
    times as far away.
    """
    rng = np.random.default_rng(6)
    n = 12_000
    hours = np.arange(n) * 144 / n
    x = rng.normal(size=(n, 3)) * (1 - 0.3 * np.cos(2 * np.pi * hours / 24))[:, None]
    events = [(hour, f"k{i % 7}", row) for i, (hour, row) in enumerate(zip(hours.tolist(), x.tolist(), strict=True))]
    habit_hours = [*np.arange(1.01, 144, 2).tolist(), *np.linspace(130.51, 130.9, 12).tolist()]
    events += [(hour, HABITUAL, [9.0, 9.0, 9.0]) for hour in habit_hours]
    events.append((FAR_HOUR, HABITUAL, [90.0, 90.0, 90.0]))
    return [
        json.dumps({"ts": 1_767_222_000 + hour * 3_600, "id": i, "key": key, "x0": a, "x1": b, "x2": c}).encode()
        for i, (hour, key, (a, b, c)) in enumerate(sorted(events))
    ]


@contextmanager
def run_daemon_over(folder: Path, records: list[bytes], **stream: Any) -> Iterator[DaemonRun]:
    """Run a daemon over a file to its end."""
    file = folder / "events.jsonl"
    file.write_bytes(b"\n".join(records) + b"\n")
    settings = file_settings(f"sqlite:///{folder / 'outrider.db'}", str(file), **stream)
    with closing(DaemonProcess(folder, settings)) as daemon:
        assert daemon.start().wait() == 0, daemon.tail()
        read = load(daemon.config, {})
    with Database(read.database.url) as db:
        yield DaemonRun(settings=read, file=file, db=db)


def backtest_one_cell(ran: DaemonRun, file: Path | None, database: str | None = None, **more: Any) -> Backtest:
    settings = ran.settings
    if database is not None:
        settings = settings.model_copy(update={"database": type(settings.database)(url=database)})
    return backtest(settings, STREAM, file, percentiles=[PERCENTILE], false_alarms=[BUDGET], **more)


def thresholds(result: Backtest) -> Rows:
    names = ("computed_at_us", "valid_from_us", "percentile", "threshold", "lower", "upper", "n", "method")
    return [
        (*(getattr(row, name) for name in names), json.loads(json.dumps(row.details)))
        for row in result.memories[0].thresholds
    ]


def windows(result: Backtest) -> Rows:
    names = (
        *("window_start_us", "window_end_us", "events", "outliers", "dead", "expected", "p_value"),
        *("energy_p50", "energy_p99", "energy_max", "fires_at", "payload", "details"),
    )
    return [tuple(getattr(row, name) for name in names) for row in result.memories[0].windows if row.judged]


def incidents(result: Backtest) -> Rows:
    names = (
        *("kind", "severity", "status", "window_start_us", "opened_at_us", "resolved_at_us", "last_told_us"),
        *("clean_windows", "windows_fired", "summary"),
    )
    rows = [tuple(getattr(lifetime.row, name) for name in names) for lifetime in result.memories[0].incidents]
    return sorted(rows, key=lambda row: (row[4], row[0]))


def expected(ran: DaemonRun) -> tuple[Rows, Rows, Rows]:
    return (
        [(*row[:-1], json.loads(row[-1])) for row in ran.rows(THRESHOLDS)],
        [(*row[:-1], row[-1] and json.loads(row[-1])) for row in ran.rows(WINDOWS)],
        ran.rows(INCIDENTS),
    )


def test_backtest_over_the_file_equals_the_daemon(ran: DaemonRun, tmp_path: Path) -> None:
    expected_thresholds, expected_windows, expected_incidents = expected(ran)
    assert min(len(expected_thresholds), len(expected_windows)) > 3
    assert expected_incidents
    with_its_model = backtest_one_cell(ran, ran.file)
    assert thresholds(with_its_model) == expected_thresholds
    assert windows(with_its_model) == expected_windows
    assert incidents(with_its_model) == expected_incidents
    warmed_up = backtest_one_cell(ran, ran.file, f"sqlite:///{tmp_path / 'none.db'}")
    assert (thresholds(warmed_up), windows(warmed_up), incidents(warmed_up)) == (
        expected_thresholds,
        expected_windows,
        expected_incidents,
    )
    assert not (tmp_path / "none.db").exists()


def test_backtest_over_stored_windows_equals_the_daemon(ran: DaemonRun) -> None:
    expected_thresholds, expected_windows, expected_incidents = expected(ran)
    result = backtest_one_cell(ran, None)
    assert thresholds(result) == expected_thresholds
    assert windows(result) == expected_windows
    assert incidents(result) == expected_incidents


def test_backtest_finds_every_kind_of_incident_of_the_daemon(ran_27_hours: DaemonRun) -> None:
    expected_thresholds, expected_windows, expected_incidents = expected(ran_27_hours)
    kinds = {row[0] for row in expected_incidents}
    assert kinds >= {"spike", "slow_rise", "drift", "calibration", "dead_letters"}
    for file in (ran_27_hours.file, None):
        result = backtest_one_cell(ran_27_hours, file)
        assert thresholds(result) == expected_thresholds
        assert windows(result) == expected_windows
        assert incidents(result) == expected_incidents
        assert result.cells[0].incidents.keys() == kinds


def test_backtest_learns_the_season_of_the_daemon(ran_6_days: DaemonRun) -> None:
    expected_thresholds, expected_windows, expected_incidents = expected(ran_6_days)
    seasons = [row[-1]["season"] for row in expected_thresholds if "season" in row[-1]]
    assert [each["kind"] for each in seasons[:12]] == [None] * 12, "a day is no season"
    assert seasons[-1]["kind"] == "hour_of_day"
    (habit,) = ran_6_days.rows("SELECT key, rate, windows, since_us, until_us FROM habitual_keys")
    assert habit[0] == HABITUAL
    flagged = ran_6_days.rows("SELECT key, habitual, event_time_us >= 0 FROM outlier_history WHERE habitual")
    assert len(flagged) > 12
    assert {key for key, *_ in flagged} == {HABITUAL}
    burst = next(
        row for row in expected_windows if row[0] == 1_767_222_000_000_000 + 130 * 3_600_000_000 + 1_800_000_000
    )
    assert burst[3] >= 12
    assert burst[-1] is None, "12 outliers of a habitual key are expected"
    fired = [row[0] for row in expected_windows if row[-1] is not None and row[0] >= habit[3]]
    far_us = 1_767_222_000_000_000 + int(FAR_HOUR * 3_600_000_000)
    assert fired == [far_us // 1_800_000_000 * 1_800_000_000], "only the energy far beyond those of the key"
    ((details,),) = ran_6_days.rows("SELECT details FROM incidents ORDER BY id DESC LIMIT 1")
    assert json.loads(details)["opened"]["magnitude"]["key"] == HABITUAL
    noon, midnight = (expected_windows[-1 - 2 * hours][5] for hours in (12, 24))
    assert noon > 2 * midnight, "expected outliers"
    for file in (ran_6_days.file,):
        result = backtest_one_cell(ran_6_days, file)
        assert thresholds(result) == expected_thresholds
        assert windows(result) == expected_windows
        assert incidents(result) == expected_incidents


def test_cell_is_equal_alone_and_in_a_grid(ran: DaemonRun) -> None:
    grid = backtest(ran.settings, STREAM, ran.file, percentiles=[98, PERCENTILE], false_alarms=["1/day", BUDGET])
    alone = backtest_one_cell(ran, ran.file)
    assert grid.cells[-1] == alone.cells[0]
    assert len({cell.outliers for cell in grid.cells}) > 1


def test_planted_bursts_are_found_with_labels_by_interval_and_by_id(ran: DaemonRun, tmp_path: Path) -> None:
    feed = BurstStream()
    begin_us = 1_767_225_600_000_000
    bursts = [
        (begin_us + end * 1_000_000 - feed.burst_s * 1_000_000, begin_us + end * 1_000_000)
        for end in range(feed.burst_every_s, 1_800, feed.burst_every_s)
    ]
    intervals = tmp_path / "bursts.csv"
    intervals.write_text("start,end\n" + "".join(f"{start / 1e6},{end / 1e6}\n" for start, end in bursts))
    for file in (ran.file, None):
        cell = backtest_one_cell(ran, file, labels=intervals).cells[0]
        assert (cell.bursts, cell.recall, cell.false_incidents, cell.precision) == (len(bursts), 1.0, 0, 1.0)
        assert cell.delay_s is not None
        assert 0 < cell.delay_s <= 20
        assert cell.realised_per_week == 0
    events = [json.loads(line) for line in ran.file.read_bytes().splitlines() if line.startswith(b"{")]
    outliers = [event for event in events if event["x0"] > 6]
    by_id = tmp_path / "labels.jsonl"
    by_id.write_text("".join(json.dumps({"id": event["id"], "label": 1}) + "\n" for event in outliers))
    cell = backtest_one_cell(ran, ran.file, labels=by_id).cells[0]
    assert (cell.bursts, cell.recall) == (len(bursts), 1.0)
    assert cell.events_found is not None
    assert cell.events_found > 0.9


def test_since_selects_the_last_stored_windows(ran: DaemonRun) -> None:
    whole, part = backtest_one_cell(ran, None), backtest_one_cell(ran, None, since="10m")
    assert part.end_us == whole.end_us
    assert part.begin_us >= whole.end_us - 620_000_000


REFITS = "SELECT due_us, state, gate_us, details FROM refits ORDER BY due_us"


@pytest.fixture(scope="module")
def ran_with_refits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRun]:
    """Daemon run over 38 hours with a burst and a level that moves, whose model is fitted again each 12 hours."""
    rng = np.random.default_rng(8)
    n = 38 * 60
    x = rng.normal(size=(n, 2)) + np.arange(n)[:, None] / n
    x[1_500:1_520] += 20.0
    records = [
        json.dumps({"ts": 1_767_225_600 + 60 * i, "x0": a, "x1": b}).encode()
        for i, (a, b) in enumerate(np.round(x, 6).tolist())
    ]
    refits = {
        "event": {"time": {"field": "ts"}, "features": ["x0", "x1"]},
        "model": {"n_components": 1, "warm_up": 300, "refit": {"every": "12h", "over": "1d"}},
        "window": {"size": "10m", "grace": "10s", "ahead": "20m"},
        "threshold": {"refresh": "2h", "look_back": "12h", "percentile": PERCENTILE},
        "alerts": {"drift": {"horizons": ["7d"]}},
    }
    with run_daemon_over(tmp_path_factory.mktemp("refits"), records, **refits) as result:
        yield result


def test_a_back_test_fits_and_activates_the_models_of_the_daemon(ran_with_refits: DaemonRun) -> None:
    result = backtest_one_cell(ran_with_refits, ran_with_refits.file, database="sqlite:////nonexistent/none.db")
    refits = result.refits[0]
    found = [(row.due_us, row.state, row.gate_us, json.loads(json.dumps(row.details))) for row in refits]
    stored = [(*row[:-1], json.loads(row[-1])) for row in ran_with_refits.rows(REFITS)]
    assert found == stored
    assert [row[1] for row in stored].count("promoted") >= 2
    assert (thresholds(result), windows(result), incidents(result)) == expected(ran_with_refits)


def test_the_page_tries_thresholds_with_the_numbers_of_the_command_cell_by_cell(ran: DaemonRun) -> None:
    percentiles, budgets = (95.0, PERCENTILE, 99.9), (BUDGET, "1/day")
    request = TrialRequest(stream=STREAM, since="1d", percentiles=percentiles, false_alarms=budgets, basis=(None, 0))
    trials = Trials(ran.settings)
    trial = trials.ask(request)
    deadline_s = time.monotonic() + 100
    while trial.is_running and time.monotonic() < deadline_s:
        time.sleep(0.05)
        trial = trials.ask(request)
    assert trial.error is None
    expected = backtest(ran.settings, STREAM, since="1d", percentiles=percentiles, false_alarms=budgets)
    assert [cell.outcome for cell in trial.cells] == list(expected.cells)
    assert (trial.begin_us, trial.end_us) == (expected.begin_us, expected.end_us)
    assert [len(cell.incidents) for cell in trial.cells] == [
        sum(n for kind, n in outcome.incidents.items() if kind in BUDGETED_KINDS) for outcome in expected.cells
    ]
    assert any(cell.incidents for cell in trial.cells)


def test_a_trial_that_cannot_run_says_why(ran: DaemonRun) -> None:
    request = TrialRequest(
        stream=STREAM, since="not a time", percentiles=(99.0,), false_alarms=(BUDGET,), basis=(None, 0)
    )
    trials = Trials(ran.settings)
    deadline_s = time.monotonic() + 100
    while (trial := trials.ask(request)).is_running and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert trial.error is not None and "not a time" in trial.error
