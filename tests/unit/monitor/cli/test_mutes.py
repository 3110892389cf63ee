"""Mutes through the command line: messages are held back and counted, incidents are not hidden; on both databases."""

from typing import Any

import pytest

from storage.database.engine import Database
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import PaymentsStream

pytestmark = pytest.mark.slow


@pytest.fixture
def url(upgraded_url: str) -> str:
    return upgraded_url


def fetch_rows(db: Database, query: str) -> list[tuple[Any, ...]]:
    with db.read() as conn:
        return [tuple(row) for row in conn.exec_driver_sql(query)]


def add_later_spike(payments: PaymentsStream, key: str = "alice") -> None:
    """Resolve the first spike, and open another one after more than `alerts.reopen_within`."""
    for _ in range(40):
        payments.commit_minute()
    payments.commit_minute(30, key=key)
    payments.commit_minute()
    payments.run_due()


def states(db: Database, incident: int) -> list[tuple[str, str]]:
    query = "SELECT transition, state FROM notification_history WHERE incident_id = "
    return fetch_rows(db, f"{query}{incident} ORDER BY created_at_us, transition")


def test_muted_message_is_stored_and_counted_once(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    result = outrider("mutes", "add", "--stream", "payments", "--kind", "spike", "--for", "2h", "--who", "anna")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Mute 1 holds messages of kind spike of stream payments back until 20")
    add_later_spike(payments)
    assert states(db, 2) == [("opened", "muted")]
    assert fetch_rows(db, "SELECT stream, kind, who, held_back FROM mute_history") == [("payments", "spike", "anna", 1)]
    assert fetch_rows(db, "SELECT status FROM incident_history ORDER BY id") == [("resolved",), ("open",)]
    payments.run_due()
    assert fetch_rows(db, "SELECT held_back FROM mute_history") == [(1,)]


def test_resolution_of_an_incident_that_was_told_is_not_held_back(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    outrider("mutes", "add", "--incident", 1, "--for", "2h")
    add_later_spike(payments)
    assert states(db, 1) == [("opened", "pending"), ("resolved", "pending")]
    assert states(db, 2) == [("opened", "pending")]


def test_resolution_of_a_muted_incident_is_not_told(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    outrider("mutes", "add", "--stream", "payments", "--for", "2h")
    add_later_spike(payments)
    outrider("incidents", "resolve", 2)
    assert [state for _, state in states(db, 2)] in (["muted", "skipped"], ["muted", "pending"])
    assert dict(states(db, 2))["opened"] == "muted"


@pytest.mark.parametrize(("muted", "state"), [("alice", "muted"), ("bob", "pending")])
def test_key_is_muted_if_it_is_the_suspect(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database, muted: str, state: str
) -> None:
    outrider("mutes", "add", "--key", muted, "--for", "2h")
    for _ in range(40):
        payments.commit_minute()
    payments.commit_minute(20, keys=["alice"] * 20 + ["carol"] * 40)
    payments.commit_minute()
    payments.run_due()
    assert states(db, 2) == [("opened", state)]


def test_ended_mute_holds_nothing_back(outrider: OutriderRunner, payments: PaymentsStream, db: Database) -> None:
    outrider("mutes", "add", "--stream", "payments", "--for", "2h")
    assert outrider("mutes", "end", 1).out == "Mute 1 is ended; it held 0 messages back.\n"
    assert "ended at" in outrider("mutes", "end", 1).out
    add_later_spike(payments)
    assert states(db, 2) == [("opened", "pending")]
    assert outrider("mutes", "end", 2).code == 2


def test_mutes_are_listed(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert "No mutes." in outrider("mutes", "--format", "table").out + outrider("mutes", "--format", "table").err
    outrider(
        "mutes", "add", "--kind", "drift", "--for", "1d", "--weekly", "sat 22:00 - sun 06:00", "--note", "releases"
    )
    listed = outrider("mutes", "--format", "csv").out.splitlines()
    assert listed[0].startswith("id,stream,kind,key,starts_at,ends_at,who,note,held_back")
    assert "releases,0,,sat 22:00 - sun 06:00" in listed[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--for", "2h"), "name what is muted"),
        (("--kind", "spike"), "either --for or --until"),
        (("--kind", "spike", "--for", "2h", "--until", "2030-01-01T00:00:00Z"), "either --for or --until"),
        (("--kind", "spike", "--until", "2020-01-01T00:00:00Z"), "ends in the future"),
        (("--kind", "spike", "--for", "2x"), "--for"),
        (("--kind", "spike", "--for", "2h", "--weekly", "noon"), "is not a weekly window"),
        (("--stream", "payment", "--for", "2h"), "did you mean payments?"),
        (("--incident", "9", "--for", "2h"), "there is no incident 9"),
    ],
)
def test_wrong_arguments_exit_with_2(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database, arguments: tuple[str, ...], message: str
) -> None:
    result = outrider("mutes", "add", *arguments)
    assert result.code == 2
    assert message in result.err
    assert fetch_rows(db, "SELECT * FROM mutes") == []
