"""JSON columns of views on PostgreSQL: of type jsonb, or json where an earlier version has made the view."""

import json

import pytest
import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.tables import incidents
from storage.database.views import create_views, view_queries
from tests.integration.storage.commits import T0, claim_stream
from tests.upgraded import give_newest_schema

pytestmark = pytest.mark.postgres

COLUMN_TYPE = """SELECT data_type FROM information_schema.columns
    WHERE table_schema = current_schema() AND table_name = 'incident_history' AND column_name = 'details'"""


def insert_incident(db: Database, stream_id: int, details: str) -> None:
    row = {
        "stream_id": stream_id,
        "kind": "spike",
        "severity": "warning",
        "status": "open",
        "summary": "a spike",
        "window_start_us": T0,
        "opened_at_us": T0,
        "last_told_us": T0,
        "clean_windows": 0,
        "windows_fired": 1,
        "details": details,
    }
    with db.write() as connection:
        connection.execute(incidents.insert().values(row))


def test_details_take_the_operators_of_jsonb(upgraded_postgres_url: str) -> None:
    with Database(upgraded_postgres_url) as db:
        feed = claim_stream(db)
        keys = [{"key": "a\x00b"}, {"key": "a\\u0000b"}]
        insert_incident(db, feed.stream_id, json.dumps({"model_version": 1, "keys": keys}))
        with db.read() as connection:
            assert connection.scalar(sa.text(COLUMN_TYPE)) == "jsonb"
            query = """SELECT details FROM incident_history WHERE details @> '{"model_version": 1}'"""
            found = connection.execute(sa.text(query)).scalar_one()
        assert found["keys"] == [{"key": "a\ufffdb"}, {"key": "a\\ufffdb"}], "jsonb has no NUL"


def test_a_view_of_an_earlier_version_keeps_json_and_the_views_on_it(postgres_url: str) -> None:
    give_newest_schema(postgres_url)
    with Database(postgres_url) as db, db.write() as connection:
        connection.exec_driver_sql("DROP VIEW incident_history")
        query = view_queries("postgresql", "json")["incident_history"].replace("%", "%%")
        connection.exec_driver_sql(f"CREATE VIEW incident_history AS {query}")
        connection.exec_driver_sql("CREATE VIEW own AS SELECT id, details ->> 'share' AS share FROM incident_history")
        create_views(connection, "postgresql")
        assert connection.scalar(sa.text(COLUMN_TYPE)) == "json"
        assert connection.execute(sa.text("SELECT * FROM own")).all() == []
