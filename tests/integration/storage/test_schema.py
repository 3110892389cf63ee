"""The schema: migrations, revisions, views and partitions."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from config.errors import SchemaMismatch
from config.time_format import DAY_US
from storage.database import tables
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.database.partitions import ensure_score_partitions, list_partition_days
from storage.database.revisions import KNOWN_REVISIONS
from storage.ledger.commit import Committed
from tests.integration.storage.commits import T0, ClaimedStream, add_threshold, claim_stream, count_rows, fetch_rows

# The documented columns of the views, which come first and in this order.
_SCORES = (
    "stream, topic, partition, source_offset, incarnation, event_time, event_time_us, stored_at, key, event_id, "
    "energy, threshold, is_outlier, model_version"
)
CONTRACT = {
    "score_history": _SCORES,
    "outlier_history": f"{_SCORES}, features",
    "window_history": "stream, window_start, window_end, events, outliers, expected_outliers, late, p_value, "
    "energy_p50, energy_p99, energy_max, model_version",
    "threshold_history": "stream, computed_at, valid_from, percentile, threshold, lower, upper, n, method, "
    "model_version",
    "incident_history": "id, stream, kind, severity, status, window_start, opened_at, resolved_at, summary, details",
    "notification_history": "id, incident_id, transition, channel, state, attempts, last_error, created_at, "
    "delivered_at",
    "dead_letter_history": "stream, topic, partition, source_offset, reason, detail, payload, recorded_at",
    "drift_history": "stream, horizon, window_start, window_end, statistic, feature, before, after, effect, z, "
    "limit, drifted",
    "calibration_history": "stream, at, promised_per_week, realised_per_week, windows_learned, dispersion, "
    "exceedance, state",
    "rollup_history": "stream, resolution_s, rollup_start, rollup_end, windows, fired, events, outliers, "
    "expected_outliers, late, dead, filtered, most_outliers, fires_at, p_value, energy_p50, energy_p99, energy_max, "
    "model_version",
    "model_history": "stream, version, kind, state, created_at, activated_at, held_out_energy, shadow_since, "
    "shadow_threshold, shadow_due, shared_windows, shared_events, flagged_by_both, flagged_by_active, "
    "flagged_by_shadow, flagged_by_none, gate, summary",
    "verdict_history": "incident_id, stream, kind, at, verb, who, note",
    "mute_history": "id, stream, kind, key, starts_at, ends_at, who, note, held_back",
    "gap_history": "stream, topic, partition, from_offset, to_offset, reason, recorded_at",
    "health": "stream, component, state, since, reason",
}


@pytest.mark.parametrize("view", CONTRACT)
def test_view_begins_with_the_documented_columns_in_order(db: Database, view: str) -> None:
    documented = CONTRACT[view].split(", ")
    with db.read() as connection:
        found = list(connection.exec_driver_sql(f"SELECT * FROM {view}").keys())
    assert found[: len(documented)] == documented


def test_both_databases_have_the_same_views_and_columns(sqlite_url: str, postgres_url: str) -> None:
    found = []
    for url in (sqlite_url, postgres_url):
        with Database(url) as db:
            upgrade(db)
            with db.read() as connection:
                found.append(
                    {
                        view: list(connection.exec_driver_sql(f"SELECT * FROM {view}").keys())
                        for view in sa.inspect(connection).get_view_names()
                    }
                )
    assert found[0] == found[1]
    assert set(found[0]) == set(CONTRACT)


def test_views_of_both_databases_return_the_same_values(feed: ClaimedStream) -> None:
    feed.commit(5, outlier_offsets=[3])
    time = "event_time" if feed.db.dialect == "sqlite" else 'to_char(event_time, \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\')'
    found = fetch_rows(
        feed.db,
        f"SELECT stream, topic, partition, source_offset, incarnation, {time}, event_time_us, energy, threshold, "
        "is_outlier, model_version FROM score_history WHERE source_offset >= 2 ORDER BY source_offset",
    )
    assert found == [
        ("payments", "payments", 0, 2, 1, "2026-01-01T00:00:02.000000Z", T0 + 2_000_000, 1, 10, False, 1),
        ("payments", "payments", 0, 3, 1, "2026-01-01T00:00:03.000000Z", T0 + 3_000_000, 20, 10, True, 1),
        ("payments", "payments", 0, 4, 1, "2026-01-01T00:00:04.000000Z", T0 + 4_000_000, 1, 10, False, 1),
    ]


def test_outlier_view_has_features_by_name(feed: ClaimedStream) -> None:
    feed.commit(5, outlier_offsets=[3])
    # The operator ->> is the same in both databases.
    ((amount, is_outlier),) = fetch_rows(feed.db, "SELECT features ->> 'amount', is_outlier FROM outlier_history")
    assert (float(amount), bool(is_outlier)) == (0.1, True)


@pytest.mark.parametrize("time_us", [0, 1, T0 + 999_999, 9_214_646_399_999_999])
def test_times_in_views_are_exact_to_the_microsecond(feed: ClaimedStream, time_us: int) -> None:
    feed.commit(0, end=1, gap_reason="retention")
    with feed.db.write() as connection:
        connection.execute(sa.update(tables.gaps).values(recorded_at_us=time_us))
    ((shown,),) = fetch_rows(feed.db, "SELECT recorded_at FROM gap_history")
    moment = datetime.strptime(f"{shown[:-1]}+0000", "%Y-%m-%dT%H:%M:%S.%f%z") if isinstance(shown, str) else shown
    assert moment - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(microseconds=time_us)


def test_second_upgrade_changes_nothing(db: Database) -> None:
    claim_stream(db).commit(5)
    upgrade(db)
    db.check_schema()
    assert count_rows(db, "score_history") == 5


def test_migrations_create_the_tables_of_the_metadata(db: Database) -> None:
    with db.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False, "include_name": _not_a_partition})
        differences = compare_metadata(context, tables.metadata)
    # The column and the indexes that `scores` has only on PostgreSQL.
    found = {str(each[1].name if each[0] == "remove_index" else each[-1].name) for each in differences}
    assert found <= {"stored_day", "ix_scores_event_time_us", "ix_scores_event_time"}


def _not_a_partition(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or not str(name).startswith("scores_d")


def test_eight_concurrent_upgrades_create_one_schema(database_url: str) -> None:
    start = threading.Barrier(8)

    def run(_: int) -> None:
        with Database(database_url) as db:
            start.wait()
            upgrade(db)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    with Database(database_url) as db:
        db.check_schema()
        assert isinstance(claim_stream(db).commit(3), Committed)


def test_error_for_a_database_without_tables_names_the_remedy(database_url: str) -> None:
    with (
        Database(database_url) as db,
        pytest.raises(SchemaMismatch, match=rf"{KNOWN_REVISIONS[-1]}.*outrider db upgrade"),
    ):
        db.check_schema()


def test_newer_schema_is_an_error_and_unchanged(database_url: str) -> None:
    with Database(database_url) as db:
        upgrade(db)
        with db.write() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        for call in (Database.check_schema, upgrade):
            with pytest.raises(SchemaMismatch, match=rf"9999.*newer.*{KNOWN_REVISIONS[-1]}"):
                call(db)
        assert db.schema_revision() == "9999"


def test_schema_check_does_not_import_alembic(sqlite_url: str) -> None:
    with Database(sqlite_url) as db:
        upgrade(db)
    program = (
        "import sys; from storage.database.engine import Database; "
        "Database(sys.argv[1]).check_schema(); print('alembic' in sys.modules)  # as a command would"
    )
    child = subprocess.run(
        [sys.executable, "-c", program, sqlite_url],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.strip() == "False"


def test_upgrade_creates_the_partitions_of_today_and_tomorrow(postgres_url: str) -> None:
    with Database(postgres_url) as db:
        upgrade(db)
        with db.read() as connection:
            today = db.now_us(connection) // DAY_US
            assert list_partition_days(connection) >= {today, today + 1}


def test_concurrent_creation_of_a_partition_does_not_fail(postgres_url: str) -> None:
    with Database(postgres_url) as db:
        upgrade(db)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: ensure_score_partitions(db, 30_000), range(8)))
        with db.read() as connection:
            assert list_partition_days(connection) >= {30_000, 30_001}


def test_commit_creates_a_missing_partition(postgres_url: str) -> None:
    with Database(postgres_url) as db:
        upgrade(db)
        feed = claim_stream(db)
        with db.write() as connection:
            for day in list_partition_days(connection):
                connection.exec_driver_sql(f"DROP TABLE scores_d{day}")
        assert isinstance(feed.commit(5), Committed)
        assert count_rows(db, "scores") == 5


def test_attaching_a_partition_does_not_block_readers_and_commits(postgres_url: str) -> None:
    with Database(postgres_url) as db:
        upgrade(db)
        with db.read() as reader:
            assert reader.exec_driver_sql("SELECT count(*) FROM scores").scalar_one() == 0
            ensure_score_partitions(db, 30_000)
            assert isinstance(claim_stream(db).commit(5), Committed)


def test_sqlite_file_has_incremental_vacuum_and_write_ahead_log(sqlite_url: str) -> None:
    with Database(sqlite_url) as db:
        upgrade(db)
        add_threshold(db, claim_stream(db).stream_id, valid_from_us=1)
        with db.write() as connection:
            found = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("auto_vacuum", "journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
    assert found == {
        "auto_vacuum": 2,
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 5000,
    }


def test_postgresql_sessions_have_timeouts(postgres_url: str) -> None:
    with Database(postgres_url) as db, db.read() as connection:
        found = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in (
                "idle_in_transaction_session_timeout",
                "statement_timeout",
                "lock_timeout",
                "transaction_isolation",
                "application_name",
            )
        }
    assert found == {
        "idle_in_transaction_session_timeout": "10s",
        "statement_timeout": "30s",
        "lock_timeout": "5s",
        "transaction_isolation": "read committed",
        "application_name": "outrider",
    }


def test_conditions_on_event_time_use_an_index_on_postgresql(postgres_url: str) -> None:
    with Database(postgres_url) as db:
        upgrade(db)
        with db.read() as connection:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            statement = "EXPLAIN SELECT energy FROM score_history WHERE event_time >= now() - interval '5 minutes'"
            plan = "\n".join(connection.exec_driver_sql(statement).scalars())
    assert "timezone_idx" in plan
    assert "Index Cond" in plan
