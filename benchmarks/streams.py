"""Measure the delay of the judgement with many streams in one daemon: judged at, minus window end and grace.

    python benchmarks/streams.py --streams 50 --seconds 30 [--database postgresql]

Each stream has windows of 1 s and 20 events per second. The target is that every window is judged within 5 s.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from config.errors import OutriderError
from storage.database.engine import Database

GRACE_S = 1.0


def stream_settings() -> dict[str, object]:
    return {
        "source": {"type": "synthetic", "rate": 20, "features": 4},
        "model": {"warm_up": 100, "n_components": 1},
        "window": {"size": "1s", "grace": f"{GRACE_S:.0f}s", "idle_timeout": "10s"},
        "threshold": {"percentile": 95, "refresh": "1m", "look_back": "10m"},
    }


@contextlib.contextmanager
def open_database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'outrider.db'}"
        return
    from tests.servers.postgres import PostgresServer

    server = PostgresServer()
    try:
        server.start()
        yield server.create_database()
    finally:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, open_database(options.database, Path(name)) as url:
        settings = {
            "database": {"url": url},
            "device": "cpu",
            "streams": {f"s{i:03d}": stream_settings() for i in range(options.streams)},
        }
        config = Path(name) / "outrider.yaml"
        config.write_text(json.dumps(settings))
        with (Path(name) / "log").open("wb") as log:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "monitor.cli.main", "-c", str(config), "run"],
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        try:
            with Database(url) as db:
                wait_for_models(db, options.streams, daemon)
                began_us = time.time_ns() // 1_000 + 5_000_000  # the events of the warm-up are scored first
                time.sleep(5 + options.seconds)
                report(db, began_us, options.streams, (Path(name) / "log").read_text())
        finally:
            daemon.terminate()
            daemon.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"CPU of the daemon: {used.ru_utime + used.ru_stime:.1f} s in all; load of the machine {os.getloadavg()}")


def wait_for_models(db: Database, n: int, daemon: "subprocess.Popen[bytes]") -> None:
    began_s = time.monotonic()
    while time.monotonic() - began_s < 120:
        assert daemon.poll() is None, "the daemon has ended"
        with contextlib.suppress(OutriderError, sa.exc.DBAPIError), db.read() as conn:
            if conn.scalar(sa.text("SELECT count(*) FROM models")) == n:
                print(f"all {n} streams have a model after {time.monotonic() - began_s:.1f} s")
                return
        time.sleep(0.2)
    raise SystemExit("the streams have no model after 120 s")


def report(db: Database, began_us: int, n_streams: int, log: str) -> None:
    query = """SELECT stream_id, window_end_us, judged_at_us FROM windows
        WHERE window_end_us > :began AND judged_at_us IS NOT NULL"""
    with db.read() as conn:
        now_us = db.now_us(conn)
        rows = conn.execute(sa.text(query), {"began": began_us}).all()
        stopped = conn.scalar(sa.text("SELECT count(*) FROM incidents WHERE kind = 'stopped'"))
    if not rows:
        raise SystemExit(f"no window was judged; the end of the log:\n{log[-2_000:]}")
    ends, judged = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    delay_s = (judged - ends) / 1e6 - GRACE_S
    last = {row[0]: 0 for row in rows}
    for stream, end_us, _ in rows:
        last[stream] = max(last[stream], end_us)
    missing_s = max((now_us - end_us) / 1e6 - GRACE_S for end_us in last.values())
    p50, p99 = np.percentile(delay_s, [50, 99])
    print(
        f"{len(last)} of {n_streams} streams, {len(rows):,} windows: judged after end + grace by p50 {p50:.2f} s, "
        f"p99 {p99:.2f} s, maximum {delay_s.max():.2f} s; the oldest newest judged window ended {missing_s:.2f} s ago"
    )
    print(f"incidents of kind stopped: {stopped}; jobs skipped: {log.count('skipped')}; retries: {log.count('again')}")


if __name__ == "__main__":
    main()
