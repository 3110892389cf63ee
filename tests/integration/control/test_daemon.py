"""The daemon up to the end of its input: every source read, every window judged, every message delivered."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from config.errors import ConfigError, ModelError
from config.settings import Settings
from monitor.daemon.daemon import Daemon
from storage.database.engine import Database
from storage.database.tables import FOREVER_US, outliers, positions, scores
from tests.integration.control.worker_bench import SECOND, T0, count_rows, fetch_rows


def run(url: str, source: dict[str, Any], **stream: Any) -> None:
    own = {
        "source": source,
        "model": {"warm_up": 300, "n_components": 1},
        "threshold": {"percentile": 95, "look_back": "1h"},
        "window": {"size": "10s", "grace": "2s", "ahead": "1m", "idle_timeout": "2s"},
    }
    settings = {"database": {"url": url}, "device": "cpu", "streams": {"payments": own | stream}}
    Daemon(Settings.model_validate(settings)).run()


def test_all_partitions_are_read_to_their_end(database_url: str) -> None:
    source = {"type": "synthetic", "seed": 3, "rate": 20, "events": 2_000, "speed": 0, "partitions": 3}
    run(database_url, source | {"start": "2026-01-01T00:00:00Z"})
    with Database(database_url) as db:
        assert fetch_rows(db, "SELECT count(*), count(DISTINCT idle_until_us) FROM positions") == [(3, 1)]
        assert fetch_rows(db, "SELECT min(idle_until_us) FROM positions") == [(FOREVER_US,)]
        assert count_rows(db, "scores") == 2_000
        assert count_rows(db, "window_parts") == 0
        assert int(str(fetch_rows(db, "SELECT sum(events + late) FROM windows")[0][0])) == 2_000
        assert count_rows(db, "leases") == 0


def test_a_spike_in_a_file_is_notified_before_the_daemon_ends(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "events.jsonl"
    with file.open("w") as out:
        for i in range(3_000):
            anomalous = 2_000 <= i < 2_060
            x = (900.0 if anomalous else 1.0) * ((i * 7919) % 1000 - 500)
            out.write(json.dumps({"x": x, "y": (i * 104729) % 997, "ts": T0 / SECOND + i / 10}) + "\n")
    with caplog.at_level(logging.INFO, "outrider.incidents"):
        run(sqlite_url, {"type": "file", "path": str(file)}, event={"time": {"field": "ts", "unit": "s"}})
    lines = [record.getMessage() for record in caplog.records if record.name == "outrider.incidents"]
    assert any("spike opened" in line for line in lines)
    with Database(sqlite_url) as db:
        assert fetch_rows(db, "SELECT DISTINCT state FROM notifications") == [("delivered",)]
        assert count_rows(db, "scores") == 3_000


def test_features_configured_after_the_fit_are_reported_and_not_used(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = {"type": "synthetic", "seed": 3, "rate": 20, "events": 600, "speed": 0, "start": "2026-01-01T00:00:00Z"}
    run(sqlite_url, source)
    assert "event.features differs" not in caplog.text
    run(sqlite_url, source, event={"features": ["x0"]})
    assert "event.features differs from the" in caplog.text
    with Database(sqlite_url) as db:
        assert count_rows(db, "models") == 1


def test_a_removed_source_blocks_no_window_and_continues_when_it_is_configured_again(
    sqlite_url: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    for file, begin in ((first, 0), (second, 600)):
        lines = [{"x": (i * 7919) % 1000, "ts": T0 / SECOND + i / 10} for i in range(begin, begin + 1_200)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    timed = {"time": {"field": "ts", "unit": "s"}}
    run(sqlite_url, {"type": "file", "path": str(first)}, event=timed)
    with Database(sqlite_url) as db:
        # The state after a daemon that was killed in the middle of the file: the source has no stored end.
        with db.write() as conn:
            for table in (scores, outliers):
                conn.execute(sa.delete(table).where(table.c.source_offset >= 1_000))
            conn.execute(sa.update(positions).values(next_offset=1_000, cursor=None, idle_until_us=0))
        run(sqlite_url, {"type": "file", "path": str(second)}, event=timed)
        assert fetch_rows(db, "SELECT count(*) FROM score_history GROUP BY topic ORDER BY topic") == [
            (1_000,),
            (1_200,),
        ]
        assert count_rows(db, "window_parts") == 0
        run(sqlite_url, {"type": "file", "path": str(first)}, event=timed)
        assert fetch_rows(db, "SELECT count(*) FROM score_history GROUP BY topic ORDER BY topic") == [
            (1_200,),
            (1_200,),
        ]
        assert fetch_rows(db, "SELECT DISTINCT incarnation FROM sources") == [(1,)]


def test_a_failed_stream_ends_the_daemon_with_its_error(sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"x": 1}\n{"x": 2}\n')
    with pytest.raises(ModelError, match="the input ended after 2 usable events"):
        run(sqlite_url, {"type": "file", "path": str(file)})
    file.write_text("")
    with pytest.raises(ConfigError, match="is the input empty"):
        run(f"sqlite:///{tmp_path / 'empty.db'}", {"type": "file", "path": str(file)})
