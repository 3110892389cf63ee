"""Models and ticks: the start of their validity, so that one model and one threshold apply to each event."""

import pytest

from monitor.thresholds.tick import build_first_threshold
from storage.control.models import ModelRecord, ModelStore
from storage.control.thresholds import ThresholdRow, ThresholdStore
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from tests.integration.control.source_commits import run_concurrently
from tests.integration.control.worker_bench import (
    MINUTE,
    NAMES,
    PERCENTILE,
    RULE,
    T0,
    add_model,
    count_rows,
    fetch_rows,
    fit_small_model,
    seal,
)

LEAD = RULE.grace_us + RULE.ahead_us


def promote(db: Database, stream_id: int, model_id: int) -> ModelRecord:
    return ModelStore(db).promote(
        stream_id, model_id, lambda of, at: build_first_threshold(fit_small_model().reference, of, at, PERCENTILE)
    )


def revision(db: Database, stream_id: int) -> int:
    return Ledger(db).read_control(stream_id).revision


def starts(db: Database) -> list[tuple[object, ...]]:
    return fetch_rows(db, "SELECT model_id, valid_from_us FROM thresholds ORDER BY valid_from_us, id")


def threshold(model_id: int, tick_us: int, value: float = 5.0) -> ThresholdRow:
    return ThresholdRow(
        model_id=model_id,
        computed_at_us=tick_us,
        valid_from_us=tick_us + 11 * MINUTE,
        percentile=99.0,
        threshold=value,
        lower=value,
        upper=value,
        n=100,
        method="percentile",
        details={},
    )


def test_a_tick_is_stored_once_by_the_first_of_concurrent_holders(db: Database, stream_id: int) -> None:
    store = ThresholdStore(db)
    newest = store.newest_threshold(stream_id)
    assert newest is not None

    def tick(value: float) -> bool:
        row = threshold(newest.model_id, T0, value)
        return store.store_tick(stream_id, last_tick_us=None, tick_us=T0, threshold=row, calibration=None)

    assert sorted(run_concurrently(lambda: tick(1.0), lambda: tick(2.0), lambda: tick(3.0))) == [False, False, True]
    assert count_rows(db, "thresholds") == 2
    assert store.tick_facts(stream_id).last_tick_us == T0


def test_a_tick_computed_before_another_one_is_not_stored(db: Database, stream_id: int) -> None:
    store = ThresholdStore(db)
    newest = store.newest_threshold(stream_id)
    assert newest is not None
    first = store.store_tick(
        stream_id, last_tick_us=None, tick_us=T0, threshold=threshold(newest.model_id, T0), calibration=None
    )
    stale = store.store_tick(
        stream_id,
        last_tick_us=None,
        tick_us=T0 + MINUTE,
        threshold=threshold(newest.model_id, T0 + MINUTE),
        calibration=None,
    )
    assert (first, stale) == (True, False)
    assert store.tick_facts(stream_id).last_tick_us == T0


def test_the_first_model_is_valid_from_the_beginning_of_time(db: Database, stream_id: int) -> None:
    model = ModelStore(db).active(stream_id)
    assert model is not None
    assert (model.version, model.state, model.valid_from_us, model.feature_names) == (1, "active", 0, NAMES)
    assert starts(db) == [(model.id, 0)]


def test_one_of_several_concurrent_warm_ups_stores_its_model(db: Database) -> None:
    stream = Ledger(db).open_stream("another", MINUTE, LEAD)
    stored = run_concurrently(*[lambda: add_model(db, stream.id, only_first=True)] * 3)
    assert sum(model is not None for model in stored) == 1
    assert len(ModelStore(db).list(stream.id)) == 1


def test_a_later_model_is_valid_from_the_first_window_after_the_lead(db: Database, stream_id: int) -> None:
    seal(db, stream_id, T0 + 3 * MINUTE)
    before = revision(db, stream_id)
    model = add_model(db, stream_id, seed=1)
    assert model is not None
    assert model.valid_from_us is not None
    assert T0 + 3 * MINUTE + LEAD <= model.valid_from_us < T0 + 3 * MINUTE + LEAD + MINUTE
    assert model.valid_from_us % MINUTE == 0
    assert revision(db, stream_id) == before + 1
    assert [each.state for each in ModelStore(db).list(stream_id)] == ["retired", "active"]


def test_a_model_is_valid_after_the_start_of_the_newest_threshold(db: Database, stream_id: int) -> None:
    seal(db, stream_id, T0)
    newest = ThresholdStore(db).newest_threshold(stream_id)
    assert newest is not None
    far = threshold(newest.model_id, T0 + 60 * MINUTE)
    ThresholdStore(db).store_tick(
        stream_id, last_tick_us=None, tick_us=far.computed_at_us, threshold=far, calibration=None
    )
    model = add_model(db, stream_id, seed=1)
    assert model is not None
    assert model.valid_from_us == far.valid_from_us + MINUTE


@pytest.mark.parametrize("sealed", [None, T0])
def test_models_can_be_promoted_back_and_forth_without_new_events(
    db: Database, stream_id: int, sealed: int | None
) -> None:
    if sealed is not None:
        seal(db, stream_id, sealed)
    second = add_model(db, stream_id, seed=1)
    assert second is not None
    first = ModelStore(db).list(stream_id)[0]
    for model in (first, second, second, first):
        assert promote(db, stream_id, model.id).state == "active"
    assert [each.state for each in ModelStore(db).list(stream_id)] == ["active", "retired"]
    assert revision(db, stream_id) == 6
    newest = ThresholdStore(db).newest_threshold(stream_id)
    assert newest is not None
    assert newest.model_id == first.id
    begins = [int(str(valid_from)) for _, valid_from in starts(db)]
    assert begins == sorted(begins)
    assert sealed is None or len(set(begins)) == len(begins)


def test_a_tick_at_the_time_of_an_activation_of_the_same_model_is_stored_too(db: Database, stream_id: int) -> None:
    seal(db, stream_id, T0)
    model = add_model(db, stream_id, seed=1)
    assert model is not None
    stored = ThresholdStore(db).store_tick(
        stream_id, last_tick_us=None, tick_us=T0, threshold=threshold(model.id, T0), calibration=None
    )
    assert stored
    promote(db, stream_id, model.id)
    assert count_rows(db, "thresholds") == 4


def test_a_failed_activation_changes_nothing(db: Database, stream_id: int) -> None:
    def fail(model_id: int, activation: object) -> ThresholdRow:
        raise ValueError("no reference")

    before = revision(db, stream_id)
    with pytest.raises(ValueError, match="no reference"):
        ModelStore(db).add(stream_id, fit_small_model(1).new_model, fail)
    assert [each.state for each in ModelStore(db).list(stream_id)] == ["active"]
    assert (revision(db, stream_id), count_rows(db, "thresholds")) == (before, 1)


def test_a_stored_model_is_loaded_with_the_same_bytes(db: Database, stream_id: int) -> None:
    model = ModelStore(db).active(stream_id)
    assert model is not None
    assert ModelStore(db).artefact(model.id) == fit_small_model(0).new_model.artefact
    assert ModelStore(db).load(model.id)[0].feature_names == NAMES
