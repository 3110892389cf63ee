"""`outrider incidents` lists incidents, and `show` explains one."""

import json
from pathlib import Path

import pytest

from storage.database.engine import Database
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import PaymentsStream


def test_list_is_the_default_subcommand(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    bare, verb = outrider("incidents", "--format", "json"), outrider("incidents", "list", "--format", "json")
    assert bare == verb
    assert [(row["id"], row["kind"], row["status"]) for row in json.loads(bare.out)] == [(1, "spike", "open")]


def test_open_omits_resolved_incidents(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    for _ in range(4):
        payments.commit_minute()
    payments.run_due()
    assert [row["status"] for row in json.loads(outrider("incidents", "--format", "json").out)] == ["resolved"]
    assert json.loads(outrider("incidents", "--open", "--format", "json").out) == []


@pytest.mark.slow
def test_stream_option_omits_other_streams(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert len(json.loads(outrider("incidents", "--stream", "payments", "--format", "json").out)) == 1
    assert json.loads(outrider("incidents", "--stream", "clicks", "--format", "json").out) == []
    assert outrider("incidents", "--stream", "paiments").code == 2


def test_empty_table_has_a_text(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert outrider("incidents", "--stream", "clicks", "--format", "table").out == "No incidents.\n"


def test_show_prints_an_explanation_and_then_the_numbers(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    result = outrider("incidents", "show", 1)
    assert result.code == 0
    explanation, numbers = result.out.split("Numbers at opening")
    assert "Incident 1: spike on payments" in explanation.splitlines()[0]
    assert "this one has 30" in explanation
    assert "the 99.5 percentile of 10,000 energies" in explanation
    assert "fires_at" in numbers
    assert "config_hash" in numbers
    assert len(result.out.splitlines()) <= 45


def test_show_explains_the_top_events_by_feature(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    out = outrider("incidents", "show", 1).out
    assert "payments[0] 120, key alice" in out
    assert "amount 99.5 where 12.5 is expected (10 to 15): 17.5 nats of the energy" in out


def test_show_prints_the_offsets_of_the_window(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    assert "offsets: topic payments, partition 0, first 120, last 179" in outrider("incidents", "show", 1).out


def test_show_names_suspect_keys(outrider: OutriderRunner, db: Database, config: Path) -> None:
    payments = PaymentsStream(db, config)
    payments.add_model()
    payments.commit_minute()
    payments.commit_minute(20, keys=["mallory"] * 18 + ["alice", "bob"] * 21)
    payments.commit_minute()
    payments.run_due()
    out = outrider("incidents", "show", 1).out
    assert "mallory: 18 of its 18 events" in out
    assert "alice:" not in out


def test_show_lists_transitions_with_their_notifications(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    for _ in range(4):
        payments.commit_minute()
    payments.run_due()
    shown = json.loads(outrider("incidents", "show", 1, "--format", "json").out)
    assert [step["transition"] for step in shown["transitions"]] == ["opened", "resolved"]
    assert shown["transitions"][0]["notifications"] == {"log": "pending"}
    assert shown["details"]["opened"]["outliers"] == 30
    assert "resolved" in outrider("incidents", "show", 1).out


def test_dead_letter_incident_shows_the_share(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.commit_minute(dead=20)
    payments.commit_minute()
    payments.run_due()
    shown = outrider("incidents", "show", 2).out
    assert "Incident 2: dead letters on payments" in shown
    assert "20 of 80 records of the window were rejected, 25.0%; more than 5.0%" in shown


def test_gap_incident_shows_the_offset_ranges(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.commit_gap(1_000)
    payments.commit_minute()
    payments.commit_minute()
    payments.run_due()
    shown = outrider("incidents", "show", 2).out
    assert "1,000 offsets could not be read" in shown
    assert "ranges: topic payments, partition 0, from_offset 240, to_offset 1240, reason retention" in shown


def test_escape_sequences_in_a_key_are_escaped(outrider: OutriderRunner, payments: PaymentsStream) -> None:
    payments.commit_minute(2, key="\x1b[2Jgone")
    out = outrider("history", "payments", "--limit", 60, "--format", "table").out
    assert "\x1b" not in out
    assert "\\x1b[2Jgone" in out


@pytest.mark.parametrize("which", ["7", "0", "-1"])
def test_unknown_incident_is_answered_with_the_latest_ids(
    outrider: OutriderRunner, payments: PaymentsStream, which: str
) -> None:
    result = outrider("incidents", "show", "--", which)
    assert (result.code, result.out) == (2, "")
    assert f"there is no incident {which}; the latest are 1" in result.err
