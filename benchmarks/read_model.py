"""Time of each read of pages and API on a database with many streams and a long history.

    python benchmarks/read_model.py [--database postgresql] [--streams 50] [--days 90] [--window 900] [--repeats 20]
    python benchmarks/read_model.py --streams 500 --rollups-only

The first form makes streams with windows of `--days`, their roll-ups, incidents, drift cells and calibrations; the
second one stores roll-ups for `--days` and the windows of the last day only. The payloads of windows have the size of
those of a real run with 6 features. Then each read is repeated, and the median and the slowest time are printed, and
the CPU time of this process, which a busy machine changes less.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # as a script, this folder would be first in the import path

from config.time_format import DAY_US, HOUR_US, SECOND_US  # noqa: E402 -- see above
from monitor.models.feature_histograms import load_feature_histograms  # noqa: E402 -- see above
from monitor.statistics.event_sample import EventSample, encode_sample  # noqa: E402 -- see above
from monitor.statistics.feature_histograms import encode_quantiles  # noqa: E402 -- see above
from storage.control.drift_cells import encode_cells  # noqa: E402 -- see above
from storage.control.rollups import COARSE_US, FINE_US  # noqa: E402 -- see above
from storage.database import tables  # noqa: E402 -- see above
from storage.database.engine import Database  # noqa: E402 -- see above
from storage.database.migrations.upgrade import upgrade  # noqa: E402 -- see above
from storage.queries.drift_cells import read_drift_cells  # noqa: E402 -- see above
from storage.queries.model_facts import read_ledger, read_models  # noqa: E402 -- see above
from storage.queries.rollups import read_bars, read_incident_marks, read_rollups, read_windows  # noqa: E402 -- see above
from storage.queries.similar_incidents import read_similar_incidents  # noqa: E402 -- see above
from tests.servers.postgres import PostgresServer  # noqa: E402 -- see above

T0 = 1_767_225_600_000_000
PAYLOAD_BYTES = 1_800
FEATURES = tuple(f"feature_{at}" for at in range(6))
STATISTICS = 2 * (len(FEATURES) + 1) + 4 + 15
_CHUNK = 2_000
_PAGE = 50
_RNG = np.random.default_rng(1)


def main() -> None:
    """Make the database and time the reads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--window", type=int, default=900, help="length of a window in seconds")
    parser.add_argument("--rollups-only", action="store_true")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url = f"sqlite:///{folder}/outrider.db"
        if arguments.database == "postgresql":
            url = stack.enter_context(PostgresServer()).create_database()
        db = stack.enter_context(Database(url))
        upgrade(db)
        began_s = time.monotonic()
        for stream in range(1, arguments.streams + 1):
            fill_stream(db, stream, arguments)
        if db.dialect == "postgresql":
            with db.write() as conn:
                conn.exec_driver_sql("ANALYZE")
        with db.read() as conn:
            counts = {name: _count(conn, name) for name in ("windows", "window_rollups", "drift_cells", "incidents")}
        print(f"{arguments.database}, filled in {time.monotonic() - began_s:.0f} s: {json.dumps(counts)}")
        time_reads(db, arguments)


