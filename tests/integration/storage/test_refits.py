"""Refits in the database: each step is stored once, whichever process takes it."""

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from config.settings import RetentionSettings
from config.time_format import DAY_US, HOUR_US
from storage import retention
from storage.control.models import ModelStore, NewModel
from storage.control.refits import FittedShadow, RefitRow, RefitStore
from storage.control.shadows import NewShadow, ShadowStore
from storage.control.thresholds import ThresholdRow
from storage.database.tables import incidents, models, streams
from tests.contract.control_stores import new_threshold
from tests.integration.storage.commits import T0, ClaimedStream, count_rows

MODEL = NewModel(kind="gaussian_mixture", artefact=b"a refit", feature_names=("a",), summary={"events": 60})
FITTING = RefitRow(due_us=T0, state="fitting", details={"from_us": 0, "excluded": []})


def _fitted(**changes: Any) -> FittedShadow:
    fitted = FittedShadow(model=MODEL, percentile=99.5, threshold=7.0, since_us=T0 + HOUR_US, gate_us=T0 + DAY_US)
    return replace(fitted, **changes)


def _store_shadow(feed: ClaimedStream) -> RefitRow:
    store = RefitStore(feed.db)
    assert store.begin(feed.stream_id, None, FITTING)
    assert store.finish(feed.stream_id, FITTING, _fitted()) is not None
    row = store.last_refit(feed.stream_id)
    assert row is not None
    return row


def _revision(feed: ClaimedStream) -> int:
    with feed.db.read() as connection:
        return int(connection.execute(sa.select(streams.c.revision)).scalar_one())


def _make_threshold(model_id: int, activation: Any) -> ThresholdRow:
    return replace(new_threshold(model_id, activation.valid_from_us), computed_at_us=activation.computed_at_us)


def test_two_processes_begin_a_refit_once(feed: ClaimedStream) -> None:
    store = RefitStore(feed.db)
    assert store.begin(feed.stream_id, None, FITTING)
    assert not store.begin(feed.stream_id, None, FITTING)
    assert not store.begin(feed.stream_id, None, replace(FITTING, due_us=T0 + DAY_US))
    assert store.begin(feed.stream_id, T0, replace(FITTING, due_us=T0 + DAY_US))
    assert [row.due_us for row in store.list_refits(feed.stream_id)] == [T0 + DAY_US, T0]


def test_a_take_over_reads_what_the_fit_leaves_out(feed: ClaimedStream) -> None:
    row = replace(FITTING, details={"from_us": 5, "excluded": [[1, 2], [3, 4]]})
    assert RefitStore(feed.db).begin(feed.stream_id, None, row)
    assert RefitStore(feed.db).last_refit(feed.stream_id) == row


def test_the_result_of_a_fit_is_stored_once(feed: ClaimedStream) -> None:
    revision = _revision(feed)
    row = _store_shadow(feed)
    assert (row.state, row.gate_us, row.details["since_us"]) == ("shadow", T0 + DAY_US, T0 + HOUR_US)
    assert _revision(feed) == revision + 1, "the workers read the new shadow model"
    store = RefitStore(feed.db)
    assert store.finish(feed.stream_id, FITTING, _fitted()) is None, "another process has stored it"
    assert not store.fail(feed.stream_id, FITTING, "failed", "too late")
    assert count_rows(feed.db, "models") == 2
    (scheduled,) = ShadowStore(feed.db).read_scheduled(feed.stream_id)
    assert (scheduled.model_id, scheduled.threshold, scheduled.since_us) == (row.model_id, 7.0, T0 + HOUR_US)


def test_a_failure_is_stored_with_its_reason(feed: ClaimedStream) -> None:
    store = RefitStore(feed.db)
    store.begin(feed.stream_id, None, FITTING)
    assert store.fail(feed.stream_id, FITTING, "failed", "no memory")
    row = store.last_refit(feed.stream_id)
    assert row is not None
    assert (row.state, row.details["reason"]) == ("failed", "no memory")
    assert store.finish(feed.stream_id, FITTING, _fitted()) is None
    assert count_rows(feed.db, "models") == 1


def test_a_promoted_model_is_active_and_its_shadow_run_ends(feed: ClaimedStream) -> None:
    row, store = _store_shadow(feed), RefitStore(feed.db)
    assert store.promote(feed.stream_id, row, _make_threshold, {"holds": True})
    assert not store.promote(feed.stream_id, row, _make_threshold, {"holds": True})
    assert not store.reject(feed.stream_id, row, {"holds": False})
    active = ModelStore(feed.db).active(feed.stream_id)
    assert active is not None
    assert active.id == row.model_id
    assert ShadowStore(feed.db).current(feed.stream_id) is None
    decided = store.last_refit(feed.stream_id)
    assert decided is not None
    assert (decided.state, decided.details["holds"]) == ("promoted", True)


