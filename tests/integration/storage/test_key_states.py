"""States of keys in the commit: stored with it, replaced by a snapshot, read by a take-over."""

from dataclasses import replace

import numpy as np
import sqlalchemy as sa

from config.settings import RetentionSettings
from config.time_format import DAY_US
from storage import retention
from storage.database.engine import Database
from storage.database.tables import key_states, positions
from storage.ledger.commit import Committed, Fenced, KeyStateChange, KeyStateRows
from storage.ledger.key_states import read_key_states
from storage.ledger.ledger import Ledger
from tests.integration.storage.commits import ClaimedStream


def _change(key: str, offset: int, value: float, *, is_snapshot: bool = False) -> KeyStateChange:
    rows = KeyStateRows(keys=(key,), last_offsets=np.array([offset]), values=np.array([[value]]))
    return KeyStateChange(rows=rows, is_snapshot=is_snapshot)


def _commit(ledger: Ledger, feed: ClaimedStream, change: KeyStateChange) -> None:
    commit = feed.build_commit(3, key_state=change)
    assert isinstance(ledger.commit(commit), Committed)
    feed.claim = replace(feed.claim, next_offset=commit.end)


def _read(feed: ClaimedStream) -> list[float]:
    rows = read_key_states(feed.db, feed.claim.source_id, feed.claim.next_offset)
    return [float(each.values[0, 0]) for each in rows]


def _count(db: Database) -> int:
    with db.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(key_states)) or 0


def test_a_take_over_reads_the_snapshot_and_the_changes_after_it(feed: ClaimedStream, ledger: Ledger) -> None:
    _commit(ledger, feed, _change("a", 2, 0.1))
    _commit(ledger, feed, _change("b", 5, 0.2))
    assert _read(feed) == [0.1, 0.2]
    _commit(ledger, feed, _change("b", 8, 0.3, is_snapshot=True))
    _commit(ledger, feed, _change("b", 11, 0.4))
    assert _read(feed) == [0.3, 0.4]
    assert _count(feed.db) == 2


def test_a_fenced_commit_stores_no_state(feed: ClaimedStream, ledger: Ledger) -> None:
    fenced = feed.build_commit(3, key_state=_change("a", 2, 0.1))
    feed.reclaim("other")
    assert isinstance(ledger.commit(fenced), Fenced)
    assert _count(feed.db) == 0


def test_a_commit_without_changes_stores_no_state(feed: ClaimedStream, ledger: Ledger) -> None:
    feed.commit(3)
    assert _count(feed.db) == 0
    assert _read(feed) == []


def test_states_of_a_retired_source_expire(feed: ClaimedStream, ledger: Ledger) -> None:
    _commit(ledger, feed, _change("a", 2, 0.1))
    _delete_expired(feed, now_days=30)
    assert _count(feed.db) == 1
    with feed.db.write() as connection:
        connection.execute(sa.update(positions).values(active=False))
    _delete_expired(feed, now_days=0)
    assert _count(feed.db) == 1
    _delete_expired(feed, now_days=30)
    assert _count(feed.db) == 0


def _delete_expired(feed: ClaimedStream, *, now_days: int) -> None:
    with feed.db.read() as connection:
        now_us = feed.db.now_us(connection)
    retention.delete_expired(feed.db, RetentionSettings(), now_us + now_days * DAY_US)
