"""Acceptance of an incident in one transaction, with the effects of each kind of incident."""

import json

import numpy as np
import sqlalchemy as sa

from storage.control.acceptance import Acceptance, AcceptanceFacts, AcceptedReference, accept_incident
from storage.control.incidents import change_incidents
from storage.control.records import Incident
from storage.control.thresholds import ThresholdStore
from storage.database.engine import Database
from storage.database.tables import windows
from tests.integration.storage.commits import MINUTE, T0, ClaimedStream, claim_stream, fetch_rows


def make_incident(kind: str, *, number: int | None = None, status: str = "open") -> Incident:
    return Incident(
        id=number,
        kind=kind,
        severity="warning",
        status=status,
        window_start_us=T0,
        opened_at_us=T0 + MINUTE,
        last_told_us=T0 + MINUTE,
        clean_windows=0,
        windows_fired=1,
        summary="an incident",
        details={},
        resolved_at_us=None if status == "open" else T0 + 2 * MINUTE,
    )


def accept_kind(feed: ClaimedStream, kind: str, reference: AcceptedReference | None = None) -> tuple[int, int | None]:
    (number,) = change_incidents(feed.db, feed.stream_id, "payments", lambda _: [make_incident(kind)])

    def decide(facts: AcceptanceFacts) -> Acceptance:
        return Acceptance(
            incident_row=make_incident(kind, number=facts.incident.id, status="resolved"),
            at_us=T0 + 2 * MINUTE,
            adopt_since_us=T0,
            accepted_rate_until_us=T0 + 9 * MINUTE,
            reference=reference,
            rebase_from_us=T0 if kind == "drift" else None,
        )

    return number, accept_incident(feed.db, feed.stream_id, "payments", number, decide)


def test_accepted_drift_starts_a_new_base_where_it_was_found(db: Database) -> None:
    feed = claim_stream(db)
    assert accept_kind(feed, "drift")[1] == 0
    assert fetch_rows(db, "SELECT rebased_from_us FROM drift_marks") == [(T0,)]
    assert fetch_rows(db, "SELECT status, accepted_at_us FROM incidents") == [("resolved", T0 + 2 * MINUTE)]


def test_newest_accepted_reference_is_returned_bit_for_bit(db: Database) -> None:
    feed = claim_stream(db)
    ((model_id,),) = fetch_rows(db, "SELECT id FROM models")
    store = ThresholdStore(db)
    assert store.accepted_reference(model_id) is None
    for shift in (0, 1):
        energies = np.linspace(shift, shift + 1, 7).astype(np.float32)
        accept_kind(feed, "calibration", AcceptedReference(model_id=model_id, at_us=T0, energies=energies))
    reference = store.accepted_reference(model_id)
    assert reference is not None
    assert reference.tobytes() == energies.tobytes()
    assert store.tick_facts(feed.stream_id).acceptances == 2


def add_fired_window(feed: ClaimedStream, number: int, kind: str, outliers: int) -> None:
    with feed.db.write() as conn:
        conn.execute(
            sa.insert(windows).values(
                stream_id=feed.stream_id,
                window_start_us=T0 + number * MINUTE,
                window_end_us=T0 + (number + 1) * MINUTE,
                threshold_id=feed.threshold_id,
                events=100,
                outliers=outliers,
                late=0,
                dead=0,
                details=json.dumps({"fired": kind}),
                judged_at_us=T0,
            )
        )


def test_windows_of_the_kind_are_adopted_and_the_higher_rate_remains_normal(db: Database) -> None:
    feed = claim_stream(db)
    add_fired_window(feed, 0, "spike", 50)
    add_fired_window(feed, 1, "spike", 30)
    add_fired_window(feed, 2, "slow_rise", 2)
    assert accept_kind(feed, "spike")[1] == 2
    assert fetch_rows(db, "SELECT adopted_at_us IS NULL FROM windows ORDER BY window_start_us") in (
        [(0,), (0,), (1,)],
        [(False,), (False,), (True,)],
    )
    assert accept_kind(feed, "slow_rise")[1] == 1
    ((state,),) = fetch_rows(db, "SELECT judge_state FROM streams")
    accepted = json.loads(state)["accepted"]
    assert (accepted["rate"], accepted["until_us"]) == (0.4, T0 + 9 * MINUTE)


def test_incident_resolved_in_the_meantime_is_not_changed(db: Database) -> None:
    feed = claim_stream(db)
    number, _ = accept_kind(feed, "spike")
    before = fetch_rows(db, "SELECT * FROM incidents"), fetch_rows(db, "SELECT acceptances FROM streams")

    def decide(_: AcceptanceFacts) -> Acceptance:
        raise AssertionError

    assert accept_incident(db, feed.stream_id, "payments", number, decide) is None
    assert (fetch_rows(db, "SELECT * FROM incidents"), fetch_rows(db, "SELECT acceptances FROM streams")) == before
