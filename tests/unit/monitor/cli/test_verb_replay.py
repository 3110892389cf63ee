"""Verbs, the control plane and other people at the same time: nothing is lost, and a replay gives the same rows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.control_plane.verbs import act
from monitor.daemon.rules import build_stream_rules
from monitor.incidents.verb_plan import VerbRequest
from monitor.incidents.verbs import Verb
from storage.control.mutes import MuteStore, NewMute
from storage.control.windows import WindowStore
from storage.database.engine import Database
from storage.resolved import delete_incidents, delete_mutes
from tests.unit.monitor.cli.payments_stream import REFERENCE, T0, PaymentsStream, write_config

pytestmark = pytest.mark.slow

VERBS = {22: Verb.ACKNOWLEDGE, 25: Verb.FALSE_ALARM, 30: Verb.CONFIRM, 36: Verb.REOPEN, 38: Verb.RESOLVE}
"""The verb that is applied to the newest spike after a minute."""


@pytest.fixture
def url(upgraded_url: str) -> str:
    return upgraded_url


def fetch_rows(db: Database, query: str) -> list[tuple[Any, ...]]:
    with db.read() as conn:
        return [tuple(row) for row in conn.exec_driver_sql(query)]


def apply(payments: PaymentsStream, verb: Verb, incident: int, who: str = "anna") -> str:
    rules = build_stream_rules(payments.settings, "payments")
    now_us = T0 + payments.minute
    return act(payments.db, incident, VerbRequest(verb=verb, who=who), rules, now_us=now_us).outcome


def commit_random_minute(payments: PaymentsStream, rng: np.random.Generator) -> None:
    energies = rng.choice(REFERENCE, 200).astype(np.float32)
    if payments.minute % 20 in {18, 19}:
        energies[:40] = rng.uniform(4, 12, 40).astype(np.float32)
    payments.commit_energies(energies)


def stored_rows(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of the control plane and of the verbs, without times of storing."""
    queries = {
        "thresholds": "computed_at_us, valid_from_us, threshold, lower, upper, n, method, details",
        "calibrations": "at_us, realised_per_week, windows_learned, dispersion, exceedance, state, true_alarms, "
        'false_alarms, without_verdict, "precision", precision_lower, precision_upper',
        "windows": "window_start_us, events, outliers, p_value, details, adopted_at_us IS NULL",
        "incidents": "id, kind, severity, status, opened_at_us, resolved_at_us, last_told_us, clean_windows, "
        "windows_fired, summary, details, verdict, acknowledged_by, acknowledged_until_us, reopen_until_us",
        "incident_verbs": 'incident_id, verb, who, judged_until_us, tick_us, "before", "after", effects',
        "transitions": "incident_id, transition, window_start_us, at_us, summary, details, severity",
        "notifications": "id, incident_id, channel, state",
    }
    return {
        table: sorted(fetch_rows(db, f"SELECT {columns} FROM {table}"), key=repr) for table, columns in queries.items()
    }


def run_stream(db: Database, config: Path, *, restarts: bool) -> dict[str, list[tuple[Any, ...]]]:
    """Run a stream with verbs; with restarts, each step is done by another process with empty caches."""
    payments = PaymentsStream(db, config)
    payments.add_model()
    rng = np.random.default_rng(3)
    plane = payments.control_plane()
    for minute in range(70):
        commit_random_minute(payments, rng)
        plane = payments.control_plane() if restarts else plane
        plane.run_due()
        if minute in VERBS:
            if restarts:
                payments.control_plane()  # a process that ends between the verb and the tick
            (newest,) = fetch_rows(db, "SELECT max(id) FROM incidents WHERE kind = 'spike'")
            assert apply(payments, VERBS[minute], newest[0]) == "done"
    plane.run_due()
    return stored_rows(db)


