"""The preview of a verb equals the tick that is computed again after the verb, to the last bit; on both databases."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from config.stream_rules import RuleSchedule
from monitor.control_plane.kept_look_backs import KeptLookBacks
from monitor.control_plane.preview import VerbPreview, preview_verb, recompute_tick
from monitor.control_plane.verbs import act
from monitor.daemon.rules import build_stream_rules
from monitor.incidents.verb_plan import VerbRequest
from monitor.incidents.verbs import Verb
from storage.control.models import ModelStore
from storage.control.preview import PreviewThresholdStore
from storage.control.thresholds import ThresholdRow
from storage.control.verbs import VerbStore
from storage.database.engine import Database
from tests.unit.monitor.cli.conftest import OutriderRunner
from tests.unit.monitor.cli.payments_stream import REFERENCE, PaymentsStream, ReferenceModels

pytestmark = pytest.mark.slow


@pytest.fixture
def url(upgraded_url: str) -> str:
    return upgraded_url


def fetch_rows(db: Database, query: str) -> list[tuple[Any, ...]]:
    with db.read() as conn:
        return [tuple(row) for row in conn.exec_driver_sql(query)]


@pytest.fixture
def ticked(payments: PaymentsStream) -> PaymentsStream:
    """Stream with a resolved spike of three windows, the energies of the reference, and a tick after it."""
    rng = np.random.default_rng(5)
    for minute in range(70):
        energies = rng.choice(REFERENCE, 600).astype(np.float32)
        if minute in {50, 51, 52}:
            energies[:60] = rng.uniform(4, 12, 60).astype(np.float32)
        payments.commit_energies(energies)
        if minute % 5 == 0:
            payments.run_due()
    payments.run_due()
    return payments


def find_spike(db: Database) -> int:
    return int(fetch_rows(db, "SELECT max(id) FROM incidents WHERE kind = 'spike'")[0][0])


def schedule_of(payments: PaymentsStream) -> RuleSchedule:
    return RuleSchedule.constant(build_stream_rules(payments.settings, "payments"))


def models_of(payments: PaymentsStream) -> ReferenceModels:
    return ReferenceModels("payments", ModelStore(payments.db))


def preview(
    payments: PaymentsStream, incident: int, verb: Verb, look_backs: KeptLookBacks | None = None
) -> VerbPreview:
    db = payments.db
    facts = VerbStore(db).facts(incident)
    assert facts is not None
    request = VerbRequest(verb=verb, who="anna")
    return preview_verb(
        db,
        facts,
        request,
        schedule_of(payments),
        lambda: models_of(payments),
        now_us=db.now_us(),
        look_backs=look_backs,
    )


def recompute(payments: PaymentsStream, incident: int) -> ThresholdRow | None:
    """Compute the last tick again from the stored windows."""
    facts = VerbStore(payments.db).facts(incident)
    assert facts is not None
    store = PreviewThresholdStore(payments.db, facts, None)
    return recompute_tick(payments.db, store, facts, schedule_of(payments), models_of(payments))


def apply(payments: PaymentsStream, incident: int, verb: Verb, seen: VerbPreview) -> None:
    rules = build_stream_rules(payments.settings, "payments")
    request = VerbRequest(verb=verb, who="anna")
    now_us = payments.db.now_us()
    assert act(payments.db, incident, request, rules, now_us=now_us, basis=seen.basis).outcome == "done"


def test_last_tick_computed_again_is_the_stored_one(ticked: PaymentsStream, db: Database) -> None:
    computed, stored = recompute(ticked, find_spike(db)), preview(ticked, find_spike(db), Verb.FALSE_ALARM).stored
    assert computed is not None
    assert stored is not None
    assert replace(stored, id=None, valid_from_us=0) == replace(computed, valid_from_us=0)


@pytest.mark.parametrize(
    "verbs", [[Verb.FALSE_ALARM], [Verb.CONFIRM], [Verb.FALSE_ALARM, Verb.CONFIRM], [Verb.FALSE_ALARM, Verb.REOPEN]]
)
def test_preview_equals_the_tick_after_the_verb(ticked: PaymentsStream, db: Database, verbs: list[Verb]) -> None:
    incident = find_spike(db)
    changes = []
    for verb in verbs:
        seen = preview(ticked, incident, verb)
        assert seen.computed is not None
        rows = fetch_rows(db, "SELECT count(*) FROM incident_verbs")
        apply(ticked, incident, verb, seen)
        assert fetch_rows(db, "SELECT count(*) FROM incident_verbs") == [(rows[0][0] + 1,)]
        assert recompute(ticked, incident) == seen.computed
        changes.append((seen.windows, seen.computed.details["law"]["windows"]))
    if verbs[0] is Verb.FALSE_ALARM:
        assert changes[0][0] == 3
        stored = preview(ticked, incident, Verb.CONFIRM).stored if len(verbs) == 1 else None
        if stored is not None:
            assert changes[0][1] == stored.details["law"]["windows"] + 3


def test_kept_look_backs_give_the_same_previews(ticked: PaymentsStream, db: Database) -> None:
    incident, kept = find_spike(db), KeptLookBacks()

    def compare(verb: Verb) -> VerbPreview:
        seen = preview(ticked, incident, verb)
        again = preview(ticked, incident, verb, kept)
        assert (again.computed, again.same_window, again.windows) == (seen.computed, seen.same_window, seen.windows)
        return seen

    for verb in (Verb.FALSE_ALARM, Verb.CONFIRM, Verb.REOPEN):
        for other in (Verb.CONFIRM, Verb.FALSE_ALARM):
            if other is not verb:
                compare(other)
        apply(ticked, incident, verb, compare(verb))
        ticked.commit_energies(REFERENCE[:600])
        ticked.run_due()
    for _ in range(6):
        ticked.commit_energies(REFERENCE[600:1_200])
    ticked.run_due()
    assert compare(Verb.FALSE_ALARM).computed is not None


def test_preview_writes_nothing(ticked: PaymentsStream, db: Database) -> None:
    tables = ("incidents", "incident_verbs", "windows", "thresholds", "streams", "transitions", "notifications")
    before = [fetch_rows(db, f"SELECT * FROM {table}") for table in tables]
    preview(ticked, find_spike(db), Verb.FALSE_ALARM)
    assert [fetch_rows(db, f"SELECT * FROM {table}") for table in tables] == before


def test_preview_says_whether_the_same_window_would_fire_again(ticked: PaymentsStream, db: Database) -> None:
    same = preview(ticked, find_spike(db), Verb.FALSE_ALARM).same_window
    assert same is not None
    assert same.events == 600
    assert 60 <= same.outliers_before < 75
    assert 60 <= same.outliers_after < 75
    assert same.fires or same.outliers_after < same.fires_at


def test_dry_run_prints_the_change_and_its_basis(
    outrider: OutriderRunner, ticked: PaymentsStream, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.daemon.verbs.ModelCache", ReferenceModels)
    incident = find_spike(db)
    result = outrider("incidents", "false-alarm", incident, "--dry-run")
    assert (result.code, result.err) == (0, "")
    assert "3 windows count again in the calibration from the next tick on" in result.out
    assert re.search(r"the threshold of the last tick moves from [\d.]+ to [\d.]+ \([\d.]+ to [\d.]+\)", result.out)
    assert re.search(r"6\d of the 600 events .* would be outliers \(6\d were\): the same window would", result.out)
    basis = re.search(r"Basis: (\S+) ", result.out)
    assert basis is not None
    assert fetch_rows(db, "SELECT * FROM incident_verbs") == []
    assert outrider("incidents", "false-alarm", incident, "--basis", basis[1]).code == 0
    late = outrider("incidents", "confirm", incident, "--basis", basis[1])
    assert late.code == 2
    assert "has changed since the preview" in late.err


def test_dry_run_of_a_verb_without_effect_on_the_calibration(
    outrider: OutriderRunner, payments: PaymentsStream, db: Database
) -> None:
    result = outrider("incidents", "acknowledge", 1, "--dry-run", "--who", "anna")
    assert "it is acknowledged by anna until 2026-01-02T00:03:00" in result.out
    assert "the message `acknowledged` is stored" in result.out
    assert "the calibration does not change" in result.out
    outrider("incidents", "acknowledge", 1)
    assert "nothing would change" in outrider("incidents", "acknowledge", 1, "--dry-run").out
    assert outrider("incidents", "reopen", 1, "--dry-run").code == 2
