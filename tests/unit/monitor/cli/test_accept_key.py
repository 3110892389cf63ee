"""`outrider accept INCIDENT --key KEY`: the habit of a key is normal, with preview, audit row, view and status."""

import json
from typing import Any

import pytest
import sqlalchemy as sa

from config.time_format import DAY_US
from monitor.incidents.habitual_keys import HabitualKey, KeyHabits, TrackedKey, changed_rows
from storage.control.acceptance import write_judge_state
from storage.control.habitual_keys import write_habitual_keys
from storage.control.window_facts import read_judge_state
from storage.database.engine import Database
from storage.database.tables import FOREVER_US, habitual_keys
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import T0, PaymentsStream

SINCE_US = T0 - DAY_US


@pytest.fixture
def url(database_url: str) -> str:
    return database_url


def fetch_rows(db: Database, query: str) -> list[tuple[Any, ...]]:
    with db.read() as conn:
        return [tuple(row) for row in conn.exec_driver_sql(query)]


@pytest.fixture
def habitual(payments: PaymentsStream, db: Database) -> PaymentsStream:
    """Return the stream with one spike of key alice, which has become habitual."""
    tracked = TrackedKey(windows=40, events=80, outliers=80, squares=80, first_us=SINCE_US, last_us=T0)
    habit = HabitualKey(rate=0.98, windows=40, since_us=SINCE_US, until_us=SINCE_US + 28 * DAY_US)
    habits = KeyHabits(tracked={"alice": tracked}, habitual={"alice": habit})
    stream_id = payments.stream.id
    with db.write() as conn:
        write_judge_state(conn, stream_id, {**read_judge_state(conn, stream_id), "keys": habits.to_json()})
        write_habitual_keys(conn, stream_id, changed_rows(KeyHabits(), habits), 1)
        details = json.loads(conn.exec_driver_sql("SELECT details FROM incidents WHERE id = 1").scalar_one())
        details["opened"]["keys"] = [
            {"key": "alice", "events": 30, "outliers": 30, "times_the_others": 60.0, "p_value": 1e-9}
        ]
        conn.execute(sa.text("UPDATE incidents SET details = :details WHERE id = 1"), {"details": json.dumps(details)})
    return payments


def test_accepted_key_stays_habitual_and_its_incident_as_it_was(
    outrider: OutriderRunner, habitual: PaymentsStream, db: Database
) -> None:
    before = fetch_rows(db, "SELECT status, verdict FROM incidents")
    preview = outrider("accept", 1, "--key", "alice", "--dry-run", "--who", "mira")
    assert (preview.code, preview.err) == (0, "")
    assert "98% of the events of key alice are expected to be outliers, for as long as this rate remains" in preview.out
    assert fetch_rows(db, "SELECT accepted_by FROM habitual_keys") == [(None,)]
    result = outrider("accept", 1, "--key", "alice", "--who", "mira", "--note", "a daily batch")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Key alice of stream payments is accepted: 98%")
    assert fetch_rows(db, "SELECT status, verdict FROM incidents") == before
    ((until_us, who, at_us),) = fetch_rows(db, "SELECT until_us, accepted_by, accepted_at_us FROM habitual_keys")
    (judged_until_us,) = fetch_rows(db, "SELECT max(window_end_us) FROM windows WHERE judged_at_us IS NOT NULL")[0]
    assert (until_us, who, at_us) == (FOREVER_US, "mira", judged_until_us)
    ((verb, who, note, effects),) = fetch_rows(db, "SELECT verb, who, note, effects FROM verdict_history")
    effects = effects if isinstance(effects, dict) else json.loads(effects)
    assert (verb, who, note, effects["keys"]) == ("accept_key", "mira", "a daily batch", ["alice"])
    assert "accept-key alice by mira: a daily batch" in outrider("incidents", "show", 1).out
    assert '"accepted_by": "mira"' in outrider("status", "--format", "json").out
    assert "alice (98% outliers, accepted by mira)" in outrider("status").out
    again = outrider("accept", 1, "--key", "alice")
    assert "is accepted already; nothing was changed" in again.out


def test_judging_goes_on_with_the_accepted_key_and_keeps_its_row(
    outrider: OutriderRunner, habitual: PaymentsStream, db: Database
) -> None:
    assert outrider("accept", 1, "--key", "alice").code == 0
    for _ in range(3):
        habitual.commit_minute()
    habitual.run_due()
    with db.read() as conn:
        state = KeyHabits.from_json(read_judge_state(conn, habitual.stream.id)["keys"])
        (row,) = conn.execute(sa.select(habitual_keys)).all()
    assert state.habitual["alice"].until_us == row.until_us == FOREVER_US
    flagged = fetch_rows(db, "SELECT count(*) FROM outlier_history WHERE habitual AND key = 'alice'")
    assert flagged[0][0] > 0


def test_confirmed_incident_takes_the_word_back(
    outrider: OutriderRunner, habitual: PaymentsStream, db: Database
) -> None:
    outrider("accept", 1, "--key", "alice")
    assert outrider("incidents", "confirm", 1).code == 0
    assert fetch_rows(db, "SELECT until_us, accepted_by FROM habitual_keys") == [(SINCE_US + 28 * DAY_US, None)]


@pytest.mark.parametrize(
    ("key", "message"),
    [("bob", "incident 1 does not name the key 'bob'; its keys are 'alice'")],
)
def test_refused_key_is_named_with_those_of_the_incident(
    outrider: OutriderRunner, habitual: PaymentsStream, key: str, message: str
) -> None:
    result = outrider("accept", 1, "--key", key)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
