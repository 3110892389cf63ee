"""Measure the reads that people run on a long history: `python -m benchmarks.questions [ROWS] [postgresql]`.

Fill a database with ROWS scores (default 10,000,000) of 4 partitions over 10 days, 0.1% of them outliers, with one
range of commits per second as a live stream leaves it. Then print, for each question, the wall time and the CPU time of
the client; SQLite runs inside the client. Each time is the smaller one of two runs.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.database.tables import commit_ranges, scores
from storage.history import History
from storage.ledger.commit import Committed, OutlierColumns, ScoreColumns
from storage.ledger.ledger import Ledger
from tests.integration.storage.commits import T0, ClaimedStream, claim_stream
from tests.servers.postgres import PostgresServer

PARTITIONS = 4
DAYS = 10
COMMIT_ROWS = 20_000
OUTLIER_SHARE = 0.001
DAY_US = 86_400_000_000
END_US = T0 + DAYS * DAY_US


def main(rows: int, *, on_postgresql: bool) -> None:
    if not on_postgresql:
        with tempfile.TemporaryDirectory() as folder:
            _measure(f"sqlite:///{Path(folder) / 'outrider.db'}", rows)
        return
    server = PostgresServer()
    server.start()
    try:
        _measure(server.create_database(), rows)
    finally:
        server.close()


def _measure(url: str, rows: int) -> None:
    with Database(url) as db:
        upgrade(db)
        begin = time.perf_counter()
        _fill(db, rows)
        print(f"{db.dialect}: {rows} scores stored in {time.perf_counter() - begin:.0f} s")
        print(f"{'question':76} {'wall s':>8} {'CPU s':>8} {'rows':>8}")
        for name, ask in {**_sql_questions(db), **_history_questions(url)}.items():
            _print_fastest(name, ask)
        _print_fastest("outrider history payments --since 1h --format csv", lambda: _run_command(url))


def _fill(db: Database, rows: int) -> None:
    feeds = [claim_stream(db, partition=partition) for partition in range(PARTITIONS)]
    ledger = Ledger(db)
    for begin in range(0, rows // PARTITIONS, COMMIT_ROWS):
        for feed in feeds:
            _commit(ledger, feed, begin, min(COMMIT_ROWS, rows // PARTITIONS - begin), rows)
    _split_ranges(db, max(1, rows // PARTITIONS // (DAYS * 86_400)))
    if db.dialect == "postgresql":
        with db.write() as connection:
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0; ANALYZE")


def _commit(ledger: Ledger, feed: ClaimedStream, begin: int, n: int, rows: int) -> None:
    offsets = np.arange(begin, begin + n)
    rng = np.random.default_rng(begin)
    times_us = T0 + offsets * (DAYS * DAY_US // (rows // PARTITIONS))
    energies = rng.normal(size=n).astype(np.float32)
    threshold_ids = np.full(n, feed.threshold_id)
    is_outlier = rng.random(n) < OUTLIER_SHARE
    energies[is_outlier] += 20
    outliers = OutlierColumns(
        offsets=offsets[is_outlier],
        times_us=times_us[is_outlier],
        energies=energies[is_outlier],
        threshold_ids=threshold_ids[is_outlier],
        features=rng.normal(size=(int(is_outlier.sum()), 8)).astype(np.float32),
        feature_names=tuple("abcdefgh"),
    )
    columns = ScoreColumns(offsets=offsets, times_us=times_us, energies=energies, threshold_ids=threshold_ids)
    commit = feed.build_commit(
        n, begin=begin, end=begin + n, scores=columns, outliers=outliers, watermark_us=int(times_us[-1])
    )
    assert isinstance(ledger.commit(commit), Committed)


def _split_ranges(db: Database, events: int) -> None:
    """Replace the ranges by ranges of `events` events each, as commits of a live stream leave them."""
    group = (scores.c.source_offset // events).label("part")
    lowest, highest = sa.func.min, sa.func.max
    offset, time_us = scores.c.source_offset, scores.c.event_time_us
    select = sa.select(
        scores.c.source_id,
        lowest(offset),
        highest(offset),
        sa.func.count(),
        lowest(time_us),
        highest(time_us),
        lowest(scores.c.stored_at_us),
    ).group_by(scores.c.source_id, group)
    names = ["source_id", "first_offset", "last_offset", "events", "min_time_us", "max_time_us", "stored_at_us"]
    with db.write() as connection:
        if db.dialect == "postgresql":
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.execute(sa.delete(commit_ranges))
        connection.execute(sa.insert(commit_ranges).from_select(names, select))


def _sql_questions(db: Database) -> dict[str, Callable[[], int]]:
    middle_us = T0 + DAYS * DAY_US // 2
    minutes_us = 60_000_000
    end_us = middle_us + 5 * minutes_us

    def ask(statement: str) -> Callable[[], int]:
        def run() -> int:
            with db.read() as connection:
                if db.dialect == "postgresql":
                    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                return len(connection.execute(sa.text(statement)).all())

        return run

    middle = "2026-01-06T00:00:00.000000Z"
    later = "2026-01-06T00:05:00.000000Z"
    newest = "stored_day DESC, source_offset DESC" if db.dialect == "postgresql" else "source_offset DESC"
    statements = {
        "5 minutes of score_history by event_time_us": "SELECT * FROM score_history WHERE stream = 'payments' "
        f"AND event_time_us >= {middle_us} AND event_time_us < {end_us}",
        "5 minutes of score_history by event_time": "SELECT * FROM score_history WHERE stream = 'payments' "
        f"AND event_time >= '{middle}' AND event_time < '{later}'",
        "newest 100 scores of a stream by event_time_us": "SELECT * FROM score_history WHERE stream = 'payments' "
        "ORDER BY event_time_us DESC LIMIT 100",
        "newest 100 scores of a partition": "SELECT * FROM score_history WHERE source_id = 1 "
        f"ORDER BY {newest} LIMIT 100",
        "one event by partition and offset": "SELECT * FROM score_history WHERE stream = 'payments' "
        "AND partition = 2 AND source_offset = 100000",
        "1 hour of outlier_history by event_time_us": "SELECT * FROM outlier_history WHERE stream = 'payments' "
        f"AND event_time_us >= {middle_us} AND event_time_us < {middle_us + 60 * minutes_us}",
        "newest 50 outliers by event_time_us": "SELECT * FROM outlier_history ORDER BY event_time_us DESC LIMIT 50",
    }
    return {name: ask(statement) for name, statement in statements.items()}


def _history_questions(url: str) -> dict[str, Callable[[], int]]:
    def ask(**bounds: object) -> Callable[[], int]:
        def run() -> int:
            with History(url) as history:
                return sum(len(batch["energy"]) for batch in history.scores("payments", **bounds))  # type: ignore[arg-type]

        return run

    return {
        "History.scores(since='1h')": ask(since="1h"),
        "History.scores(1 hour in the middle)": ask(since="2026-01-06T00:00:00Z", until="2026-01-06T01:00:00Z"),
        "History.scores(limit=100)": ask(limit=100),
        "History.scores(since='1h', outliers=True)": ask(since="1h", outliers=True),
    }


def _run_command(url: str) -> int:
    command = [sys.executable, "-m", "monitor.cli.main", "history", "payments", "--since", "1h", "--format", "csv"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outrider.yaml"
        path.write_text(f"database: {{url: '{url}'}}\nstreams: {{payments: {{source: {{type: synthetic}}}}}}\n")
        done = subprocess.run([*command[:3], "--config", str(path), *command[3:]], capture_output=True, check=True)
    return done.stdout.count(b"\n") - 1


def _print_fastest(name: str, ask: Callable[[], int]) -> None:
    runs = []
    for _ in range(2):
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin, cpu = time.perf_counter(), time.process_time()
        n = ask()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = time.process_time() - cpu + after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
        runs.append((time.perf_counter() - begin, cpu_s, n))
    wall_s, cpu_s, n = min(runs)
    print(f"{name:76} {wall_s:8.3f} {cpu_s:8.3f} {n:8}", flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(next((each for each in arguments if each.isdigit()), "10000000")), on_postgresql="postgresql" in arguments)
