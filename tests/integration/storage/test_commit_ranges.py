"""Ranges of commits: every stored event lies in one range, and bounded reads of the history use them alone."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.settings import RetentionSettings
from config.time_format import DAY_US
from storage import retention
from storage.database.engine import Database
from storage.database.errors import CommitUnknown
from storage.database.tables import commit_ranges
from storage.history import History
from storage.ledger import ranges
from storage.ledger.ledger import Ledger
from storage.queries.offset_spans import OffsetSpan, find_spans
from tests.integration.storage.commits import SECOND, T0, ClaimedStream, score_columns


def _stored_ranges(db: Database) -> list[tuple[int, int, int]]:
    columns = (commit_ranges.c.first_offset, commit_ranges.c.last_offset, commit_ranges.c.events)
    with db.read() as connection:
        return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(commit_ranges.c.first_offset))]


def _spans(feed: ClaimedStream, since_us: int | None, until_us: int | None) -> list[tuple[int, int | None]]:
    with feed.db.read() as connection:
        spans = find_spans(connection, feed.claim.source_id, since_us, until_us, max_offsets=10)
    return [(span.first, span.last) for span in spans]


def _commit_with(ledger: Ledger, feed: ClaimedStream, n: int, *, late: list[int] | None = None) -> None:
    """Commit n events through one ledger; the times of the late ones are a day earlier."""
    scores = score_columns(feed.claim.next_offset, n, feed.threshold_id)
    if late is not None:
        mask = np.isin(scores.offsets, late)
        scores = replace(scores, late=mask, times_us=np.where(mask, scores.times_us - DAY_US, scores.times_us))
    commit = feed.build_commit(n, scores=scores)
    ledger.commit(commit)
    feed.claim = replace(feed.claim, next_offset=commit.end)


def test_commits_within_a_second_share_a_range(feed: ClaimedStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "SECOND_US", 3600 * SECOND)  # however slow this machine is
    ledger = Ledger(feed.db)
    for n in (3, 4, 5):
        _commit_with(ledger, feed, n)
    assert _stored_ranges(feed.db) == [(0, 11, 12)]


def test_a_range_is_not_extended_after_a_second(feed: ClaimedStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "SECOND_US", 0)
    ledger = Ledger(feed.db)
    for n in (3, 4):
        _commit_with(ledger, feed, n)
    assert _stored_ranges(feed.db) == [(0, 2, 3), (3, 6, 4)]


def test_a_range_holds_a_bounded_number_of_events(feed: ClaimedStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "SECOND_US", 3600 * SECOND)
    monkeypatch.setattr(ranges, "MAX_RANGE_EVENTS", 7)
    ledger = Ledger(feed.db)
    for n in (3, 4, 1):
        _commit_with(ledger, feed, n)
    assert _stored_ranges(feed.db) == [(0, 6, 7), (7, 7, 1)]


def test_another_claim_begins_a_range(feed: ClaimedStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "SECOND_US", 3600 * SECOND)
    ledger = Ledger(feed.db)
    _commit_with(ledger, feed, 3)
    feed.claim = feed.reclaim("other")
    _commit_with(Ledger(feed.db), feed, 2)
    feed.claim = feed.reclaim("me")
    _commit_with(ledger, feed, 4)
    assert _stored_ranges(feed.db) == [(0, 2, 3), (3, 4, 2), (5, 8, 4)]


def test_a_commit_of_unknown_outcome_ends_its_range(feed: ClaimedStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "SECOND_US", 3600 * SECOND)
    ledger = Ledger(feed.db)
    _commit_with(ledger, feed, 3)
    with monkeypatch.context() as patch:
        patch.setattr(feed.db, "write", _committing_without_an_answer(feed.db))
        with pytest.raises(CommitUnknown):
            _commit_with(ledger, feed, 4)
    feed.claim = replace(feed.claim, next_offset=7)
    _commit_with(ledger, feed, 2)
    assert _stored_ranges(feed.db) == [(0, 6, 7), (7, 8, 2)]


def _committing_without_an_answer(db: Database) -> Callable[[], AbstractContextManager[Connection]]:
    write = db.write

    @contextmanager
    def write_and_lose_the_answer() -> Iterator[Connection]:
        with write() as connection:
            yield connection
        raise CommitUnknown("the connection was lost during the commit")

    return write_and_lose_the_answer


def test_a_late_event_does_not_widen_the_range_of_the_others(
    feed: ClaimedStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "SECOND_US", 0)
    ledger = Ledger(feed.db)
    _commit_with(ledger, feed, 5, late=[2])
    _commit_with(ledger, feed, 5)
    before = (0, -1)  # the offsets before the first range
    assert _spans(feed, T0 - 3600 * SECOND, T0) == [before]
    assert _spans(feed, T0 - DAY_US, T0) == [before, (0, 4)]
    assert _spans(feed, T0 + 6 * SECOND, None) == [before, (5, 9)]
    assert _spans(feed, T0 + 4 * SECOND, T0 + 6 * SECOND) == [before, (0, 9)]
    assert _spans(feed, None, None) == [(0, None)]


def test_events_without_ranges_are_found(feed: ClaimedStream, upgraded_url: str) -> None:
    """A database of an earlier version has scores, but no ranges."""
    ledger = Ledger(feed.db)
    _commit_with(ledger, feed, 6)
    with feed.db.write() as connection:
        connection.execute(sa.delete(commit_ranges))
    with History(upgraded_url) as history:
        assert _offsets(history, since="3s") == [2, 3, 4, 5]
        _commit_with(Ledger(feed.db), feed, 2)
        assert _offsets(history, since="3s") == [4, 5, 6, 7]
        assert _offsets(history, since="5s", limit=3) == [5, 6, 7]


def _offsets(history: History, **bounds: object) -> list[int]:
    batches = history.scores("payments", **bounds)  # type: ignore[arg-type]
    return [int(offset) for batch in batches for offset in batch["source_offset"]]


def test_a_commit_without_events_has_no_range(feed: ClaimedStream) -> None:
    feed.commit(0, end=7)
    assert _stored_ranges(feed.db) == []


def test_ranges_expire_with_their_scores(feed: ClaimedStream) -> None:
    ledger = Ledger(feed.db)
    _commit_with(ledger, feed, 3)
    feed.claim = feed.reclaim("me")
    _commit_with(ledger, feed, 2)
    with feed.db.write() as connection:
        first = sa.update(commit_ranges).where(commit_ranges.c.first_offset == 0)
        connection.execute(first.values(stored_at_us=commit_ranges.c.stored_at_us - 10 * DAY_US))
        now_us = feed.db.now_us(connection)
    retention.delete_expired(feed.db, RetentionSettings(scores=timedelta(days=7)), now_us)
    assert _stored_ranges(feed.db) == [(3, 4, 2)]


def test_adjacent_ranges_are_read_together(feed: ClaimedStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "SECOND_US", 0)
    ledger = Ledger(feed.db)
    for _ in range(6):
        _commit_with(ledger, feed, 4)
    assert _spans(feed, T0, None) == [(0, -1), (0, 7), (8, 15), (16, 23)]
    assert OffsetSpan(day=5).may_be_stored_on(5)
    assert not OffsetSpan(day=5).may_be_stored_on(6)
