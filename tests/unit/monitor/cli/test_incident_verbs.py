"""Verbs on incidents through the command line: rows, messages, calibration, audit; on both databases."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from config.time_format import DAY_US
from config.units import parse_duration
from monitor.control_plane.verbs import BasisChanged, act
from monitor.daemon.rules import build_stream_rules
from monitor.incidents.verb_plan import VerbRequest
from monitor.incidents.verbs import Verb
from storage.control.thresholds import ThresholdStore
from storage.control.verbs import VerbStore
from storage.database.engine import Database
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import MINUTE, T0, PaymentsStream

pytestmark = pytest.mark.slow


@pytest.fixture
def url(upgraded_url: str) -> str:
    return upgraded_url


def fetch_rows(db: Database, query: str) -> list[tuple[Any, ...]]:
    with db.read() as conn:
        return [tuple(row) for row in conn.exec_driver_sql(query)]


def told(db: Database) -> list[tuple[str, str]]:
    """Return the transitions that are told on the log, with the state of the message."""
    query = (
        "SELECT transition, state FROM notification_history n WHERE channel = 'log' ORDER BY created_at_us, transition"
    )
    return fetch_rows(db, query)


def fired(payments: PaymentsStream) -> list[bool]:
    windows = ThresholdStore(payments.db).judged_windows(payments.stream.id, 1, T0, T0 + DAY_US)
    return [window.fired for window in windows]


def spike_for(payments: PaymentsStream, minutes: int) -> None:
    for _ in range(minutes):
        payments.commit_minute(30)
    payments.run_due()


def repeat_every(payments: PaymentsStream, interval: str) -> None:
    """Set `alerts.repeat_interval`."""
    stream = payments.settings.streams["payments"]
    alerts = stream.alerts.model_copy(update={"repeat_interval": parse_duration(interval)})
    streams = {**payments.settings.streams, "payments": stream.model_copy(update={"alerts": alerts})}
    payments.settings = payments.settings.model_copy(update={"streams": streams})


def verbs(db: Database) -> list[tuple[Any, ...]]:
    return fetch_rows(db, "SELECT verb, who, note FROM verdict_history ORDER BY id")


def test_acknowledged_incident_is_not_repeated_and_its_escalation_is_told(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    result = outrider("incidents", "acknowledge", 1, "--who", "anna", "--note", "looking")
    assert (result.code, result.err) == (0, "")
    assert "is acknowledged" in result.out
    row = fetch_rows(db, "SELECT status, acknowledged_by, acknowledged_at IS NULL, verdict FROM incident_history")
    assert row in ([("open", "anna", 0, None)], [("open", "anna", False, None)])
    assert verbs(db) == [("acknowledge", "anna", "looking")]
    with db.write() as conn:
        conn.exec_driver_sql("UPDATE incidents SET severity = 'critical'")
    repeat_every(payments, "3m")
    spike_for(payments, 8)
    assert sorted(transition for transition, _ in told(db)) == ["acknowledged", "opened"]
    with db.write() as conn:
        conn.exec_driver_sql("UPDATE incidents SET severity = 'warning'")
    spike_for(payments, 2)
    assert sorted(transition for transition, _ in told(db)) == ["acknowledged", "escalated", "opened"]
    # The escalation ends the acknowledgement.
    assert fetch_rows(db, "SELECT acknowledged_by, acknowledged_at FROM incident_history") == [(None, None)]


def test_expired_acknowledgement_is_told_once_as_a_reminder(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    outrider("incidents", "acknowledge", 1)
    with db.write() as conn:
        conn.exec_driver_sql(f"UPDATE incidents SET acknowledged_until_us = {T0 + 8 * MINUTE}, severity = 'critical'")
    spike_for(payments, 10)
    assert sorted(transition for transition, _ in told(db)) == ["acknowledged", "opened", "repeated"]
    assert fetch_rows(db, "SELECT acknowledged_by FROM incident_history") == [(None,)]


def test_second_acknowledgement_names_the_first_person_and_changes_nothing(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    outrider("incidents", "acknowledge", 1, "--who", "anna")
    result = outrider("incidents", "acknowledge", 1, "--who", "bert")
    assert result.code == 0
    assert "was acknowledged by anna" in result.out
    assert verbs(db) == [("acknowledge", "anna", None)]


def test_false_alarm_ends_the_incident_and_its_windows_count_again(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    assert fired(payments) == [False, False, True]
    result = outrider("incidents", "false-alarm", 1, "--note", "load test")
    assert (result.code, result.err) == (0, "")
    assert "is a false alarm: 1 window counts again from the next threshold on" in result.out
    assert fired(payments) == [False, False, False]
    assert fetch_rows(db, "SELECT status, verdict FROM incident_history") == [("resolved", "false_alarm")]
    # The rate of outliers is not accepted: the next such window opens another incident.
    spike_for(payments, 2)
    assert fetch_rows(db, "SELECT id, status FROM incidents ORDER BY id") == [(1, "resolved"), (2, "open")]


def test_later_verdict_reverses_the_earlier_one(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    outrider("accept", 1)
    (before,) = fetch_rows(db, "SELECT judge_state FROM streams")
    assert json.loads(before[0])["accepted"]["incident_id"] == 1
    assert outrider("incidents", "confirm", 1).code == 0
    assert fired(payments) == [False, False, True]
    (after,) = fetch_rows(db, "SELECT judge_state FROM streams")
    assert "accepted" not in json.loads(after[0])
    windows = ThresholdStore(db).judged_windows(payments.stream.id, 1, T0, T0 + DAY_US)
    assert [window.confirmed for window in windows] == [False, False, True]
    assert outrider("incidents", "false-alarm", 1).code == 0
    assert fired(payments) == [False, False, False]
    assert fetch_rows(db, "SELECT verdict FROM incident_history") == [("false_alarm",)]
    assert [verb for verb, _, _ in verbs(db)] == ["accept", "confirm", "false_alarm"]
    states = fetch_rows(db, 'SELECT "before", "after" FROM incident_verbs ORDER BY id')
    verdicts = [(json.loads(a)["verdict"], json.loads(b)["verdict"]) for a, b in states]
    assert verdicts == [(None, "accepted"), ("accepted", "confirmed"), ("confirmed", "false_alarm")]


def test_confirmed_windows_of_an_open_incident_are_left_out(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    outrider("incidents", "confirm", 1)
    assert fetch_rows(db, "SELECT status, verdict FROM incident_history") == [("open", "confirmed")]
    spike_for(payments, 3)
    windows = ThresholdStore(db).judged_windows(payments.stream.id, 1, T0, T0 + DAY_US)
    assert [window.confirmed for window in windows if window.fired] == [True] * 3


def test_reopened_incident_loses_its_verdict_and_tells_its_channels(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    outrider("incidents", "false-alarm", 1)
    assert outrider("incidents", "reopen", 1).code == 0
    assert fetch_rows(db, "SELECT status, verdict FROM incident_history") == [("open", None)]
    assert fired(payments) == [False, False, True]
    assert outrider("incidents", "resolve", 1, "--note", "repaired").code == 0
    assert outrider("incidents", "resolve", 1).out.endswith("already; nothing was changed.\n")
    assert sorted(transition for transition, _ in told(db)) == ["opened", "reopened", "resolved", "resolved"]
    assert fetch_rows(db, "SELECT status, verdict FROM incident_history") == [("resolved", None)]


def test_wrong_state_is_an_error_that_names_the_allowed_verbs(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    result = outrider("incidents", "reopen", 1)
    assert result.code == 2
    assert "incident 1 is open and cannot be reopened; possible are acknowledge, accept, false-alarm" in result.err
    outrider("incidents", "resolve", 1)
    result = outrider("incidents", "acknowledge", 1)
    assert result.code == 2
    assert "incident 1 is resolved and cannot be acknowledged" in result.err
    assert len(verbs(db)) == 1


def test_timeline_shows_transitions_verbs_and_messages_in_order(
    outrider: OutriderRunner, payments: PaymentsStream
) -> None:
    outrider("incidents", "acknowledge", 1, "--who", "anna", "--note", "looking")
    outrider("incidents", "false-alarm", 1, "--who", "bert")
    text = outrider("incidents", "show", 1).out
    lines = text[text.index("Timeline") : text.index("Numbers at opening")].splitlines()[1:]
    words = [line.split()[1] for line in lines if line.strip()]
    assert words == ["opened:", "acknowledge", "acknowledged:", "false-alarm", "resolved:"]
    assert "false alarm" in text.splitlines()[0]
    shown = json.loads(outrider("incidents", "show", 1, "--format", "json").out)
    assert [(each["verb"], each["who"]) for each in shown["verbs"]] == [
        ("acknowledge", "anna"),
        ("false_alarm", "bert"),
    ]


def test_basis_that_has_changed_refuses_the_verb(payments: PaymentsStream, db: Database) -> None:
    rules = build_stream_rules(payments.settings, "payments")
    facts = VerbStore(db).facts(1)
    assert facts is not None
    request = VerbRequest(verb=Verb.FALSE_ALARM, who="anna")
    stale = replace(facts.basis, revision=facts.basis.revision - 1)
    with pytest.raises(BasisChanged, match="has changed since the preview"):
        act(db, 1, request, rules, now_us=db.now_us(), basis=stale)
    assert verbs(db) == []
    assert act(db, 1, request, rules, now_us=db.now_us(), basis=facts.basis).outcome == "done"


def test_verb_between_the_facts_and_the_storing_of_a_tick_is_not_lost(
    payments: PaymentsStream, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick that has read the windows before a verdict is not stored; it is computed again with the verdict."""
    rules = build_stream_rules(payments.settings, "payments")
    for _ in range(20):
        payments.commit_minute()
    plane = payments.control_plane()
    original: Callable[..., bool] = ThresholdStore.store_tick
    interrupted: list[int] = []

    def store_tick(self: ThresholdStore, *arguments: Any, **values: Any) -> bool:
        if not interrupted:
            interrupted.append(values["tick_us"])
            act(db, 1, VerbRequest(verb=Verb.FALSE_ALARM, who="anna"), rules, now_us=db.now_us())
        return original(self, *arguments, **values)

    monkeypatch.setattr(ThresholdStore, "store_tick", store_tick)
    plane.run_due()
    plane.run_due()
    (verb,) = fetch_rows(db, "SELECT tick_us FROM incident_verbs")
    rows = fetch_rows(
        db, "SELECT computed_at_us, n FROM thresholds WHERE method <> 'reference' ORDER BY computed_at_us"
    )
    ticks = fetch_rows(db, "SELECT at_us, windows_learned, false_alarms FROM calibrations ORDER BY at_us")
    assert interrupted[0] in {at_us for at_us, _, _ in ticks}
    for at_us, _, false_alarms in ticks:
        assert false_alarms == (1 if at_us > (verb[0] or 0) else 0)
    assert all(n % 60 == 0 for _, n in rows)


