"""Reading commands print the same for the same rows on SQLite and on PostgreSQL."""

import json
from pathlib import Path

import pytest

from storage.database.engine import Database
from storage.database.revisions import KNOWN_REVISIONS
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import PaymentsStream


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


@pytest.mark.slow
def test_reading_commands_list_the_stored_rows(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    status = json.loads(outrider("status", "--format", "json").out)
    assert [(row["stream"], row["state"], row["open_incidents"]) for row in status] == [
        ("payments", "stopped", 1),
        ("clicks", "never run", 0),
    ]
    assert status[0]["last_event_time"] == "2026-01-01T00:03:59.000000Z"
    assert status[0]["promise"].startswith("more than ")
    scores = json.loads(outrider("history", "payments", "--since", "30s", "--format", "json").out)
    assert [row["source_offset"] for row in scores] == list(range(209, 240))
    outliers = json.loads(outrider("history", "payments", "--outliers", "--limit", 2, "--format", "json").out)
    assert [row["event_time"] for row in outliers] == ["2026-01-01T00:02:28.000000Z", "2026-01-01T00:02:29.000000Z"]
    assert outliers[0]["features"] == {"amount": 99.5, "card.age_days": 99.5}
    incidents = json.loads(outrider("incidents", "--open", "--format", "json").out)
    assert [(row["kind"], row["opened_at"]) for row in incidents] == [("spike", "2026-01-01T00:03:00.000000Z")]
    thresholds = json.loads(outrider("thresholds", "payments", "--format", "json").out)
    assert [row["n"] for row in thresholds] == [10_000]
    models = json.loads(outrider("models", "payments", "--format", "json").out)
    assert [(row["version"], row["state"]) for row in models] == [(1, "active")]


@pytest.mark.slow
def test_show_explains_an_incident(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    out = outrider("incidents", "show", 1).out
    assert "this one has 30" in out
    assert "alice: 30 of its 60 events, 100 times the rate of the others" in out
    assert "payments[0] 120, key alice\n    amount 99.5 where 12.5 is expected (10 to 15)" in out


def test_upgrade_creates_the_schema_that_check_accepts(outrider: OutriderRunner, db: Database, config: Path) -> None:
    with db.write():
        pass
    assert outrider("db", "check").code == 1
    assert outrider("db", "upgrade").code == 0
    assert outrider("db", "check").code == 0


@pytest.mark.slow
def test_check_prints_schema_and_budget_of_a_stored_stream(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    out = outrider("check").out
    assert f"has schema {KNOWN_REVISIONS[-1]}" in out
    assert " of 60 in a minute; 1 false alarm in " in out
