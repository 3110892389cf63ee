"""Sizes that are `auto`: the first model finds them, all processes use them, and a back-test finds the same ones."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from config.settings import Settings
from monitor.backtest import backtest
from monitor.daemon.shared_settings import SharedSettings
from storage.control.settings import SettingsStore
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import STREAM
from tests.integration.test_backtest import DaemonRun, expected, incidents, run_daemon_over, thresholds, windows

AUTO = {
    "model": {"n_components": 1, "warm_up": "auto"},
    "window": {"size": "auto"},
    "threshold": {"percentile": "auto", "look_back": "auto", "refresh": "1h"},
}
FOUND = {"window.size": "1h", "threshold.percentile": 99.0, "threshold.look_back": "18d", "model.warm_up": 400}
N = 1_500


def records_every_5_minutes(n: int = N, first: int = 0) -> list[bytes]:
    """Build events with a burst of ten outliers every 250 events."""
    rows = np.round(np.random.default_rng(5).normal(size=(first + n, 3)), 6)
    rows[np.arange(len(rows)) % 250 >= 240] += 9.0
    return [
        json.dumps({"ts": 1_767_225_600 + 300 * i, "id": i, "x0": a, "x1": b, "x2": c}).encode()
        for i, (a, b, c) in enumerate(rows.tolist())
    ][first:]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonRun]:
    with run_daemon_over(tmp_path_factory.mktemp("auto"), records_every_5_minutes(), **AUTO) as result:
        yield result


def found_sizes(db: Database) -> dict[str, object]:
    """Return the values that are stored for settings that are `auto`."""
    stream_id = Ledger(db).find_stream(STREAM)
    assert stream_id is not None
    return {
        key.removeprefix("resolved."): value
        for row in SettingsStore(db).read_rows(stream_id)
        for key, value in row.content.items()
        if key.startswith("resolved.") and key.removeprefix("resolved.") in FOUND
    }


def follow(db: Database, settings: Settings, owner: str) -> Settings:
    """Return the settings that a process with a file follows."""
    stream_id = Ledger(db).find_stream(STREAM)
    assert stream_id is not None
    shared = SharedSettings(settings, STREAM, SettingsStore(db), owner=owner)
    shared.join(stream_id)
    shared.read_rules()
    shared.leave()
    return shared.effective()


def test_first_model_finds_the_sizes_and_the_daemon_uses_them(ran: DaemonRun) -> None:
    assert found_sizes(ran.db) == FOUND
    lengths = ran.rows("SELECT DISTINCT window_end_us - window_start_us FROM windows")
    assert lengths == [(3_600_000_000,)]
    assert ran.rows("SELECT DISTINCT percentile FROM thresholds") == [(99.0,)]
    assert ran.rows("SELECT window_size_us, lead_us FROM streams") == [(3_600_000_000, 7_210_000_000)]


def test_another_process_follows_the_found_sizes(ran: DaemonRun) -> None:
    stream = follow(ran.db, ran.settings, "other").streams[STREAM]
    assert (stream.window.size, stream.window.ahead) == (timedelta(hours=1), timedelta(hours=2))
    assert (stream.threshold.percentile, stream.threshold.look_back) == (99.0, timedelta(days=18))
    assert stream.model.warm_up == 400


def test_back_tests_use_the_found_sizes_and_equal_the_daemon(ran: DaemonRun, tmp_path: Path) -> None:
    wanted = expected(ran)
    assert min(map(len, wanted)) > 1
    without_model = ran.settings.model_copy(
        update={"database": type(ran.settings.database)(url=f"sqlite:///{tmp_path / 'none.db'}")}
    )
    for settings, file in ((ran.settings, ran.file), (ran.settings, None), (without_model, ran.file)):
        result = backtest(settings, STREAM, file, percentiles=[99.0], false_alarms=["1/week"])
        assert (thresholds(result), windows(result), incidents(result)) == wanted
    grid = backtest(without_model, STREAM, ran.file, false_alarms=["1/week"])
    assert [cell.percentile for cell in grid.cells] == [99.0, 99.5, 99.9]


def test_a_restart_keeps_the_found_sizes_when_the_rate_has_changed(tmp_path: Path) -> None:
    with run_daemon_over(tmp_path, records_every_5_minutes(), **AUTO) as first:
        sizes, revision = found_sizes(first.db), first.rows("SELECT settings_revision FROM streams")
        last_s = 1_767_225_600 + 300 * N
        with first.file.open("ab") as file:
            for i, record in enumerate(records_every_5_minutes(600)):
                file.write(json.dumps({**json.loads(record), "ts": last_s + i, "id": N + i}).encode() + b"\n")
        source = {"type": "file", "path": str(first.file)}
        event = {"time": {"field": "ts"}, "id": "id", "features": ["x0", "x1", "x2"]}
        again = {
            "database": {"url": first.settings.database.url},
            "device": "cpu",
            "streams": {STREAM: {"source": source, "event": event, "alerts": {"reopen_within": "0s"}, **AUTO}},
        }
        with closing(DaemonProcess(tmp_path, again)) as daemon:
            assert daemon.start().wait() == 0, daemon.tail()
        assert first.rows("SELECT count(*) FROM score_history") == [(N + 600,)]
        assert (found_sizes(first.db), first.rows("SELECT settings_revision FROM streams")) == (sizes, revision)
        assert first.rows("SELECT DISTINCT window_end_us - window_start_us FROM windows") == [(3_600_000_000,)]


def test_a_number_in_force_stays_when_the_file_changes_to_auto(tmp_path: Path) -> None:
    fixed = {**AUTO, "window": {"size": "30m"}, "threshold": {"percentile": 98, "look_back": "2d", "refresh": "1h"}}
    with run_daemon_over(tmp_path, records_every_5_minutes(600), **fixed) as run:
        auto = replace(run, settings=Settings.model_validate(_with_auto(run.settings)))
        stream = follow(run.db, auto.settings, "new").streams[STREAM]
        assert (stream.window.size, stream.threshold.percentile) == (timedelta(minutes=30), 98.0)


def _with_auto(settings: Settings) -> dict[str, object]:
    written = settings.model_dump(mode="json")
    stream = written["streams"][STREAM]
    stream["window"] |= {"size": "auto", "ahead": "auto"}
    stream["threshold"] |= {"percentile": "auto", "look_back": "auto"}
    return written
