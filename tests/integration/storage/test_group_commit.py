"""The commit of several sources in one transaction: an outcome for each, the order of locks, unknown outcomes."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from storage.control.windows import WindowStore
from storage.database.engine import Database
from storage.database.errors import CommitUnknown
from storage.ledger.commit import (
    Commit,
    Committed,
    Fenced,
    OutlierColumns,
    Refused,
    ShadowPartRow,
    Stale,
    StreamControl,
)
from storage.ledger.idle import IdleSource
from storage.ledger.ledger import GROUP_ROWS, Ledger
from tests.integration.storage.commits import (
    MINUTE,
    T0,
    ClaimedStream,
    claim_stream,
    count_rows,
    dead_letter_columns,
    fetch_rows,
    part_row,
    score_columns,
    seal,
)


def claim_sources(db: Database, n: int) -> list[ClaimedStream]:
    return [claim_stream(db, partition=partition) for partition in range(n)]


def rows_by_source(db: Database, table: str) -> dict[int, int]:
    rows = fetch_rows(db, f"SELECT source_id, count(*) FROM {table} GROUP BY 1")
    return {int(source_id): int(n) for source_id, n in rows}


def refused(commit: Commit) -> Commit:
    """Return the commit with two outliers of the same offset, which violates the primary key."""
    outliers = commit.outliers
    twice = np.zeros(2, np.int64)
    return replace(
        commit,
        outliers=OutlierColumns(
            offsets=commit.scores.offsets[twice],
            times_us=commit.scores.times_us[twice],
            energies=commit.scores.energies[twice],
            threshold_ids=commit.scores.threshold_ids[twice],
            features=np.zeros((2, 2), np.float32),
            feature_names=outliers.feature_names,
        ),
    )


def test_a_group_stores_the_rows_of_every_source_in_one_transaction(db: Database) -> None:
    feeds = claim_sources(db, 3)
    first = feeds[0].build_commit(
        4,
        outlier_offsets=[1],
        end=6,
        dead=dead_letter_columns([4, 5]),
        parts=[part_row(T0, events=4)],
        shadow_parts=[
            ShadowPartRow(model_id=1, window_start_us=T0, window_end_us=T0 + MINUTE, payload=b"shadow"),
        ],
    )
    second = feeds[1].build_commit(2, outlier_offsets=[0, 1], parts=[part_row(T0, events=2), part_row(T0 + MINUTE)])
    third = feeds[2].build_commit(0, end=30, gap_reason="retention", watermark_us=T0 + MINUTE)
    keys = replace(second, scores=replace(second.scores, keys=["a", None]))
    outcomes = Ledger(db).commit_group([keys, first, third])
    assert outcomes == [Committed(control=feeds[0].control)] * 3
    ids = [feed.claim.source_id for feed in feeds]
    assert rows_by_source(db, "scores") == {ids[0]: 4, ids[1]: 2}
    assert rows_by_source(db, "outliers") == {ids[0]: 1, ids[1]: 2}
    assert rows_by_source(db, "dead_letters") == {ids[0]: 2}
    assert rows_by_source(db, "window_parts") == {ids[0]: 1, ids[1]: 2}
    assert rows_by_source(db, "gaps") == {ids[2]: 1}
    assert count_rows(db, "shadow_parts") == 1
    assert fetch_rows(db, "SELECT source_id, key FROM scores WHERE key IS NOT NULL") == [(ids[1], "a")]
    positions = [feed.position() for feed in feeds]
    assert [position.next_offset for position in positions] == [6, 2, 30]
    assert positions[2].watermark_us == T0 + MINUTE
    assert len({position.committed_at_us for position in positions}) == 1


def test_sources_that_are_fenced_or_stale_do_not_prevent_the_others(db: Database) -> None:
    feeds = claim_sources(db, 5)
    seal(db, feeds[0].stream_id, T0 + MINUTE)
    commits = [
        feeds[0].build_commit(3),
        feeds[1].build_commit(3),
        feeds[2].build_commit(3, parts=[part_row(T0)]),
        feeds[3].build_commit(3, assumed_control=replace(feeds[3].control, revision=7)),
        feeds[4].build_commit(3, begin=1),
    ]
    feeds[1].reclaim("another")
    control = StreamControl(sealed_until_us=T0 + MINUTE, revision=0)
    assert Ledger(db).commit_group(commits) == [
        Committed(control=control),
        Fenced(),
        Stale(control=control),
        Stale(control=control),
        Fenced(),
    ]
    assert rows_by_source(db, "scores") == {feeds[0].claim.source_id: 3}
    assert [feed.position().next_offset for feed in feeds] == [3, 0, 0, 0, 0]


def test_a_deleted_threshold_row_makes_every_commit_of_the_group_stale(db: Database) -> None:
    feeds = claim_sources(db, 3)
    commits = [feed.build_commit(3) for feed in feeds]
    gone = replace(commits[1], scores=score_columns(0, 3, 10_000))
    feeds[2].reclaim("another")
    outcomes = Ledger(db).commit_group([commits[0], gone, commits[2]])
    assert outcomes == [Stale(control=feeds[0].control), Stale(control=feeds[0].control), Fenced()]
    assert count_rows(db, "scores") == 0


def test_a_group_of_the_largest_size_is_stored(db: Database) -> None:
    feeds = claim_sources(db, 8)
    n = GROUP_ROWS // len(feeds)
    outcomes = Ledger(db).commit_group([feed.build_commit(n, outlier_offsets=range(0, n, 100)) for feed in feeds])
    assert all(isinstance(outcome, Committed) for outcome in outcomes)
    assert rows_by_source(db, "scores") == {feed.claim.source_id: n for feed in feeds}
    assert rows_by_source(db, "outliers") == {feed.claim.source_id: n // 100 for feed in feeds}


def test_a_source_whose_rows_are_refused_does_not_stop_the_others(db: Database) -> None:
    feeds = claim_sources(db, 3)
    commits = [feed.build_commit(3) for feed in feeds]
    outcomes = Ledger(db).commit_group([commits[0], refused(commits[1]), commits[2]])
    assert [type(outcome) for outcome in outcomes] == [Committed, Refused, Committed]
    assert [feed.position().next_offset for feed in feeds] == [3, 0, 3]
    assert rows_by_source(db, "scores") == {feeds[0].claim.source_id: 3, feeds[2].claim.source_id: 3}


def test_an_error_of_a_single_commit_is_raised(feed: ClaimedStream) -> None:
    with pytest.raises(Exception, match=r"(?i)unique"):
        Ledger(feed.db).commit(refused(feed.build_commit(3)))
    assert feed.position().next_offset == 0


class _BrokenDatabase(Database):
    """A database whose next COMMIT is not answered; `stores` says whether it took place."""

    stores: bool | None = None

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        with super().write() as connection:
            yield connection
            if self.stores is False:
                raise CommitUnknown("the outcome of a commit is unknown")
        if self.stores:
            raise CommitUnknown("the outcome of a commit is unknown")


@pytest.mark.parametrize("stored", [True, False])
def test_the_positions_tell_the_outcome_of_a_group_that_was_not_answered(db: Database, stored: bool) -> None:
    feeds = claim_sources(db, 3)
    commits = [feeds[0].build_commit(3), feeds[1].build_commit(3), feeds[2].build_commit(0, ended=True)]
    with _BrokenDatabase(str(db._url.render_as_string(hide_password=False))) as broken:
        broken.stores = stored
        with pytest.raises(CommitUnknown):
            Ledger(broken).commit_group(commits)
    feeds[1].reclaim("another")
    ledger = Ledger(db)
    outcomes = ledger.find_outcomes(commits)
    assert outcomes == [Committed(control=feeds[0].control) if stored else None, Fenced(), None]
    again = [commit for commit, outcome in zip(commits, outcomes, strict=True) if outcome is None]
    assert all(isinstance(outcome, Committed) for outcome in ledger.commit_group(again))
    assert rows_by_source(db, "scores") == {feeds[0].claim.source_id: 3} | (
        {feeds[1].claim.source_id: 3} if stored else {}
    )


def test_a_position_that_was_reset_after_an_unknown_outcome_is_fenced(db: Database) -> None:
    feed = claim_stream(db)
    feed.commit(5)
    commit = feed.build_commit(5)
    assert Ledger(db).find_outcomes([replace(commit, begin=8, end=9)]) == [Fenced()]


def test_groups_and_seals_do_not_wait_for_each_other_in_a_circle(db: Database) -> None:
    feeds = claim_sources(db, 6)
    windows = WindowStore(db)
    stop = threading.Event()

    def commit_groups(order: Sequence[int]) -> None:
        ledger = Ledger(db)
        for _ in range(12):
            outcomes = ledger.commit_group([feeds[i].build_commit(20) for i in order])
            assert all(isinstance(outcome, Committed) for outcome in outcomes)
            for i in order:
                claim = feeds[i].claim
                feeds[i].claim = replace(claim, next_offset=claim.next_offset + 20)

    def repeat(work: Callable[[], object]) -> None:
        while not stop.is_set():
            work()

    def mark_all_idle() -> None:
        sources = [IdleSource(source_id=feed.claim.source_id, epoch=0, next_offset=0) for feed in reversed(feeds)]
        assert Ledger(db).mark_idle(sources, T0) == set()

    with ThreadPoolExecutor(4) as pool:
        others = [
            pool.submit(repeat, lambda: windows.seal(feeds[0].stream_id, lambda _: T0)),
            pool.submit(repeat, mark_all_idle),
        ]
        groups = [pool.submit(commit_groups, order) for order in ([0, 2, 4], [5, 3, 1])]
        try:
            for each in groups:
                each.result(60)
        finally:
            stop.set()
        for each in others:
            each.result(60)
    assert count_rows(db, "scores") == 6 * 12 * 20
