"""Plans and times of the recipes of docs/sql.md on PostgreSQL with rows, and the cost of the indexes of outliers.

    python benchmarks/recipes.py [--scores 2000000] [--outliers 200000]

The tables are filled by `generate_series`, analysed, and each recipe is explained with the default settings of the
planner. Then the two indexes of revision 0016 are dropped and made again, once as the migration does and once
CONCURRENTLY.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import psycopg

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # as a script, this folder would be first in the import path

from config.time_format import DAY_US  # noqa: E402 -- see above
from storage.database.engine import Database  # noqa: E402 -- see above
from storage.database.migrations.upgrade import upgrade  # noqa: E402 -- see above
from tests.servers.postgres import PostgresServer  # noqa: E402 -- see above

END_US = 1_796_083_200_000_000
"""2026-12-01, the day after the times of the recipes."""
DAYS = 20
STREAMS = 4
INDEXES = {
    "ix_outliers_key": "outliers (key, event_time_us)",
    "ix_outliers_event_id": "outliers (event_id)",
}


def main() -> None:
    """Fill a database and print the plans."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scores", type=int, default=2_000_000)
    parser.add_argument("--outliers", type=int, default=200_000)
    given = parser.parse_args()
    server = PostgresServer()
    server.start()
    try:
        url = server.create_database()
        with Database(url) as db:
            upgrade(db)
        with psycopg.connect(url, autocommit=True) as conn:
            fill(conn, given.scores, given.outliers)
            for recipe in read_recipes():
                explain(conn, recipe)
            time_indexes(conn)
    finally:
        server.close()


def read_recipes() -> list[str]:
    """Return the recipes of the document."""
    section = Path("docs/sql.md").read_text().partition("## Recipes\n")[2].partition("\n## ")[0]
    return [each.rstrip().rstrip(";") for each in re.findall(r"```sql\n(.*?)```", section, re.DOTALL)]


