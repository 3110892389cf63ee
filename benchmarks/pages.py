"""Time of every view of the page at the server, first and warm, with many streams and a long history.

    python -m benchmarks.pages [--database postgresql] [--streams 50] [--days 90] [--repeats 10] [--browser]

One stream is written by a daemon, with incidents, a model and thresholds; the others are made as by
`benchmarks.read_model`, and reach back `--days`. Then `outrider serve` is started in a process of its own. The first
view of each kind is the first request that the process answers to it; a warm one is the median of the repeats. For
each, the time at the client and the CPU time of the server's process are printed. With `--browser`, Chromium opens
each view three times, and two medians are printed: the time of the largest paint, and that of the last change of the
document, which is the drawing of its last chart or panel.
"""

import argparse
import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import sqlalchemy as sa
import yaml

from benchmarks.read_model import T0, fill_stream
from config.settings import Settings
from config.time_format import DAY_US, SECOND_US
from monitor.daemon.daemon import Daemon
from storage.database import tables
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from tests.servers.postgres import PostgresServer

_LISTEN = "127.0.0.1:18081"
_STREAM = "payments"
_HOURS = 30
_RATE = 5
_OPENINGS = 3


def main() -> None:
    """Make the database, serve it, and print the times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--browser", action="store_true")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder}/outrider.db"
        if arguments.database == "postgresql":
            url = stack.enter_context(PostgresServer()).create_database()
        settings = build_settings(url, arguments.days)
        incidents = fill(settings, arguments.streams, arguments.days)
        config = folder / "outrider.yaml"
        config.write_text(yaml.safe_dump(settings))
        server = stack.enter_context(serve(config))
        views = list_views(incidents)
        print(
            f"{arguments.database}, {arguments.streams} streams, {arguments.days} days; load {os.getloadavg()[0]:.1f}"
        )
        time_views(server.pid, views, arguments.repeats)
        if arguments.browser:
            time_paints(views)


def build_settings(url: str, days: int) -> dict[str, Any]:
    """Return settings with a synthetic stream that ends with the history of the other streams."""
    begin_us = T0 + days * DAY_US - _HOURS * 3600 * SECOND_US
    source = {
        "type": "synthetic", "seed": 3, "rate": _RATE, "events": _HOURS * 3600 * _RATE, "speed": 0, "features": 6,
        "start": datetime.fromtimestamp(begin_us / SECOND_US, UTC).isoformat(),
        "first_burst": "8h", "burst_every": "4h", "burst_length": "5m", "burst_share": 0.3,
    }  # fmt: skip
    stream = {
        "source": source,
        "event": {"time": {"field": "ts"}, "id": "id"},
        "model": {"n_components": 2, "warm_up": 5_000},
        "threshold": {"refresh": "10m", "look_back": "1d"},
        "alerts": {"drift": {"horizons": ["1h"]}},
    }
    return {"database": {"url": url}, "streams": {_STREAM: stream}, "server": {"listen": _LISTEN}}


def fill(settings: dict[str, Any], streams: int, days: int) -> list[int]:
    """Write all rows; return the ids of the daemon's incidents."""
    with Database(settings["database"]["url"]) as db:
        upgrade(db)
        options = SimpleNamespace(days=days, window=900, rollups_only=False)
        for stream in range(2, streams + 1):
            fill_stream(db, stream, options)
        reserve_ids(db, streams)
        Daemon(Settings.model_validate(settings)).run()
        with db.write() as conn:
            if db.dialect == "postgresql":
                conn.exec_driver_sql("ANALYZE")
        with db.read() as conn:
            name = sa.select(tables.streams.c.id).where(tables.streams.c.name == _STREAM).scalar_subquery()
            table = tables.incidents.c
            found = conn.execute(sa.select(table.id).where(table.stream_id == name).order_by(table.id.desc()))
            return [int(each) for (each,) in found]


def reserve_ids(db: Database, streams: int) -> None:
    """Let PostgreSQL give ids behind those that were inserted with a number."""
    if db.dialect != "postgresql":
        return
    with db.write() as conn:
        for table in ("streams", "models", "thresholds"):
            conn.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {streams + 1})")


