"""Measure `Ledger.commit` on both databases: `python -m tests.integration.storage.measure_commits [ROWS] [COMMITS]`.

Print rows per second, milliseconds per commit and CPU time of the client, without and with keys and ids. PostgreSQL
waits for the disk at each commit, as in production. Each commit has 0.5% outliers with 8 features and one part.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.ledger.commit import Committed, OutlierColumns, ScoreColumns
from storage.ledger.ledger import Ledger
from tests.integration.storage.commits import T0, ClaimedStream, claim_stream, part_row
from tests.servers.postgres import PostgresServer


def main(rows: int, commits: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _measure(f"sqlite:///{Path(folder) / 'outrider.db'}", rows, commits)
    server = PostgresServer(durable=True)
    server.start()
    try:
        _measure(server.create_database(), rows, commits)
    finally:
        server.close()


def _measure(url: str, rows: int, commits: int) -> None:
    with Database(url) as db:
        upgrade(db)
        for partition, texts in enumerate((False, True)):
            feed = claim_stream(db, partition=partition)
            measured = [_commit(feed, rows, texts=texts) for _ in range(commits + 2)][2:]
            durations, cpu = (np.array(column) for column in zip(*measured, strict=True))
            low, middle, high = np.percentile(durations, [10, 50, 99]) * 1000
            print(
                f"{db.dialect:10} {'with keys and ids' if texts else 'without':17} "
                f"{commits * rows / durations.sum():9.0f} rows/s   p10 {low:.1f} p50 {middle:.1f} p99 {high:.1f} ms   "
                f"client CPU {cpu.sum() / commits / rows * 1e6:.2f} us/row"
            )


def _commit(feed: ClaimedStream, n: int, *, texts: bool) -> tuple[float, float]:
    """Commit n events; return the elapsed time and the CPU time of this process, in seconds."""
    offsets = np.arange(feed.claim.next_offset, feed.claim.next_offset + n)
    rng = np.random.default_rng(n)
    names = [f"customer-{i}" for i in offsets] if texts else None
    scores = ScoreColumns(
        offsets=offsets,
        times_us=T0 + offsets * 1000,
        energies=rng.normal(size=n).astype(np.float32),
        threshold_ids=np.full(n, feed.threshold_id),
        keys=names,
        ids=names,
    )
    first = slice(0, n // 200)
    outliers = OutlierColumns(
        offsets=offsets[first],
        times_us=scores.times_us[first],
        energies=scores.energies[first],
        threshold_ids=scores.threshold_ids[first],
        features=rng.normal(size=(n // 200, 8)).astype(np.float32),
        feature_names=tuple("abcdefgh"),
    )
    commit = feed.build_commit(n, scores=scores, outliers=outliers, parts=[part_row(T0, events=n)])
    begin, cpu_begin = time.perf_counter(), time.process_time()
    outcome = Ledger(feed.db).commit(commit)
    durations = time.perf_counter() - begin, time.process_time() - cpu_begin
    assert isinstance(outcome, Committed)
    feed.claim = feed.reclaim("me")
    return durations


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    main(*(numbers + [10_000, 30][len(numbers) :]))
