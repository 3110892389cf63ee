"""Every call to the database, on every thread of the daemon, survives one failure without a restart of its stream.

The calls are found by the functions of `storage` that open a transaction, so that new methods are covered at once.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from config.errors import StorageUnavailable
from config.settings import Settings
from monitor.daemon.daemon import Daemon
from monitor.pipeline import intake, retry
from storage.database.engine import Database
from storage.database.errors import CommitUnknown
from tests.integration.control.worker_bench import count_rows, fetch_rows

N = 2_000
ROLES = ("intake", "worker", "control")


def run_daemon(url: str) -> None:
    source = {"type": "synthetic", "seed": 3, "rate": 20, "events": N, "speed": 0, "start": "2026-01-01T00:00:00Z",
              "partitions": 2, "first_burst": "50s", "burst_every": "60s", "burst_length": "10s"}  # fmt: skip
    stream = {
        "source": source,
        "model": {"warm_up": 300, "n_components": 1},
        "threshold": {"percentile": 95, "look_back": "1h", "refresh": "20s"},
        "window": {"size": "2s", "grace": "2s", "ahead": "30s", "idle_timeout": "1s"},
        "alerts": {"drift": {"horizons": ["10s", "30s"]}},
    }
    settings = {"database": {"url": url}, "device": "cpu", "streams": {"payments": stream}}
    Daemon(Settings.model_validate(settings)).run()


class FailingOnce:
    """Lets each call of a storage function on each thread fail at its first transaction.

    The transaction fails before it begins, or, if it writes and `after_commit` is set, after it was committed.

    Attributes:
        failed: The calls that have failed: function and role of the thread.
    """

    def __init__(self, *, after_commit: bool) -> None:
        self.failed: set[tuple[str, str]] = set()
        self._after_commit = after_commit
        self._lock = threading.Lock()

    def is_first(self, name: str, role: str) -> bool:
        with self._lock:
            if (name, role) in self.failed:
                return False
            self.failed.add((name, role))
            return True

    def wrap(self, original: Callable[..., Any], *, writes: bool) -> Callable[..., Any]:
        @contextmanager
        def transaction(db: Database) -> Iterator[Any]:
            call = _find_call()
            fails = call is not None and self.is_first(call, _find_role())
            if fails and not (self._after_commit and writes):
                raise StorageUnavailable("the connection was lost")
            with original(db) as connection:
                yield connection
            if fails:
                raise CommitUnknown("the outcome of a commit is unknown")

        return transaction


def _find_call() -> str | None:
    """Return the outermost function of `storage` on the stack, as module and qualified name; None for a test."""
    frame, found = sys._getframe(1), None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("storage.") and not module.startswith("storage.database.engine"):
            found = f"{module}.{frame.f_code.co_qualname}"
        if module.startswith("storage.database.engine") and frame.f_code.co_name in {"now_us", "check_schema"}:
            found = found or f"{module}.{frame.f_code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]
    return found


def _find_role() -> str:
    role = threading.current_thread().name.rpartition("-")[2]
    return role if role in ROLES else threading.current_thread().name.partition("_")[0].partition("-")[0]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((intake, "_BACKOFF_S"), (retry, "_INITIAL_BACKOFF_S")):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr("monitor.daemon.stream_runner._BACKOFF_S", 0.01)


def rows_of(db: Database) -> dict[str, list[tuple[object, ...]]]:
    return {
        "scores": fetch_rows(db, "SELECT partition, source_offset, energy, threshold FROM score_history ORDER BY 1, 2"),
        "windows": fetch_rows(db, "SELECT window_start_us, events, outliers, late FROM windows ORDER BY 1"),
        "incidents": fetch_rows(db, "SELECT kind, window_start_us, status FROM incidents ORDER BY 1, 2"),
        "thresholds": fetch_rows(db, "SELECT computed_at_us, threshold FROM thresholds ORDER BY 1"),
    }


@pytest.mark.timeout(120)
@pytest.mark.parametrize("after_commit", [False, True], ids=["lost", "unknown"])
def test_each_call_fails_once_on_each_thread_and_the_rows_are_those_of_an_undisturbed_run(
    after_commit: bool,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    undisturbed = sqlite_url.replace("outrider.db", "undisturbed.db")
    run_daemon(undisturbed)
    failing = FailingOnce(after_commit=after_commit)
    monkeypatch.setattr(Database, "read", failing.wrap(Database.read, writes=False))
    monkeypatch.setattr(Database, "write", failing.wrap(Database.write, writes=True))
    run_daemon(sqlite_url)
    monkeypatch.undo()
    assert not [each for each in caplog.records if getattr(each, "action", "") == "stopped"], "the stream restarted"
    with Database(sqlite_url) as db, Database(undisturbed) as reference:
        assert rows_of(db) == rows_of(reference)
        assert count_rows(db, "scores") == N
    by_role = {role: {name for name, of in failing.failed if of == role} for role in ("payments", *ROLES)}
    assert all(len(names) >= 3 for names in by_role.values()), by_role
