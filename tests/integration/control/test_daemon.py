"""The daemon to the end of its input: every source read, every window judged, every message told."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError, ModelError
from config.settings import Settings
from monitor.daemon import Daemon
from storage.engine import Database
from storage.tables import FOREVER_US
from tests.integration.control.feeding import SECOND, T0, count, rows


def run(url: str, source: dict[str, Any], **stream: Any) -> None:
    own = {
        "source": source,
        "model": {"warm_up": 300, "n_components": 1},
        "threshold": {"percentile": 95, "look_back": "1h"},
        "window": {"size": "10s", "grace": "2s", "ahead": "1m", "idle_timeout": "2s"},
    }
    settings = {"database": {"url": url}, "device": "cpu", "streams": {"payments": own | stream}}
    Daemon(Settings.model_validate(settings)).run()


def test_several_partitions_are_all_read_to_their_end(database_url: str) -> None:
    source = {"type": "synthetic", "seed": 3, "rate": 20, "events": 2_000, "speed": 0, "partitions": 3}
    run(database_url, source | {"start": "2026-01-01T00:00:00Z"})
    with Database(database_url) as db:
        assert rows(db, "SELECT count(*), count(DISTINCT idle_until_us) FROM positions") == [(3, 1)]
        assert rows(db, "SELECT min(idle_until_us) FROM positions") == [(FOREVER_US,)]
        assert count(db, "scores") == 2_000
        assert count(db, "window_parts") == 0
        assert int(str(rows(db, "SELECT sum(events + late) FROM windows")[0][0])) == 2_000
        assert count(db, "leases") == 0


def test_a_spike_in_a_file_is_told_before_the_daemon_ends(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "events.jsonl"
    with file.open("w") as out:
        for i in range(3_000):
            strange = 2_000 <= i < 2_060
            x = (900.0 if strange else 1.0) * ((i * 7919) % 1000 - 500)
            out.write(json.dumps({"x": x, "y": (i * 104729) % 997, "ts": T0 / SECOND + i / 10}) + "\n")
    with caplog.at_level(logging.INFO, "outrider.incidents"):
        run(sqlite_url, {"type": "file", "path": str(file)}, event={"time": {"field": "ts", "unit": "s"}})
    lines = [record.getMessage() for record in caplog.records if record.name == "outrider.incidents"]
    assert any("spike opened" in line for line in lines)
    with Database(sqlite_url) as db:
        assert rows(db, "SELECT DISTINCT state FROM notifications") == [("delivered",)]
        assert count(db, "scores") == 3_000


def test_what_ends_a_stream_against_its_will_ends_the_daemon_with_its_reason(sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"x": 1}\n{"x": 2}\n')
    with pytest.raises(ModelError, match="the input ended after 2 usable events"):
        run(sqlite_url, {"type": "file", "path": str(file)})
    file.write_text("")
    with pytest.raises(ConfigError, match="is the input empty"):
        run(f"sqlite:///{tmp_path / 'empty.db'}", {"type": "file", "path": str(file)})
