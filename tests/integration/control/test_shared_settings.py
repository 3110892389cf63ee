"""Processes with different files agree on the settings of a stream, and log once that they follow others."""

import logging
from typing import Any

import pytest
import sqlalchemy as sa

from config.settings import Settings
from monitor.daemon.shared_settings import SharedSettings, preview_settings, review_settings
from storage.control.settings import SettingsStore
from storage.database.engine import Database
from storage.database.tables import replicas, streams
from storage.ledger.ledger import Ledger

MINUTE = 60_000_000
NAME = "payments"


@pytest.fixture
def stream_id(sqlite_db: Database) -> int:
    stream = Ledger(sqlite_db).open_stream(NAME, window_size_us=MINUTE, lead_us=610_000_000)
    with sqlite_db.write() as conn:
        conn.execute(sa.update(streams).values(sealed_until_us=100 * MINUTE))
    return stream.id


def settings(size: str, percentile: float = 99.5, **others: Any) -> Settings:
    stream = {"source": {"type": "synthetic"}, "window": {"size": size}, "threshold": {"percentile": percentile}}
    return Settings.model_validate({"streams": {NAME: stream | others}})


OLD, NEW = settings("1m"), settings("7m", 99)


def process(db: Database, owner: str, file: Settings) -> SharedSettings:
    return SharedSettings(file, NAME, SettingsStore(db), owner=owner)


def size_of(shared: SharedSettings) -> int:
    return round(shared.effective().streams[NAME].window.size.total_seconds() / 60)


def test_a_new_file_is_followed_and_an_old_one_is_not_followed_again(
    sqlite_db: Database, stream_id: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = SettingsStore(sqlite_db)
    old, new = process(sqlite_db, "old", OLD), process(sqlite_db, "new", NEW)
    old.join(stream_id)
    assert not caplog.messages, "the first settings of a stream are no change"
    new.join(stream_id)
    assert caplog.messages.pop() == (
        "Stream payments: the settings of this file are now those of the stream: window.ahead 10m -> 14m from "
        "1970-01-01T01:52:00Z; window.size 1m -> 7m from 1970-01-01T01:52:00Z; threshold.percentile 99.5 -> 99.0 from "
        "1970-01-01T01:45:00Z."
    )
    for _ in range(3):
        review_settings(store, [old])
    (told,) = [text for text in caplog.messages if "follows the stored settings" in text]
    assert "window.ahead, window.size, threshold.percentile" in told
    assert (size_of(old), size_of(new)) == (7, 7)
    rules, others = old.read_rules(), new.read_rules()
    assert (rules.revision, rules.newest.windows) == (others.revision, others.newest.windows)
    assert [(start, each.percentile) for start, each in rules.rows] == [
        (start, each.percentile) for start, each in others.rows
    ]
    new.leave()
    review_settings(store, [old])
    assert size_of(old) == 1, "no process has the newer file any more"
    assert Ledger(sqlite_db).read_control(stream_id).settings_revision == 3


def test_a_process_that_was_killed_holds_the_settings_until_its_heartbeat_expires(
    sqlite_db: Database, stream_id: int
) -> None:
    old, new = process(sqlite_db, "old", OLD), process(sqlite_db, "new", NEW)
    old.join(stream_id)
    new.join(stream_id)
    review_settings(SettingsStore(sqlite_db), [old])
    assert size_of(old) == 7
    with sqlite_db.write() as conn:
        of_new = sa.update(replicas).where(replicas.c.owner == "new")
        conn.execute(of_new.values(heartbeat_us=replicas.c.heartbeat_us - MINUTE))
    review_settings(SettingsStore(sqlite_db), [old])
    assert size_of(old) == 1


def test_a_reloaded_file_is_proposed_without_a_restart(sqlite_db: Database, stream_id: int) -> None:
    shared = process(sqlite_db, "pod", OLD)
    shared.join(stream_id)
    shared.change_file(NEW)
    assert size_of(shared) == 7
    rules = shared.read_rules()
    assert [rules.at(minute * MINUTE).size_us // MINUTE for minute in (111, 112)] == [1, 7]


def test_the_next_start_is_previewed(sqlite_db: Database, stream_id: int) -> None:
    store = SettingsStore(sqlite_db)
    assert preview_settings(NEW, NAME, store.read_facts(stream_id, "")) == [
        "a start changes window.size 1m -> 7m from 1970-01-01T01:52:00Z"
    ], "a stream of an earlier version has stored its window size only"
    process(sqlite_db, "old", OLD).join(stream_id)
    assert preview_settings(OLD, NAME, store.read_facts(stream_id, "")) == []
    assert preview_settings(settings("1m", timezone="Europe/Berlin"), NAME, store.read_facts(stream_id, "")) == [
        "a start changes timezone UTC -> Europe/Berlin from 1970-01-01T01:45:00Z"
    ]
    process(sqlite_db, "new", NEW).join(stream_id)
    assert preview_settings(OLD, NAME, store.read_facts(stream_id, "")) == [
        "a start follows the stored settings, which a running process has in its file, instead of this file's "
        "window.ahead, window.size, threshold.percentile"
    ]
