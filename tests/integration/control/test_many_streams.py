"""Twenty streams in one daemon: none starves, and the number of connections does not grow with them."""

import threading
from typing import Any

import sqlalchemy as sa

from config.settings import Settings
from monitor.daemon.connections import DAEMON_CONNECTIONS
from monitor.daemon.daemon import Daemon
from storage.database.engine import Database
from tests.integration.control.worker_bench import count_rows, fetch_rows

STREAMS, EVENTS = 20, 400


def stream(seed: int) -> dict[str, Any]:
    source = {"type": "synthetic", "seed": seed, "rate": 20, "events": EVENTS, "speed": 0, "features": 3}
    return {
        "source": source | {"start": "2026-01-01T00:00:00Z"},
        "model": {"warm_up": 100, "n_components": 1},
        "threshold": {"percentile": 95},
        "window": {"size": "2s", "grace": "1s", "ahead": "1m"},
    }


def test_twenty_streams_are_judged_to_their_ends_over_twelve_connections(database_url: str) -> None:
    settings = {"database": {"url": database_url}, "device": "cpu"}
    streams = {f"s{i:02d}": stream(i) for i in range(STREAMS)}
    daemon = Daemon(Settings.model_validate(settings | {"streams": streams}))
    ended, most = threading.Event(), [0]

    def watch() -> None:
        """Keep the largest number of open connections of the daemon; SQLite has none.

        The view also lists processes of the server itself in this database, such as those of autovacuum.
        """
        own = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        with Database(database_url) as db:
            while db.dialect == "postgresql" and not ended.wait(0.1):
                with db.read() as conn:
                    most[0] = max(most[0], int(conn.scalar(sa.text(own)) or 0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        daemon.run()
    finally:
        ended.set()
        watcher.join()
    assert most[0] <= DAEMON_CONNECTIONS
    with Database(database_url) as db:
        assert count_rows(db, "scores") == STREAMS * EVENTS
        assert count_rows(db, "window_parts") == 0
        assert fetch_rows(db, "SELECT count(*) FROM incidents WHERE kind = 'stopped'") == [(0,)]