def fill_stream(db: Database, stream: int, arguments: argparse.Namespace) -> None:
    """Insert the rows of one stream."""
    end_us, size_us = T0 + arguments.days * DAY_US, arguments.window * SECOND_US
    with db.write() as conn:
        conn.execute(
            tables.streams.insert().values(
                id=stream, name=f"stream_{stream}", window_size_us=size_us, created_at_us=T0, rolled_up_us=end_us
            )
        )
        model = {"id": stream, "stream_id": stream, "version": 1, "kind": "gaussian_mixture", "state": "active"}
        conn.execute(
            tables.models.insert().values(
                **model, artefact=b"", checksum="", created_at_us=T0, feature_names=json.dumps(FEATURES), summary="{}"
            )
        )
        row = {"computed_at_us": 0, "valid_from_us": 0, "percentile": 99, "threshold": 9.0, "n": 10_000}
        conn.execute(
            tables.thresholds.insert().values(
                id=stream, stream_id=stream, model_id=stream, method="reference", recorded_at_us=T0, **row
            )
        )
    from_us = end_us - DAY_US if arguments.rollups_only else T0
    _insert(db, tables.windows, _windows(stream, from_us, end_us, size_us))
    for resolution_us in (FINE_US, COARSE_US):
        _insert(db, tables.window_rollups, _rollups(stream, resolution_us, T0, end_us))
    _insert(db, tables.incidents, _incidents(stream, T0, end_us))
    _insert(db, tables.calibrations, _calibrations(stream, T0, end_us))
    if not arguments.rollups_only:
        _insert(db, tables.window_samples, _samples(stream, end_us - 8 * DAY_US, end_us, size_us))
        _insert(db, tables.drift_cells, _cells(stream, T0, end_us))
        names = json.dumps([["rank", f"statistic_{at}"] for at in range(STATISTICS)])
        training = encode_quantiles(np.sort(_RNG.normal(size=(len(FEATURES), 63)), axis=1))
        with db.write() as conn:
            conn.execute(tables.drift_cell_names.insert().values(model_id=stream, statistics=STATISTICS, names=names))
            conn.execute(
                tables.feature_summaries.insert().values(
                    model_id=stream, kind="training", horizon_us=0, from_us=0, until_us=0, sampled=1_000,
                    payload=training, recorded_at_us=T0,
                )
            )  # fmt: skip


def _insert(db: Database, table: sa.Table, rows: Iterator[dict[str, Any]]) -> None:
    while chunk := [row for row, _ in zip(rows, range(_CHUNK), strict=False)]:
        with db.write() as conn:
            conn.execute(table.insert(), chunk)


def _windows(stream: int, from_us: int, until_us: int, size_us: int) -> Iterator[dict[str, Any]]:
    for start_us in range(from_us, until_us, size_us):
        yield {
            "stream_id": stream, "window_start_us": start_us, "window_end_us": start_us + size_us,
            "threshold_id": stream, "events": 1_000, "outliers": 5, "late": 0, "dead": 0, "filtered": 0,
            "expected": 5.0, "p_value": 0.5, "energy_p50": 3.0, "energy_p99": 8.0, "energy_max": 11.0,
            "payload": bytes(PAYLOAD_BYTES), "judged_at_us": start_us, "fires_at": 19,
        }  # fmt: skip


def _rollups(stream: int, resolution_us: int, from_us: int, until_us: int) -> Iterator[dict[str, Any]]:
    for start_us in range(from_us, until_us, resolution_us):
        yield {
            "stream_id": stream, "resolution_us": resolution_us, "start_us": start_us,
            "end_us": start_us + resolution_us, "windows": 15, "fired": 0, "events": 15_000, "outliers": 75, "late": 0,
            "dead": 0, "filtered": 0, "expected": 75.0, "most_outliers": 11, "fires_at": 19, "p_value": 0.01,
            "energy_p50": 3.0, "energy_p99": 8.0, "energy_max": 12.0, "model_version": 1, "recorded_at_us": start_us,
        }  # fmt: skip


def _incidents(stream: int, from_us: int, until_us: int) -> Iterator[dict[str, Any]]:
    for opened_us in range(from_us, until_us, 12 * HOUR_US):
        vector = np.abs(_RNG.normal(size=len(FEATURES)))
        vector = (vector / np.linalg.norm(vector)).round(4)
        yield {
            "stream_id": stream, "kind": "spike", "severity": "warning", "status": "resolved",
            "window_start_us": opened_us, "opened_at_us": opened_us, "resolved_at_us": opened_us + HOUR_US,
            "last_told_us": opened_us, "clean_windows": 3, "windows_fired": 2, "summary": "a spike", "verdict": None,
            "details": json.dumps({"opened": {"strangest": ["x" * 1_000] * 8}}),
            "contributions": json.dumps(dict(zip(FEATURES, vector.tolist(), strict=True))),
        }  # fmt: skip


def _calibrations(stream: int, from_us: int, until_us: int) -> Iterator[dict[str, Any]]:
    for at_us in range(from_us, until_us, HOUR_US):
        yield {"stream_id": stream, "at_us": at_us, "promised_per_week": 1.0, "state": "learned"}


