"""The documented roles of PostgreSQL: the owner upgrades, the writer runs the daemon, the reader only reads."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from click.testing import CliRunner

from config.errors import ConfigError
from config.settings import Settings
from config.time_format import DAY_US
from monitor.cli.main import outrider
from monitor.daemon.daemon import Daemon
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.database.partitions import ensure_score_partitions, list_partition_days
from storage.database.view_columns import VIEWS
from storage.retention import delete_expired
from tests.servers.postgres import PostgresServer

_PAGE = Path(__file__).parents[2] / "docs" / "security.md"
_ROLES = ("owner", "writer", "reader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """A database with the documented roles; `owner`, `writer` and `reader` are its URLs."""

    owner: str
    writer: str
    reader: str


@pytest.fixture(scope="module")
def roles(postgres_server: PostgresServer) -> Iterator[Roles]:
    url = postgres_server.create_database()
    (sql,) = re.findall(r"```postgresql\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.replace("DATABASE outrider ", f'DATABASE "{connection.info.dbname}" '))
    urls = {role: url.replace("//postgres@", f"//outrider_{role}@") for role in _ROLES}
    with Database(urls["owner"]) as db:
        upgrade(db)
    yield Roles(**urls)
    postgres_server.drop_database(url)
    for role in _ROLES:
        postgres_server.execute(f"DROP ROLE outrider_{role}")


def settings_of(url: str) -> dict[str, Any]:
    source = {"type": "synthetic", "seed": 1, "rate": 100, "events": 3_000, "speed": 0}
    stream = {"source": source, "model": {"warm_up": 500, "n_components": 1}, "window": {"size": "1s"}}
    stream["threshold"] = {"look_back": "1m"}
    return {"database": {"url": url}, "streams": {"payments": stream}}


@pytest.fixture(scope="module")
def finished_run(roles: Roles) -> Roles:
    """The roles, after the daemon has run as the writer."""
    Daemon(Settings.model_validate(settings_of(roles.writer))).run()
    return roles


def execute_as(url: str, statement: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[arg-type, unused-ignore]
        return cursor.fetchall() if cursor.description else []


def test_writer_runs_the_daemon_and_makes_partitions(finished_run: Roles) -> None:
    assert execute_as(finished_run.writer, "SELECT count(*) FROM scores") == [(3_000,)]
    with Database(finished_run.writer) as db:
        db.check_writable()
        ensure_score_partitions(db, 30_000)
        ensure_score_partitions(db, 100)
        settings = Settings.model_validate(settings_of(finished_run.writer))
        delete_expired(db, settings.retention, db.now_us(), lambda: False)
        with db.read() as connection:
            days, today = list_partition_days(connection), db.now_us(connection) // DAY_US
    assert {30_000, 30_001} <= days
    assert min(days) >= today - 8, "expired days are dropped"


def test_reader_reads_status_history_and_views(
    finished_run: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outrider.yaml").write_text(yaml.safe_dump(settings_of(finished_run.reader)))
    runner = CliRunner()
    for command in (["status"], ["history", "payments", "--limit", "3"], ["thresholds", "payments"], ["incidents"]):
        result = runner.invoke(outrider, command)
        assert result.exit_code == 0, result.output
    for view in VIEWS:
        execute_as(finished_run.reader, f"SELECT * FROM {view} LIMIT 1")


TABLES_OF_WRITER = ("streams", "scores", "models", "thresholds", "windows")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        *(("reader", f"DELETE FROM {table}") for table in TABLES_OF_WRITER),
        ("reader", "UPDATE streams SET name = 'x'"),
        ("reader", "INSERT INTO leases (name, holder, expires_at_us) VALUES ('a', 'b', 1)"),
        ("reader", "CREATE TABLE mine (a int)"),
        ("reader", "CREATE TEMPORARY TABLE mine (a int)"),
        ("reader", "SELECT create_score_partition(1)"),
        ("reader", "SELECT drop_score_partition(1)"),
        *(("writer", f"DROP TABLE {table} CASCADE") for table in TABLES_OF_WRITER),
        ("writer", "TRUNCATE scores"),
        ("writer", "ALTER TABLE streams ADD COLUMN x int"),
        ("writer", "DROP VIEW score_history"),
        ("writer", "CREATE TABLE mine (a int)"),
        ("writer", "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    ],
)
def test_roles_may_do_nothing_else(roles: Roles, role: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute_as(getattr(roles, role), statement)


def test_reader_is_no_writer_and_the_error_names_the_grant(roles: Roles) -> None:
    with Database(roles.reader) as db, pytest.raises(ConfigError, match="GRANT SELECT, INSERT, UPDATE, DELETE"):
        db.check_writable()


_DROP_WHAT_FOLLOWS_0005 = (
    f"DROP VIEW {', '.join(VIEWS)}",
    "DROP TABLE health_reports, window_samples, incident_verbs, mutes, drift_days, refits, habitual_keys",
    "DROP TABLE posted_messages, used_links",
    "DROP INDEX ix_outliers_key, ix_outliers_event_id",
    "ALTER TABLE outliers DROP COLUMN trace_id",
    "DROP TABLE window_rollups, drift_cells, drift_cell_names, feature_summaries",
    "ALTER TABLE streams DROP COLUMN rolled_up_us",
    "ALTER TABLE windows DROP COLUMN fires_at",
    "ALTER TABLE incidents DROP COLUMN contributions",
    "ALTER TABLE shadow_parts DROP COLUMN outliers_of_both",
    "ALTER TABLE shadow_windows DROP COLUMN outliers_of_both",
    "ALTER TABLE notifications DROP COLUMN reason, DROP COLUMN group_id",
    "DROP INDEX ix_notifications_delivered",
    "ALTER TABLE window_parts DROP COLUMN sample",
    "ALTER TABLE incidents DROP COLUMN acknowledged_at_us, DROP COLUMN acknowledged_by, "
    "DROP COLUMN acknowledged_until_us, DROP COLUMN verdict, DROP COLUMN reopen_until_us",
    "ALTER TABLE calibrations DROP COLUMN true_alarms, DROP COLUMN false_alarms, DROP COLUMN without_verdict, "
    'DROP COLUMN "precision", DROP COLUMN precision_lower, DROP COLUMN precision_upper',
    "ALTER TABLE accepted_references DROP COLUMN withdrawn_at_us",
)


def test_upgrade_keeps_the_privileges_and_needs_the_owner(roles: Roles) -> None:
    execute_as(roles.owner, "UPDATE alembic_version SET version_num = '0005'")
    execute_as(roles.owner, "DROP FUNCTION create_score_partition, drop_score_partition")
    for statement in _DROP_WHAT_FOLLOWS_0005:
        execute_as(roles.owner, statement)
    with Database(roles.writer) as db, pytest.raises(ConfigError, match="an upgrade the owner of the tables"):
        upgrade(db)
    with Database(roles.owner) as db:
        upgrade(db)
    assert execute_as(roles.reader, "SELECT count(*) >= 0 FROM score_history") == [(True,)]
    execute_as(roles.writer, "SELECT drop_score_partition(1)")