def fill(conn: psycopg.Connection, scores: int, outliers: int) -> None:
    """Fill the tables: `DAYS` days of `STREAMS` streams with a source each, windows of a minute."""
    begin_us = END_US - DAYS * DAY_US
    for day in range(begin_us // DAY_US, END_US // DAY_US + 1):
        if conn.execute("SELECT to_regclass(%s) IS NULL", [f"scores_d{day}"]).fetchone() == (True,):
            conn.execute("SELECT create_score_partition(%s)", [day])
    conn.execute(
        "INSERT INTO streams (id, name, window_size_us, created_at_us) "
        "SELECT i, CASE i WHEN 1 THEN 'payments' ELSE 'stream-' || i END, 60000000, 0 "
        f"FROM generate_series(1, {STREAMS}) i"
    )
    conn.execute(
        "INSERT INTO sources (id, stream_id, topic, partition, incarnation, identity, created_at_us) "
        f"SELECT i, i, 'topic', i, 0, i::text, 0 FROM generate_series(1, {STREAMS}) i"
    )
    conn.execute(
        "INSERT INTO models (id, stream_id, version, kind, state, artefact, checksum, created_at_us, feature_names) "
        f"SELECT i, i, 1, 'gmm', 'active', '', '', 0, '[]' FROM generate_series(1, {STREAMS}) i"
    )
    minutes = DAYS * 1_440
    at = f"{begin_us}::bigint + g * 60000000::bigint"
    conn.execute(
        "INSERT INTO thresholds (id, stream_id, model_id, computed_at_us, valid_from_us, percentile, threshold, n, "
        f"method, recorded_at_us) SELECT g * {STREAMS} + i, i, i, {at}, {at}, 99, 12, 1000, 'plain', 0 "
        f"FROM generate_series(0, {minutes - 1}) g, generate_series(1, {STREAMS}) i"
    )
    conn.execute(
        "INSERT INTO windows (stream_id, window_start_us, window_end_us, events, outliers, late, dead, threshold_id) "
        f"SELECT i, {at}, {at} + 60000000, 50, 1, 0, 0, g * {STREAMS} + i "
        f"FROM generate_series(0, {minutes - 1}) g, generate_series(1, {STREAMS}) i"
    )
    conn.execute(
        "INSERT INTO incidents (id, stream_id, kind, severity, status, window_start_us, opened_at_us, last_told_us, "
        "clean_windows, windows_fired, summary) "
        "SELECT g, 1 + g % 4, 'spike', 'warning', 'resolved', t, t, t, 5, 1, 'x' FROM generate_series(1, 5000) g, "
        f"LATERAL (SELECT {begin_us}::bigint + g * {DAYS * DAY_US // 5000}::bigint) v(t)"
    )
    conn.execute(
        "INSERT INTO transitions (id, incident_id, stream_id, transition, window_start_us, at_us, summary, "
        "recorded_at_us) SELECT id * 2 + k, id, stream_id, CASE k WHEN 0 THEN 'opened' ELSE 'resolved' END, "
        "window_start_us, opened_at_us, 'x', opened_at_us FROM incidents, generate_series(0, 1) k"
    )
    conn.execute(
        "INSERT INTO notifications (id, incident_id, transition_id, channel, state, created_at_us) "
        "SELECT id || '-' || c, incident_id, id, 'c' || c, 'delivered', recorded_at_us FROM transitions, "
        "generate_series(1, 4) c"
    )
    conn.execute(
        "INSERT INTO incident_verbs (id, incident_id, stream_id, verb, who, at_us, before, after, effects) "
        "SELECT id, id, stream_id, 'confirm', 'a', opened_at_us, '{}', '{}', '{}' FROM incidents"
    )
    columns = "source_id, source_offset, event_time_us, energy, threshold_id, stored_at_us, key, event_id"
    row = (
        f"1 + g % {STREAMS}, g / {STREAMS}, t, 1.5, 1 + (g % {minutes * STREAMS})::int, t, 'terminal-' || g % 5000, "
        "'e' || g"
    )
    for table, rows, more in (
        ("scores", scores, (", stored_day", f", t / {DAY_US}")),
        ("outliers", outliers, (", features", ", '{}'")),
    ):
        step = DAYS * DAY_US // rows
        started_s = time.perf_counter()
        conn.execute(
            f"INSERT INTO {table} ({columns}{more[0]}) SELECT {row}{more[1]} FROM generate_series(0, {rows - 1}) g, "
            f"LATERAL (SELECT {begin_us}::bigint + g * {step}::bigint) v(t)"
        )
        print(f"{table}: {rows:,} rows in {time.perf_counter() - started_s:.1f} s", flush=True)
    conn.execute("ANALYZE")


def explain(conn: psycopg.Connection, recipe: str) -> None:
    """Print the scans of the plan of a recipe, and its time."""
    conn.execute(recipe)  # type: ignore[arg-type]  # warm: the plan, not the disk, is of interest
    plan = [str(line) for (line,) in conn.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {recipe}")]  # type: ignore[arg-type]
    print(f"\n{recipe.splitlines()[0]}")
    scans = [line.strip() for line in plan if "Scan" in line and "never executed" not in line]
    for line in scans:
        print(f"  {line}")
    print(f"  {plan[-1]}")


def time_indexes(conn: psycopg.Connection) -> None:
    """Print the time of each index of revision 0016, and the sizes."""
    for how in ("", "CONCURRENTLY "):
        for name, columns in INDEXES.items():
            conn.execute(f"DROP INDEX IF EXISTS {name}")
            started_s = time.perf_counter()
            conn.execute(f"CREATE INDEX {how}{name} ON {columns}")
            took_s = time.perf_counter() - started_s
            ((size,),) = conn.execute("SELECT pg_size_pretty(pg_relation_size(%s::regclass))", [name])
            print(f"CREATE INDEX {how}{name}: {took_s:.1f} s, {size}")
    ((size,),) = conn.execute("SELECT pg_size_pretty(pg_relation_size('outliers'))")
    print(f"outliers: {size}")


if __name__ == "__main__":
    main()
