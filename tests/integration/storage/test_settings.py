"""The stored settings of a stream and the heartbeats of its processes."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from storage.control.settings import (
    REPLICA_TTL_S,
    NewSettings,
    Replica,
    SettingRow,
    SettingsFacts,
    SettingsStore,
    delete_replicas,
    delete_settings,
)
from storage.database.engine import Database
from storage.database.tables import replicas
from storage.ledger.ledger import Ledger
from tests.integration.control.worker_bench import add_model
from tests.integration.storage.commits import seal

MINUTE = 60_000_000
FOLD = SettingRow(revision=1, scope="fold", valid_from_us=None, hash="A", content={"window.size": "1m"})
JUDGE = replace(FOLD, scope="judge", content={"threshold.percentile": 99.5})
SECOND_FOLD = replace(FOLD, revision=2, valid_from_us=7 * MINUTE, hash="B", content={"window.size": "7m"})


@pytest.fixture
def stream_id(db: Database) -> int:
    return Ledger(db).open_stream("payments", window_size_us=MINUTE, lead_us=2 * MINUTE).id


def replica(owner: str, settings_hash: str = "A") -> Replica:
    return Replica(owner=owner, heartbeat_us=0, settings_hash=settings_hash, version="1")


def propose(db: Database, stream_id: int, *rows: SettingRow, size_us: int = MINUTE) -> list[SettingRow]:
    new = NewSettings(rows=rows, window_size_us=size_us, lead_us=MINUTE)
    return SettingsStore(db).exchange(stream_id, replica("a", rows[-1].hash), lambda _: new)


def read_facts(db: Database, stream_id: int, owner: str) -> SettingsFacts:
    return SettingsStore(db).read_facts(stream_id, owner)


def test_proposed_settings_are_read_back_in_the_order_of_their_revisions(db: Database, stream_id: int) -> None:
    assert propose(db, stream_id, FOLD, JUDGE) == [FOLD, JUDGE]
    assert propose(db, stream_id, SECOND_FOLD, size_us=7 * MINUTE) == [FOLD, JUDGE, SECOND_FOLD]
    assert SettingsStore(db).read_rows(stream_id) == [FOLD, JUDGE, SECOND_FOLD]
    facts = read_facts(db, stream_id, "a")
    assert (facts.window_size_us, facts.lead_us, facts.active_hash) == (7 * MINUTE, 2 * MINUTE, "B")


def test_a_proposal_increases_the_settings_revision_of_the_stream(db: Database, stream_id: int) -> None:
    ledger = Ledger(db)
    assert ledger.read_control(stream_id).settings_revision == 0
    propose(db, stream_id, FOLD, JUDGE)
    propose(db, stream_id, SECOND_FOLD)
    assert ledger.read_control(stream_id).settings_revision == 2
    assert ledger.open_stream("payments", window_size_us=9 * MINUTE, lead_us=0).control.settings_revision == 2


def test_without_a_decision_only_the_heartbeat_is_stored(db: Database, stream_id: int) -> None:
    propose(db, stream_id, FOLD, JUDGE)
    assert SettingsStore(db).exchange(stream_id, replica("b", "B"), lambda _: None) == [FOLD, JUDGE]
    assert read_facts(db, stream_id, "a").live_hashes == {"B"}
    assert read_facts(db, stream_id, "b").live_hashes == {"A"}


def test_a_heartbeat_tells_whether_the_file_is_the_active_one(db: Database, stream_id: int) -> None:
    propose(db, stream_id, FOLD, JUDGE)
    store = SettingsStore(db)
    other_id = Ledger(db).open_stream("other", window_size_us=MINUTE, lead_us=MINUTE).id
    assert store.beat({stream_id: replica("b", "A"), other_id: replica("b", "A")}) == [other_id]
    assert store.beat({stream_id: replica("b", "B")}) == [stream_id]
    assert [(each.owner, each.settings_hash) for each in store.live_replicas(stream_id)] == [("a", "A"), ("b", "B")]


def test_a_process_without_a_recent_heartbeat_is_not_running(db: Database, stream_id: int) -> None:
    store = SettingsStore(db)
    for owner, age_s in (("old", REPLICA_TTL_S + 5), ("ahead", -REPLICA_TTL_S - 5), ("here", 2)):
        store.beat({stream_id: replica(owner)})
        with db.write() as connection:
            connection.execute(
                sa.update(replicas)
                .where(replicas.c.owner == owner)
                .values(heartbeat_us=replicas.c.heartbeat_us - round(age_s * 1e6))
            )
    assert [each.owner for each in store.live_replicas(stream_id)] == ["here"]


def test_the_first_model_stores_the_values_of_automatic_settings(db: Database, stream_id: int) -> None:
    model = replace(FOLD, scope="model", content={"event.features": "auto", "model.n_components": 3})
    propose(db, stream_id, FOLD, JUDGE, model)
    propose(db, stream_id, SECOND_FOLD)
    for number in (1, 2):
        add_model(db, stream_id, number)
    resolved = replace(model, revision=3, hash="B")
    (row,) = [row for row in SettingsStore(db).read_rows(stream_id) if row.revision == 3]
    assert row == replace(resolved, content={**model.content, "resolved.event.features": ["x", "y"]})
    assert Ledger(db).read_control(stream_id).settings_revision == 3


def test_superseded_settings_are_deleted_once_no_open_window_needs_them(db: Database, stream_id: int) -> None:
    propose(db, stream_id, FOLD, JUDGE)
    propose(db, stream_id, SECOND_FOLD)
    now_us = db.now_us() + MINUTE
    assert delete_settings(db, now_us) == 0, "windows of the first size are not sealed"
    seal(db, stream_id, 7 * MINUTE)
    assert delete_settings(db, now_us - 2 * MINUTE) == 0, "the second size is younger than the retention"
    assert delete_settings(db, now_us) == 1
    assert SettingsStore(db).read_rows(stream_id) == [JUDGE, SECOND_FOLD]


def test_heartbeats_of_former_processes_are_deleted(db: Database, stream_id: int) -> None:
    SettingsStore(db).beat({stream_id: replica("a")})
    assert delete_replicas(db, db.now_us() - MINUTE) == 0
    assert delete_replicas(db, db.now_us() + MINUTE) == 1


def test_a_process_that_ends_is_not_running(db: Database, stream_id: int) -> None:
    store = SettingsStore(db)
    for owner in ("a", "b", "c"):
        store.beat({stream_id: replica(owner)})
    store.leave("a")
    store.leave("b", stream_id)
    assert [each.owner for each in store.live_replicas(stream_id)] == ["c"]
    store.delete_replicas()
    assert store.live_replicas(stream_id) == []
