"""Retention of thresholds, calibrations, accepted references, drift bases and models: what is in use stays."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from config.settings import RetentionSettings
from config.time_format import DAY_US
from storage import retention, superseded
from storage.control.drift import DriftStore
from storage.database import tables
from storage.database.chunks import CHUNK_ROWS
from storage.database.engine import Database
from storage.ledger.commit import Committed, Stale
from storage.ledger.ledger import Ledger
from tests.integration.storage.commits import (
    ARTEFACT,
    MINUTE,
    SECOND,
    T0,
    ClaimedStream,
    count_rows,
    fetch_rows,
    part_row,
    score_columns,
    seal,
)
from tests.integration.storage.threshold_rows import REFRESH_US, add_threshold_rows

_RETENTION = RetentionSettings()


def _now_us(db: Database) -> int:
    with db.read() as connection:
        return db.now_us(connection)


def _model_id(db: Database) -> int:
    return int(fetch_rows(db, "SELECT min(id) FROM models")[0][0])


def _ids(db: Database) -> list[int]:
    return [row[0] for row in fetch_rows(db, "SELECT id FROM thresholds ORDER BY valid_from_us, id")]


def _add_rows(feed: ClaimedStream, n: int, *, days: float = 401, model_id: int | None = None, at: int = 1) -> list[int]:
    """Add n threshold rows that were stored `days` days ago, valid from T0 + `at` refreshes on; return their ids."""
    before = _ids(feed.db)
    add_threshold_rows(
        feed.db,
        feed.stream_id,
        model_id or _model_id(feed.db),
        n,
        first_us=T0 + at * REFRESH_US,
        recorded_at_us=_now_us(feed.db) - int(days * DAY_US),
    )
    return [each for each in _ids(feed.db) if each not in before]


def _delete(db: Database, settings: RetentionSettings = _RETENTION, **others: Any) -> retention.DeletedRows:
    return retention.delete_expired(db, settings, _now_us(db), **others)


def _insert(db: Database, table: sa.Table, **values: Any) -> int:
    with db.write() as connection:
        return int(connection.execute(sa.insert(table).values(values)).inserted_primary_key[0])  # type: ignore[index]


def _add_window(feed: ClaimedStream, threshold_id: int, start_us: int = T0) -> None:
    _insert(
        feed.db,
        tables.windows,
        stream_id=feed.stream_id,
        window_start_us=start_us,
        window_end_us=start_us + MINUTE,
        threshold_id=threshold_id,
        events=1,
        outliers=0,
        late=0,
        dead=0,
        judged_at_us=_now_us(feed.db),
    )


def _add_model(db: Database, stream_id: int, version: int, state: str, **others: Any) -> int:
    values = {"kind": "gaussian_mixture", "artefact": ARTEFACT, "checksum": "", "created_at_us": T0}
    return _insert(
        db,
        tables.models,
        stream_id=stream_id,
        version=version,
        state=state,
        feature_names="[]",
        **values,
        **others,
    )


def _add_incident(db: Database, stream_id: int, status: str, start_us: int = T0) -> int:
    return _insert(
        db,
        tables.incidents,
        stream_id=stream_id,
        kind="spike",
        severity="warning",
        status=status,
        window_start_us=start_us,
        opened_at_us=start_us,
        last_told_us=start_us,
        clean_windows=0,
        windows_fired=1,
        summary="a spike",
    )


@pytest.fixture
def sealed(feed: ClaimedStream) -> ClaimedStream:
    """A stream that is sealed after all threshold rows of a test."""
    seal(feed.db, feed.stream_id, T0 + 365 * DAY_US)
    return feed


def test_old_superseded_threshold_rows_are_deleted_but_not_the_first_of_the_model_and_the_one_in_force(
    sealed: ClaimedStream,
) -> None:
    old = _add_rows(sealed, 10)
    young = _add_rows(sealed, 3, days=399, at=20)
    assert _delete(sealed.db).thresholds == 10
    assert _ids(sealed.db) == [sealed.threshold_id, *young]
    assert old[-1] not in _ids(sealed.db)
    ((revision,),) = fetch_rows(sealed.db, "SELECT revision FROM streams")
    assert revision > sealed.control.revision, "workers read the schedule anew"


def test_the_row_in_force_is_kept_however_old_it_is(sealed: ClaimedStream) -> None:
    old = _add_rows(sealed, 10)
    assert _delete(sealed.db).thresholds == 9
    assert _ids(sealed.db) == [sealed.threshold_id, old[-1]]


def test_rows_that_windows_after_the_seal_need_are_kept(feed: ClaimedStream) -> None:
    old = _add_rows(feed, 10)
    assert _delete(feed.db).thresholds == 0, "nothing is sealed"
    seal(feed.db, feed.stream_id, T0 + 5 * REFRESH_US)
    assert _delete(feed.db).thresholds == 4
    assert _ids(feed.db) == [feed.threshold_id, *old[4:]]


@pytest.mark.parametrize("referrer", ["window", "part", "score", "outlier", "incident"])
def test_threshold_rows_that_kept_rows_refer_to_are_kept(sealed: ClaimedStream, referrer: str) -> None:
    db = sealed.db
    old = _add_rows(sealed, 10)
    wanted = old[4]
    at_us = T0 + 5 * REFRESH_US
    if referrer == "window":
        _add_window(sealed, wanted)
    elif referrer == "part":
        sealed.commit(0, end=1, parts=[part_row(at_us, threshold_id=wanted, events=0, late=1)])
    elif referrer == "score":
        assert isinstance(sealed.commit(1, scores=score_columns(0, 1, wanted)), Committed)
    else:
        scores = score_columns(0, 1, wanted, outliers=[0])
        scores.times_us[:] = at_us
        sealed.commit(1, scores=scores, outlier_offsets=[0])
        stored_us = _now_us(db) - 10 * DAY_US
        for table in (tables.scores, tables.outliers):
            with db.write() as connection:
                connection.execute(sa.update(table).values(stored_at_us=stored_us))
        if referrer == "incident":
            _add_incident(db, sealed.stream_id, "open", at_us)
            stored_us = _now_us(db) - 100 * DAY_US
            with db.write() as connection:
                connection.execute(sa.update(tables.outliers).values(stored_at_us=stored_us))
        with db.write() as connection:
            connection.execute(sa.update(tables.thresholds).values(used_at_us=stored_us))
    _delete(db)
    kept = _ids(db)
    assert wanted in kept
    assert old[0] not in kept or referrer in ("outlier", "incident"), "the update of the test covers every row"
    assert fetch_rows(db, "SELECT count(*) FROM outlier_history") == [(count_rows(db, "outliers"),)]
    assert fetch_rows(db, "SELECT count(*) FROM score_history") == [(count_rows(db, "scores"),)]


def test_a_row_is_deleted_after_the_last_score_and_outlier_under_it(sealed: ClaimedStream) -> None:
    old = _add_rows(sealed, 10)
    sealed.commit(1, scores=score_columns(0, 1, old[4], outliers=[0]), outlier_offsets=[0])
    assert old[4] in _kept_after_days(sealed, 89)
    assert old[4] not in _kept_after_days(sealed, 92)
    assert count_rows(sealed.db, "outliers") == 0


def _kept_after_days(feed: ClaimedStream, days: int) -> list[int]:
    """Apply retention as if `days` days had passed; return the ids of the kept threshold rows."""
    retention.delete_expired(feed.db, _RETENTION, _now_us(feed.db) + days * DAY_US)
    return _ids(feed.db)


def test_an_activation_between_two_of_another_model_keeps_its_first_row(sealed: ClaimedStream) -> None:
    db, first = sealed.db, _model_id(sealed.db)
    other = _add_model(db, sealed.stream_id, 2, "retired")
    _add_rows(sealed, 3)
    (between, *_) = _add_rows(sealed, 3, model_id=other, at=10)
    (again, *rest) = _add_rows(sealed, 3, model_id=first, at=20)
    window_us = T0 + 22 * REFRESH_US
    _add_window(sealed, rest[-1], window_us)
    before = DriftStore(db).find_model_before(sealed.stream_id, window_us + 1)
    for _ in range(3):
        _delete(db)
    assert DriftStore(db).find_model_before(sealed.stream_id, window_us + 1) == before
    assert before is not None
    assert (before.model_id, before.activated_us) == (first, T0 + 20 * REFRESH_US)
    assert _ids(db) == [sealed.threshold_id, between, again, rest[-1]] or _ids(db) == [between, again, rest[-1]]


def test_the_oldest_activation_disappears_as_a_whole(sealed: ClaimedStream) -> None:
    other = _add_model(sealed.db, sealed.stream_id, 2, "active")
    with sealed.db.write() as connection:
        connection.execute(sa.update(tables.thresholds).values(recorded_at_us=_now_us(sealed.db) - 402 * DAY_US))
    _add_rows(sealed, 3)
    (first, *_, last) = _add_rows(sealed, 3, model_id=other, at=10)
    _delete(sealed.db)
    _delete(sealed.db)
    assert _ids(sealed.db) == [first, last]


def test_deletion_in_chunks_can_stop_after_each_and_continue(
    sealed: ClaimedStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superseded, "CHUNK_ROWS", 4)
    old = _add_rows(sealed, 21)
    calls = iter([False, True])

    def stopped() -> bool:
        return next(calls, True)

    cuts = superseded.ThresholdCuts(
        recorded_us=_now_us(sealed.db), used_us=_now_us(sealed.db), protected_us=tables.FOREVER_US
    )
    assert superseded.delete_thresholds(sealed.db, sealed.stream_id, cuts, stopped) == 3
    assert superseded.delete_thresholds(sealed.db, sealed.stream_id, cuts, lambda: False) == 17
    assert _ids(sealed.db) == [sealed.threshold_id, old[-1]]


def test_commits_during_the_deletion_leave_no_score_without_its_threshold(sealed: ClaimedStream) -> None:
    db = sealed.db
    old = _add_rows(sealed, 200)
    used_us = _now_us(db) + DAY_US
    cuts = superseded.ThresholdCuts(recorded_us=used_us, used_us=0, protected_us=tables.FOREVER_US)

    def commit_all() -> None:
        for threshold_id in old:
            scores = score_columns(sealed.claim.next_offset, 1, threshold_id)
            outcome = Ledger(db).commit(sealed.build_commit(1, scores=scores))
            if isinstance(outcome, Stale):
                sealed.control = outcome.control
            else:
                assert isinstance(outcome, Committed)
                sealed.claim = _advance(sealed)

    commits = threading.Thread(target=commit_all)
    commits.start()
    for _ in range(20):
        superseded.delete_thresholds(db, sealed.stream_id, cuts, lambda: False)
    commits.join()
    assert fetch_rows(db, "SELECT count(*) FROM score_history") == [(count_rows(db, "scores"),)]


def _advance(feed: ClaimedStream) -> Any:
    claim = feed.claim
    return type(claim)(
        source_id=claim.source_id,
        epoch=claim.epoch,
        next_offset=claim.next_offset + 1,
        cursor=None,
        watermark_us=claim.watermark_us,
    )


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2 * CHUNK_ROWS + 1, pytest.param(105_000, marks=pytest.mark.long)])
def test_rows_of_many_chunks_are_deleted(sealed: ClaimedStream, rows: int) -> None:
    _add_rows(sealed, rows)
    assert _delete(sealed.db).thresholds == rows - 1
    assert count_rows(sealed.db, "thresholds") == 2


def test_calibrations_have_the_retention_of_thresholds_and_the_newest_is_kept(sealed: ClaimedStream) -> None:
    db = sealed.db
    for tick, recorded_us in enumerate((None, _now_us(db) - 401 * DAY_US, _now_us(db), _now_us(db) - 401 * DAY_US)):
        _insert(
            db,
            tables.calibrations,
            stream_id=sealed.stream_id,
            at_us=T0 - 500 * DAY_US + tick,
            state="learned",
            recorded_at_us=recorded_us,
        )
    assert _delete(db).calibrations == 2
    assert fetch_rows(db, "SELECT at_us FROM calibrations ORDER BY 1") == [(T0 - 500 * DAY_US + i,) for i in (2, 3)]


def test_only_the_last_accepted_reference_of_a_model_is_kept(sealed: ClaimedStream) -> None:
    db = sealed.db
    incident_id = _add_incident(db, sealed.stream_id, "resolved")
    ids = [
        _insert(
            db,
            tables.accepted_references,
            stream_id=sealed.stream_id,
            model_id=_model_id(db),
            incident_id=incident_id,
            energies=b"",
            at_us=T0,
            recorded_at_us=_now_us(db) - 401 * DAY_US,
        )
        for _ in range(3)
    ]
    assert _delete(db).accepted_references == 2
    assert fetch_rows(db, "SELECT id FROM accepted_references") == [(ids[-1],)]


def test_replaced_drift_bases_without_windows_are_deleted(sealed: ClaimedStream) -> None:
    db = sealed.db
    _add_window(sealed, sealed.threshold_id, T0)
    for from_us, until_us in ((T0 - 3, T0 - 1), (T0 - 2, T0 + 1), (T0 - 1, T0)):
        _insert(
            db,
            tables.drift_bases,
            stream_id=sealed.stream_id,
            horizon_us=1,
            season=False,
            from_us=from_us,
            until_us=until_us,
            base="{}",
        )
    assert _delete(db).drift_bases == 1
    assert fetch_rows(db, "SELECT from_us FROM drift_bases ORDER BY 1") == [(T0 - 2,), (T0 - 1,)]


def _fill_models(db: Database, stream_id: int) -> Callable[[int], int]:
    """Add 25 retired models (versions 2 to 26) and 25 candidates (27 to 51); return the id of a version."""
    ids = {
        version: _add_model(db, stream_id, version, "retired" if version <= 26 else "candidate")
        for version in range(2, 52)
    }
    return ids.__getitem__


def _versions(db: Database, state: str) -> list[int]:
    return [row[0] for row in fetch_rows(db, f"SELECT version FROM models WHERE state = '{state}' ORDER BY 1")]


def test_the_newest_20_retired_models_are_kept(sealed: ClaimedStream) -> None:
    _fill_models(sealed.db, sealed.stream_id)
    assert _delete(sealed.db).models == 10
    assert _versions(sealed.db, "active") == [1]
    assert _versions(sealed.db, "retired") == list(range(7, 27))
    assert _versions(sealed.db, "candidate") == list(range(32, 52))
    assert _delete(sealed.db, RetentionSettings(models=3)).models == 34


def test_models_in_use_are_kept_and_the_rows_of_deleted_ones_go_with_them(sealed: ClaimedStream) -> None:
    db, stream_id = sealed.db, sealed.stream_id
    id_of = _fill_models(db, stream_id)
    with db.write() as connection:
        connection.execute(sa.update(tables.models).where(tables.models.c.id == id_of(28)).values(state="shadow"))
    _add_rows(sealed, 1, days=1, model_id=id_of(3), at=2)
    incident_id = _add_incident(db, stream_id, "resolved")
    for version, ended in ((2, True), (27, True), (28, False)):
        shadow = {"stream_id": stream_id, "model_id": id_of(version)}
        _insert(db, tables.shadows, **shadow, percentile=99, threshold=1, since_us=T0, ended=ended)
        _insert(
            db,
            tables.shadow_windows,
            **shadow,
            window_start_us=T0,
            window_end_us=T0 + SECOND,
            events=1,
            outliers=0,
            payload=b"",
        )
        reference = {"incident_id": incident_id, "energies": b"", "at_us": T0, "recorded_at_us": _now_us(db)}
        _insert(db, tables.accepted_references, **shadow, **reference)
    _delete(db)
    kept = {row[0] for row in fetch_rows(db, "SELECT version FROM models")}
    assert {1, 3, 28} <= kept
    assert not {2, 4, 5, 6, 27} & kept
    for table in ("shadows", "shadow_windows", "accepted_references"):
        assert fetch_rows(db, f"SELECT model_id FROM {table}") == [(id_of(28),)], table


def test_every_table_has_a_retention_or_a_reason_to_be_bounded() -> None:
    """A new table needs a retention, or an entry here."""
    bounded = {
        "streams": "one row for each configured stream",
        "sources": "one row for each partition and incarnation",
        "positions": "as sources",
        "leases": "one row for each stream",
        "jobs": "one row for each job",
        "drift_marks": "one row for each stream",
        "drift_days": "at most 252 days of a stream; each new day deletes the older ones",
        "window_parts": "deleted when their window is judged",
        "window_samples": "counted as samples",
        "window_rollups": "counted as roll-ups",
        "drift_cell_names": "deleted with their model",
        "feature_summaries": "deleted with their model; one base for each horizon of a model",
        "incident_verbs": "deleted with their incident",
        "posted_messages": "deleted with their incident",
        "used_links": "deleted a day after the expiry of the link",
        "habitual_keys": "deleted with the outliers of their time",
        "shadow_parts": "deleted when their window is merged",
        "shadows": "deleted with their model",
        "shadow_windows": "deleted with the windows, and with their model",
        "transitions": "deleted with their incident",
        "commit_ranges": "deleted with the scores of the range",
        "key_states": "superseded by snapshots, and deleted with the scores of a retired source",
        "health_reports": "one row for each component of a stream in a process; those of dead processes are deleted",
    }
    counted = set(retention.DeletedRows.__dataclass_fields__) - {"score_days", "samples", "rollups"}
    assert set(tables.metadata.tables) == counted | set(bounded)