def test_measured_precision_has_an_interval(outrider: OutriderRunner, payments: PaymentsStream, db: Database) -> None:
    outrider("incidents", "confirm", 1)
    for _ in range(15):
        payments.commit_minute()
    payments.run_due()
    query = 'SELECT true_alarms, false_alarms, without_verdict, "precision", precision_lower, precision_upper '
    (row,) = fetch_rows(db, query + "FROM calibration_history ORDER BY at_us DESC LIMIT 1")
    assert row[:4] == (1, 0, 0, 1.0)
    assert row[4] == pytest.approx(0.025)
    assert row[5] == 1.0


def test_incident_opened_within_the_time_after_a_resolution_is_the_same_one(
    payments: PaymentsStream, db: Database
) -> None:
    """A signal that comes and goes for an hour is one incident with three messages, and one more when it has ended."""
    for _ in range(15):
        for outliers in (0, 0, 0, 30):
            payments.commit_minute(outliers)
    payments.run_due()
    assert fetch_rows(db, "SELECT id, status FROM incidents WHERE kind = 'spike'") == [(1, "open")]
    assert sorted(transition for transition, _ in told(db)) == ["opened", "reopened", "resolved"]
    for _ in range(40):
        payments.commit_minute()
    payments.run_due()
    assert fetch_rows(db, "SELECT id, status FROM incidents WHERE kind = 'spike'") == [(1, "resolved")]
    assert sorted(transition for transition, _ in told(db)) == ["opened", "reopened", "resolved", "resolved"]
    spike_for(payments, 2)
    assert len(fetch_rows(db, "SELECT id FROM incidents WHERE kind = 'spike'")) in {1, 2}


def test_spike_within_the_time_after_an_acceptance_is_a_new_incident(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    outrider("accept", 1)
    payments.commit_minute(55)
    payments.commit_minute()
    payments.run_due()
    assert len(fetch_rows(db, "SELECT id FROM incidents WHERE kind = 'spike'")) == 2


def test_spike_after_the_time_is_a_new_incident(payments: PaymentsStream, db: Database) -> None:
    for outliers in (*[0] * 40, 30, 0):
        payments.commit_minute(outliers)
    payments.run_due()
    assert len(fetch_rows(db, "SELECT id FROM incidents WHERE kind = 'spike'")) == 2
    (late,) = fetch_rows(db, "SELECT window_start_us FROM incidents WHERE id = 2")
    assert late[0] >= T0 + 40 * MINUTE
