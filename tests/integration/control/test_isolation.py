"""An error of one stream stays in it: the other streams go on, and the stream starts again."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from config.errors import OutriderError
from config.settings import Settings
from monitor.control_plane.control_plane import ControlPlane
from monitor.daemon import stream_supervisor
from monitor.daemon.daemon import Daemon
from monitor.models.warm_up import WarmUp
from monitor.pipeline.intake import Intake
from monitor.pipeline.worker import Worker
from storage.database.engine import Database
from storage.database.tables import models, positions
from tests.integration.control.worker_bench import SECOND, T0, count_rows, fetch_rows

N = 1_500


@pytest.fixture(autouse=True)
def _short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_supervisor, "_FIRST_BACKOFF_S", 0.05)
    monkeypatch.setattr(stream_supervisor, "_MAX_BACKOFF_S", 0.2)


def good_stream() -> dict[str, Any]:
    source = {"type": "synthetic", "seed": 3, "rate": 20, "events": N, "speed": 0, "start": "2026-01-01T00:00:00Z"}
    return stream(source)


def stream(source: dict[str, Any], **sections: Any) -> dict[str, Any]:
    own = {
        "source": source,
        "model": {"warm_up": 300, "n_components": 1},
        "threshold": {"percentile": 95, "look_back": "1h"},
        "window": {"size": "10s", "grace": "2s", "ahead": "1m", "idle_timeout": "2s"},
    }
    return own | sections


def run(url: str, *, fail_fast: bool = False, **streams: dict[str, Any]) -> None:
    settings = {"database": {"url": url}, "device": "cpu", "streams": streams}
    Daemon(Settings.model_validate(settings), fail_fast=fail_fast).run()


def scores_of(db: Database, name: str) -> int:
    with db.read() as conn:
        return int(conn.scalar(sa.text("SELECT count(*) FROM score_history WHERE stream = :s"), {"s": name}) or 0)


def _decimal_commas(folder: Path) -> dict[str, Any]:
    file = folder / "commas.csv"
    file.write_text("temp;load\n1,5;2,5\n")
    return stream({"type": "file", "path": str(file)}, event={"features": ["temp", "load"]})


def _no_such_file(folder: Path) -> dict[str, Any]:
    return stream({"type": "file", "path": str(folder / "absent.jsonl")})


def _empty_file(folder: Path) -> dict[str, Any]:
    file = folder / "empty.jsonl"
    file.write_text("")
    return stream({"type": "file", "path": str(file)})


def _unreadable_parquet(folder: Path) -> dict[str, Any]:
    file = folder / "broken.parquet"
    file.write_bytes(b"PAR1 is not all of it")
    return stream({"type": "file", "path": str(file)})


def _labels_without_a_fit(folder: Path) -> dict[str, Any]:
    own = good_stream()
    return own | {"model": own["model"] | {"kind": "class_conditional"}}


@pytest.mark.parametrize(
    ("make_bad", "reason"),
    [
        (_decimal_commas, "the input ended after 0 usable events"),
        (_no_such_file, "absent.jsonl"),
        (_empty_file, "is the input empty"),
        (_unreadable_parquet, "broken.parquet"),
        (_labels_without_a_fit, "needs labels"),
    ],
)
def test_the_error_of_one_stream_is_stored_and_the_other_stream_goes_on(
    make_bad: Callable[[Path], dict[str, Any]], reason: str, sqlite_url: str, tmp_path: Path
) -> None:
    with pytest.raises(OutriderError, match=reason):
        run(sqlite_url, bad=make_bad(tmp_path), good=good_stream())
    with Database(sqlite_url) as db:
        assert scores_of(db, "good") == N
        rows = fetch_rows(db, "SELECT stream, kind, status, summary FROM incident_history WHERE kind = 'stopped'")
        assert [row[:3] for row in rows] == [("bad", "stopped", "open")]
        assert reason in str(rows[0][3])
        assert fetch_rows(db, "SELECT DISTINCT stream, channel FROM notification_history") == [("bad", "log")]
        assert count_rows(db, "leases") == 0
        assert count_rows(db, "health_reports") == 0


def test_fail_fast_ends_the_daemon_at_the_first_error(sqlite_url: str, tmp_path: Path) -> None:
    endless = good_stream()
    endless["source"] |= {"events": None, "speed": 1}
    with pytest.raises(OutriderError, match="the input ended after 0 usable events"):
        run(sqlite_url, fail_fast=True, bad=_decimal_commas(tmp_path), good=endless)


def _fail_once(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, role: str) -> None:
    """Let a method raise at its first call on a thread of the stream `second`."""
    original = getattr(owner, method)
    failed = threading.Event()

    def fail_first(self: Any, *args: Any, **options: Any) -> Any:
        if threading.current_thread().name == role and not failed.is_set():
            failed.set()
            raise RuntimeError("a defect")
        return original(self, *args, **options)

    monkeypatch.setattr(owner, method, fail_first)


@pytest.mark.parametrize(
    ("owner", "method", "role"),
    [
        (WarmUp, "run", "second"),
        (Intake, "_claim_partitions", "second-intake"),
        (Worker, "_decode", "second-worker"),
        (ControlPlane, "run_due", "second-control"),
    ],
)
def test_a_stream_recovers_from_an_exception_in_any_thread(
    owner: type, method: str, role: str, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_once(monkeypatch, owner, method, role)
    run(sqlite_url, first=good_stream(), second=good_stream())
    with Database(sqlite_url) as db:
        assert (scores_of(db, "first"), scores_of(db, "second")) == (N, N)
        incidents = fetch_rows(db, "SELECT stream, summary FROM incident_history WHERE kind = 'stopped'")
        assert [row[0] for row in incidents] in ([], ["second"])
        assert count_rows(db, "window_parts") == 0
        owners = "SELECT owner FROM positions p JOIN streams s ON s.id = p.stream_id WHERE s.name = 'first'"
        assert str(fetch_rows(db, owners)[0][0]).endswith(":1"), "the other stream has not started again"


def test_a_model_that_cannot_be_loaded_stops_its_stream_only(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    lines = [json.dumps({"x": (i * 7919) % 1000, "ts": T0 / SECOND + i / 10}) for i in range(N)]
    file.write_text("\n".join(lines[:600]) + "\n")
    own = stream({"type": "file", "path": str(file)}, event={"time": {"field": "ts", "unit": "s"}})
    run(database_url, second=own)
    file.write_text("\n".join(lines) + "\n")
    with Database(database_url) as db:
        with db.write() as conn:
            conn.execute(sa.update(models).values(artefact=b"damaged"))
            conn.execute(sa.update(positions).values(idle_until_us=0))
        with pytest.raises(OutriderError, match="is damaged"):
            run(database_url, first=good_stream(), second=own)
        assert (scores_of(db, "first"), scores_of(db, "second")) == (N, 600)
        (row,) = fetch_rows(db, "SELECT stream, summary FROM incident_history WHERE kind = 'stopped'")
        assert row[0] == "second"
        assert "is damaged" in str(row[1])