def _samples(stream: int, from_us: int, until_us: int, size_us: int) -> Iterator[dict[str, Any]]:
    n = min(max(100_000 * size_us // (14 * DAY_US), 1), 64)
    payload = encode_sample(
        EventSample(
            capacity=n,
            hashes=np.arange(n, dtype=np.uint64),
            times_us=np.zeros(n, np.int64),
            features=_RNG.normal(size=(n, len(FEATURES))).astype(np.float32),
        )
    )
    for start_us in range(from_us, until_us, size_us):
        yield {
            "stream_id": stream, "window_start_us": start_us, "window_end_us": start_us + size_us, "model_id": stream,
            "events": 1_000, "payload": payload,
        }  # fmt: skip


def _cells(stream: int, from_us: int, until_us: int) -> Iterator[dict[str, Any]]:
    payload = encode_cells(*(_RNG.normal(size=(4, STATISTICS))))
    for horizon_us in (HOUR_US, DAY_US):
        for end_us in range(from_us + horizon_us, until_us, horizon_us):
            yield {
                "stream_id": stream, "horizon_us": horizon_us, "window_end_us": end_us,
                "window_start_us": end_us - horizon_us, "model_id": stream, "statistics": STATISTICS, "limit": 4.0,
                "payload": payload, "recorded_at_us": end_us,
            }  # fmt: skip


def time_reads(db: Database, arguments: argparse.Namespace) -> None:
    """Print the median and the slowest time of each read."""
    end_us = T0 + arguments.days * DAY_US
    stream = arguments.streams // 2 + 1
    page = list(range(1, min(_PAGE, arguments.streams) + 1))
    every = list(range(1, arguments.streams + 1))
    day = {"from_us": end_us - DAY_US, "until_us": end_us}
    week = {"from_us": end_us - 7 * DAY_US, "until_us": end_us}
    whole = {"from_us": T0, "until_us": end_us}
    with db.read() as conn:
        last = conn.execute(
            sa.select(sa.func.max(tables.incidents.c.id)).where(tables.incidents.c.stream_id == stream)
        ).scalar_one()
    reads: dict[str, Callable[[Connection], Any]] = {
        f"bars of 24 h, {len(page)} streams": lambda conn: read_bars(conn, page, **day),
        f"marks of 24 h, {len(every)} streams": lambda conn: read_incident_marks(conn, every, **day),
        f"ledger of 28 d, {len(every)} streams": lambda conn: read_ledger(
            conn, every, kinds=["spike"], from_us=end_us - 28 * DAY_US, until_us=end_us
        ),
        "windows of 24 h": lambda conn: read_windows(conn, stream, **day),
        "15 min over 7 d": lambda conn: read_rollups(conn, stream, resolution_us=FINE_US, **week),
        "6 h over all days": lambda conn: read_rollups(conn, stream, resolution_us=COARSE_US, **whole),
        "similar incidents": lambda conn: read_similar_incidents(conn, last),
        "models": lambda conn: read_models(conn, stream),
    }
    if not arguments.rollups_only:
        reads["drift cells, 1 h over 7 d"] = lambda conn: read_drift_cells(conn, stream, horizon_us=HOUR_US, **week)
        reads["histograms, 1 d against 7 d"] = lambda _: load_feature_histograms(db, stream, horizon_us=DAY_US, **day)
    for name, read in reads.items():
        times_ms, cpu_ms = [], []
        for _ in range(arguments.repeats):
            began_s, cpu_s = time.perf_counter(), time.process_time()
            with db.read() as conn:
                rows = read(conn)
            times_ms.append(1e3 * (time.perf_counter() - began_s))
            cpu_ms.append(1e3 * (time.process_time() - cpu_s))
        size = sum(map(len, rows.values())) if isinstance(rows, dict) else len(rows)
        print(
            f"{name:32} {np.median(times_ms):7.1f} ms (CPU {np.median(cpu_ms):5.1f} ms)   slowest "
            f"{max(times_ms):7.1f} ms   {size:6} rows"
        )


def _count(conn: Connection, table: str) -> int:
    return int(conn.execute(sa.select(sa.func.count()).select_from(sa.table(table))).scalar_one())


if __name__ == "__main__":
    main()
