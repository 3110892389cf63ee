"""A database of the first version is upgraded in the middle of its work, and the present daemon continues it.

`first_version.json.gz` has the views of schema 0001 and the rows of a simulation that the first version ran. It stopped
with an open incident, sealed windows that were not judged, open windows and pending messages.
"""

import base64
import gzip
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command

from storage.control.outbox import Outbox
from storage.database.engine import Database
from storage.database.migrations.upgrade import _alembic_config, upgrade
from storage.database.partitions import day_number
from tests.integration.control.simulation import SimulationSettings, make_records, run_in_turn
from tests.integration.control.worker_bench import MINUTE, SECOND, fetch_rows
from tests.rules import make_rules

FIRST = json.loads(gzip.decompress((Path(__file__).parent / "first_version.json.gz").read_bytes()))
SCENE = SimulationSettings(
    rules=make_rules(size_us=MINUTE, grace_us=10 * SECOND, ahead_us=3 * MINUTE, max_future_us=None),
    refresh=timedelta(minutes=5),
    look_back=timedelta(minutes=10),
    sources=[make_records(1, n=500, span_s=1300, anomalous=(0.5, 0.65)), make_records(2, n=300, span_s=1100, number=1)],
)


def stored(table: str) -> list[dict[str, Any]]:
    """Return the rows of a table as the first version stored them."""
    content = FIRST["tables"][table]
    return [dict(zip(content["columns"], map(_value, row), strict=True)) for row in content["rows"]]


def _value(value: Any) -> Any:
    return base64.b64decode(value["b"]) if isinstance(value, dict) else value


@pytest.fixture
def old(database_url: str) -> Iterator[Database]:
    """A database with the rows of the first version."""
    with Database(database_url) as db:
        with db.write() as conn:
            command.upgrade(_alembic_config(conn), "0001")
            for name, select in FIRST["views"][db.dialect].items():
                conn.exec_driver_sql(f"CREATE VIEW {name} AS {select}".replace("%", _percent(db)))
        with db.write() as conn:
            if db.dialect == "postgresql":
                _create_partitions(conn)
            for name in FIRST["tables"]:
                _fill(conn, db, name)
        yield db


def _create_partitions(conn: sa.Connection) -> None:
    for day in {day_number(row["stored_at_us"]) for row in stored("scores")}:
        conn.exec_driver_sql(f"CREATE TABLE scores_d{day} PARTITION OF scores FOR VALUES FROM ({day}) TO ({day + 1})")


def _percent(db: Database) -> str:
    return "%" if db.dialect == "sqlite" else "%%"


def _fill(conn: sa.Connection, db: Database, name: str) -> None:
    rows = stored(name)
    if name == "scores" and db.dialect == "postgresql":
        rows = [row | {"stored_day": day_number(row["stored_at_us"])} for row in rows]
    conn.execute(sa.table(name, *map(sa.column, rows[0])).insert(), rows)
    if "id" in rows[0] and isinstance(rows[0]["id"], int) and db.dialect == "postgresql":
        last = max(row["id"] for row in rows)
        conn.execute(sa.text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :last)"), {"name": name, "last": last})


def fetch_number(db: Database, query: str) -> int:
    return int(str(fetch_rows(db, query)[0][0]))


def test_the_first_version_stopped_in_the_middle_of_its_work(old: Database) -> None:
    assert old.schema_revision() == "0001"
    assert fetch_number(old, "SELECT count(*) FROM incident_history WHERE kind = 'spike' AND status = 'open'") == 1
    sealed = "SELECT count(*) FROM window_parts p JOIN streams s ON p.window_end_us <= s.sealed_until_us"
    assert 0 < fetch_number(old, sealed) < fetch_number(old, "SELECT count(*) FROM window_parts")
    assert fetch_number(old, "SELECT count(*) FROM notifications WHERE state = 'pending'") > 0


def test_an_upgrade_keeps_all_stored_rows(old: Database) -> None:
    upgrade(old)
    old.check_schema()
    for name in FIRST["tables"]:
        assert fetch_number(old, f"SELECT count(*) FROM {name}") == len(stored(name)), name
    assert fetch_number(old, "SELECT count(*) FROM score_history") == len(stored("scores"))


def test_after_the_upgrade_the_daemon_continues_the_work_of_the_first_version(old: Database) -> None:
    upgrade(old)
    run_in_turn(old, SCENE, n=50)
    assert fetch_number(old, "SELECT count(*) FROM scores") == sum(len(each.events) for each in SCENE.sources)
    assert fetch_number(old, "SELECT count(*) FROM window_parts") == 0
    assert fetch_number(old, "SELECT sum(events + late) FROM windows") == fetch_number(
        old, "SELECT count(*) FROM scores"
    )
    (before,) = [row for row in stored("incidents") if row["status"] == "open"]
    resolved = f"SELECT kind, window_start_us, status FROM incidents WHERE id = {before['id']}"
    assert fetch_rows(old, resolved) == [("spike", before["window_start_us"], "resolved")]
    resolved_channels = (
        f"SELECT channel FROM notification_history WHERE incident_id = {before['id']} AND transition = 'resolved'"
    )
    assert {row[0] for row in fetch_rows(old, resolved_channels)} == {row["channel"] for row in stored("notifications")}
    assert Outbox(old).claim("ops", MINUTE) is not None
    assert fetch_number(old, "SELECT count(*) FROM threshold_history") > len(stored("thresholds"))