def test_replay_with_verbs_gives_the_same_rows_with_and_without_restarts(
    db: Database, config: Path, tmp_path: Path
) -> None:
    rows = run_stream(db, config, restarts=False)
    assert len(rows["incident_verbs"]) == len(VERBS)
    other = tmp_path / "other"
    other.mkdir()
    url = f"sqlite:///{other / 'outrider.db'}"
    with Database(url) as replayed:
        again = run_stream(replayed, write_config(other, url), restarts=True)
    assert list(again) == list(rows)
    for table, expected in rows.items():
        found = [tuple(bool(v) if isinstance(v, bool) else v for v in row) for row in again[table]]
        assert [list(map(_plain, row)) for row in found] == [list(map(_plain, row)) for row in expected], table


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def test_two_people_at_once_leave_one_chain_of_states(payments: PaymentsStream, db: Database) -> None:
    verbs = [Verb.FALSE_ALARM, Verb.CONFIRM] * 6
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda verb: apply(payments, verb, 1, who=verb.value), verbs))
    rows = fetch_rows(db, 'SELECT verb, "before", "after" FROM incident_verbs ORDER BY id')
    assert len(rows) == outcomes.count("done")
    assert outcomes.count("unchanged") == len(verbs) - len(rows)
    for (_, _, after), (_, before, _) in pairwise(rows):
        assert before == after
    assert all(first[0] != second[0] for first, second in pairwise(rows))
    (adopted,) = fetch_rows(db, "SELECT count(*) FROM windows WHERE adopted_at_us IS NOT NULL")
    assert adopted[0] == (1 if rows[-1][0] == "false_alarm" else 0)


def test_two_people_acknowledge_at_once_and_one_of_them_has_it(payments: PaymentsStream, db: Database) -> None:
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda who: apply(payments, Verb.ACKNOWLEDGE, 1, who=who), ("anna", "bert")))
    assert sorted(outcomes) == ["done", "unchanged"]
    (by,) = fetch_rows(db, "SELECT acknowledged_by FROM incidents")
    assert fetch_rows(db, "SELECT who FROM incident_verbs") == [by]
    assert len(fetch_rows(db, "SELECT id FROM notifications WHERE channel = 'log'")) == 2


@pytest.mark.parametrize("verb", [Verb.ACKNOWLEDGE, Verb.RESOLVE, Verb.CONFIRM])
def test_verb_between_the_facts_and_the_storing_of_a_judgement_is_kept(
    payments: PaymentsStream, db: Database, monkeypatch: pytest.MonkeyPatch, verb: Verb
) -> None:
    """A judgement on facts before the verb is not stored; it is decided again on the incident as it is now."""
    payments.commit_minute(30)
    payments.commit_minute()
    original: Callable[..., bool] = WindowStore.store_judgement
    applied: list[str] = []

    def store_judgement(self: WindowStore, *arguments: Any) -> bool:
        if not applied:
            applied.append(apply(payments, verb, 1))
        return original(self, *arguments)

    monkeypatch.setattr(WindowStore, "store_judgement", store_judgement)
    plane = payments.control_plane()
    plane.run_due()
    plane.run_due()
    assert applied == ["done"]
    (row,) = fetch_rows(db, "SELECT status, verdict, acknowledged_by FROM incidents WHERE id = 1")
    expected = {
        Verb.ACKNOWLEDGE: ("open", None, "anna"),
        Verb.RESOLVE: ("open", None, None),  # the next firing window opened it again
        Verb.CONFIRM: ("open", "confirmed", None),
    }
    assert row == expected[verb]
    transitions = [kind for (kind,) in fetch_rows(db, "SELECT transition FROM transitions ORDER BY id")]
    told = {Verb.ACKNOWLEDGE: ["acknowledged"], Verb.RESOLVE: ["resolved", "reopened"], Verb.CONFIRM: []}
    assert transitions == ["opened", *told[verb]]


def test_audit_rows_are_kept_with_their_incident_and_deleted_with_it(payments: PaymentsStream, db: Database) -> None:
    apply(payments, Verb.FALSE_ALARM, 1)
    for _ in range(40):
        payments.commit_minute()
    payments.commit_minute(30)
    payments.commit_minute()
    payments.run_due()
    with db.write() as conn:
        conn.exec_driver_sql("UPDATE notifications SET state = 'delivered'")
    assert delete_incidents(db, payments.stream.id, T0, lambda: False) == 0
    assert len(fetch_rows(db, "SELECT id FROM incident_verbs")) == 1
    assert delete_incidents(db, payments.stream.id, db.now_us() + 1, lambda: False) == 1
    assert fetch_rows(db, "SELECT id FROM incident_verbs") == []


def test_ended_mutes_are_deleted(payments: PaymentsStream, db: Database) -> None:
    store = MuteStore(db)
    for ends_at_us in (T0, db.now_us() + 1_000_000_000):
        store.add(NewMute(kind="spike", starts_at_us=T0 - 1, ends_at_us=ends_at_us, who="anna"))
    assert delete_mutes(db, T0 + 1, lambda: False) == 1
    assert [mute.id for mute in store.read_all()] == [2]