def list_views(incidents: list[int]) -> Mapping[str, list[str]]:
    """Return the addresses of each view; the first one is the first that the server answers."""
    return {
        "overview": ["/"],
        "incidents": ["/incidents"],
        "incident": [f"/incidents/{each}" for each in incidents],
        "stream, 24 h": [f"/streams/{_STREAM}"],
        "stream, 28 d": ["/streams/stream_2?range=28d"],
        "models": [f"/streams/{_STREAM}/models"],
    }


@contextlib.contextmanager
def serve(config: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run `outrider serve` until the block ends; enter it when the address was announced."""
    command = [sys.executable, "-m", "monitor.cli.main", "-c", str(config), "serve"]
    began_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            print(f"announced after {time.perf_counter() - began_s:.1f} s, CPU {read_cpu_ms(process.pid) / 1e3:.1f} s")
            yield process
        finally:
            process.terminate()


def read_cpu_ms(pid: int) -> float:
    """Return the CPU time of all threads of a process in ms."""
    spent_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            spent_ns += int((task / "schedstat").read_text().split()[0])
    return spent_ns / 1e6


def time_views(pid: int, views: Mapping[str, list[str]], repeats: int) -> None:
    """Print the first and the warm times of each view."""
    for name, paths in views.items():
        first = time_view(pid, paths[0])
        others = [time_view(pid, path) for path in paths[1:]]
        warm = [time_view(pid, paths[0]) for _ in range(repeats)]
        wall_ms, cpu_ms, size = (float(np.median(column)) for column in zip(*warm, strict=True))
        line = f"{name:13} first {first[0]:6.0f} ms (CPU {first[1]:4.0f})   warm {wall_ms:5.0f} ms (CPU {cpu_ms:4.0f})"
        if others:
            walls, cpus, _ = (float(np.median(column)) for column in zip(*others, strict=True))
            line += f"   others first {walls:5.0f} ms (CPU {cpus:4.0f}), n = {len(others)}"
        print(f"{line}   {size / 1e3:.0f} kB", flush=True)


def time_view(pid: int, path: str) -> tuple[float, float, int]:
    """Return the time, the CPU time of the server in ms, and the number of bytes."""
    cpu_ms, began_s = read_cpu_ms(pid), time.perf_counter()
    connection = http.client.HTTPConnection(_LISTEN, timeout=60)
    connection.request("GET", path, headers={"Accept": "text/html"})
    answer = connection.getresponse()
    body = answer.read()
    taken_ms = 1e3 * (time.perf_counter() - began_s)
    connection.close()
    assert answer.status == 200, f"{path}: {answer.status} {body[:300]!r}"
    return taken_ms, read_cpu_ms(pid) - cpu_ms, len(body)


_WATCH_PAINTS = """
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.lastPaintMs = Math.max(window.lastPaintMs || 0, entry.startTime);
}).observe({ type: "largest-contentful-paint", buffered: true });
new MutationObserver(() => { window.lastChangeMs = performance.now(); })
  .observe(document, { subtree: true, childList: true });
"""
_WHEN_PAINTED = """() => new Promise((done) => requestAnimationFrame(() => setTimeout(
  () => done([window.lastPaintMs || 0, window.lastChangeMs || 0]), 0)))"""


def time_paints(views: Mapping[str, list[str]]) -> None:
    """Open each view in Chromium and print the median time to the last paint."""
    from playwright.sync_api import sync_playwright

    from tests.servers.browser import find_chromium

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(find_chromium()), args=["--no-sandbox"])
        for name, paths in views.items():
            found = []
            for _ in range(_OPENINGS):
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                page.add_init_script(_WATCH_PAINTS)
                page.goto(f"http://{_LISTEN}{paths[0]}", wait_until="load")
                page.wait_for_timeout(1_000)
                found.append(page.evaluate(_WHEN_PAINTED))
                page.close()
            paint_ms, change_ms = np.median(np.array(found), axis=0)
            print(f"{name:13} largest paint {paint_ms:5.0f} ms, last change of the document {change_ms:5.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