def test_a_rejected_model_becomes_a_candidate(feed: ClaimedStream) -> None:
    row, store = _store_shadow(feed), RefitStore(feed.db)
    assert store.reject(feed.stream_id, row, {"holds": False, "reason": "worse"})
    assert not store.reject(feed.stream_id, row, {"holds": False})
    assert [model.state for model in ModelStore(feed.db).list(feed.stream_id)] == ["active", "candidate"]
    assert ShadowStore(feed.db).read_scheduled(feed.stream_id) == []
    assert count_rows(feed.db, "shadow_parts") == 0


def test_a_shadow_model_of_a_person_is_not_replaced(feed: ClaimedStream) -> None:
    own = NewShadow(percentile=99.5, threshold=1.0, due_after_us=None)
    store, shadows = RefitStore(feed.db), ShadowStore(feed.db)
    store.begin(feed.stream_id, None, FITTING)
    started = shadows.start(feed.stream_id, MODEL, own)
    assert store.has_other_shadow(feed.stream_id)
    assert store.finish(feed.stream_id, FITTING, _fitted()) is None
    current = shadows.current(feed.stream_id)
    assert current is not None
    assert current.model_id == started.id
    row = store.last_refit(feed.stream_id)
    assert row is not None
    assert row.state == "skipped"


@pytest.mark.parametrize("holds", [True, False])
def test_a_person_who_starts_another_shadow_model_decides(feed: ClaimedStream, *, holds: bool) -> None:
    row, store = _store_shadow(feed), RefitStore(feed.db)
    assert not store.has_other_shadow(feed.stream_id)
    ShadowStore(feed.db).start(feed.stream_id, MODEL, NewShadow(percentile=99.5, threshold=1.0, due_after_us=None))
    decide = store.promote(feed.stream_id, row, _make_threshold, {}) if holds else store.reject(feed.stream_id, row, {})
    assert decide
    last = store.last_refit(feed.stream_id)
    assert last is not None
    assert last.state == "replaced"


def test_incidents_are_known_as_of_the_time_of_the_refit(feed: ClaimedStream) -> None:
    def add(kind: str, since: int, resolved: int | None, accepted: int | None = None) -> None:
        values = {
            "stream_id": feed.stream_id,
            "kind": kind,
            "severity": "warning",
            "status": "open" if resolved is None else "resolved",
            "window_start_us": T0 + since,
            "opened_at_us": T0 + since + 1,
            "resolved_at_us": None if resolved is None else T0 + resolved,
            "last_told_us": T0,
            "clean_windows": 0,
            "windows_fired": 1,
            "summary": "-",
            "accepted_at_us": accepted,
        }
        with feed.db.write() as connection:
            connection.execute(sa.insert(incidents).values(values))

    add("spike", 0, 10)
    add("spike", 100, 150)
    add("spike", 200, 900)
    add("drift", 300, None)
    add("silence", 310, 320)
    add("spike", 400, 410, accepted=T0)
    add("slow_rise", 500, 510)
    found = RefitStore(feed.db).find_incidents(feed.stream_id, ("spike", "slow_rise", "drift"), T0 + 10, T0 + 450)
    assert [(each.kind, each.since_us - T0, each.until_us and each.until_us - T0) for each in found] == [
        ("spike", 100, 150),
        ("spike", 200, None),
        ("drift", 300, None),
    ]


def test_retention_keeps_the_last_refit_and_forgets_deleted_models(feed: ClaimedStream) -> None:
    row, store = _store_shadow(feed), RefitStore(feed.db)
    store.reject(feed.stream_id, row, {"holds": False})
    for day in range(1, 4):
        later = replace(FITTING, due_us=T0 + day * DAY_US)
        store.begin(feed.stream_id, T0 + (day - 1) * DAY_US, later)
        store.finish(feed.stream_id, later, _fitted())
        store.reject(feed.stream_id, replace(later, model_id=_last_model(feed)), {"holds": False})
    retention.delete_expired(feed.db, RetentionSettings(models=1), T0)
    assert [each.model_id is None for each in store.list_refits(feed.stream_id)] == [False, True, True, True]
    with feed.db.read() as connection:
        now_us = feed.db.now_us(connection)
    retention.delete_expired(feed.db, RetentionSettings(models=1), now_us + 500 * DAY_US)
    assert [each.due_us for each in store.list_refits(feed.stream_id)] == [T0 + 3 * DAY_US]


def _last_model(feed: ClaimedStream) -> int:
    with feed.db.read() as connection:
        return int(connection.execute(sa.select(sa.func.max(models.c.id))).scalar_one())
