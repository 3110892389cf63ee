"""The server on a real socket: live events, a port in use, and the stop with an open viewer."""

import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.errors import ConfigError
from config.server import ServerSettings
from monitor.server.context import ServerContext
from monitor.server.serve import PageServer
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from tests.unit.monitor.server.apps import build_settings, empty_database


@pytest.fixture
def url(tmp_path: Path) -> str:
    return empty_database(tmp_path)


@pytest.fixture
def server(url: str) -> Iterator[PageServer]:
    found = PageServer(ServerContext(build_settings(url, {"listen": "127.0.0.1:0"})))
    found.start()
    yield found
    found.stop()


def next_event(lines: Iterator[bytes]) -> tuple[str, str]:
    name, data = (next(line for line in lines if line.startswith(start)) for start in (b"event: ", b"data: "))
    return name.decode().split()[1], data.decode().partition(" ")[2].strip()


def change_until(db: Database, stream_id: int, told: threading.Event) -> None:
    tick = 0
    while not told.wait(0.2):
        tick += 1
        with db.write() as connection:
            connection.exec_driver_sql(f"UPDATE streams SET last_tick_us = {tick} WHERE id = {stream_id}")


def test_a_change_is_told_to_a_live_viewer_and_the_stop_ends_its_connection(server: PageServer, url: str) -> None:
    with urllib.request.urlopen(f"{server.address}api/v1/live", timeout=20) as answer, Database(url) as db:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert next_event(answer) == ("heartbeat", "{}")
        stream = Ledger(db).open_stream("payments", window_size_us=60_000_000, lead_us=0)
        # The first read of the revisions is the basis: the change is repeated until one is told.
        told = threading.Event()
        changes = threading.Thread(target=change_until, args=(db, stream.id, told))
        changes.start()
        name, data = next_event(answer)
        told.set()
        changes.join()
        assert (name, '"stream": "payments"' in data) == ("revision", True)
        server.stop()
        assert not server.is_running
        assert answer.read().count(b"event: heartbeat") == 0


def test_a_port_in_use_is_a_clear_error(server: PageServer, url: str) -> None:
    listen = server.address.removeprefix("http://").rstrip("/")
    context = ServerContext(build_settings(url), ServerSettings(listen=listen))
    with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1"):
        PageServer(context).start()
