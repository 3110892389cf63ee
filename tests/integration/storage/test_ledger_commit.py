"""The commit of a batch: atomic, exactly once, and by the owner only."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.tables import FOREVER_US, positions, streams
from storage.ledger.commit import Committed, Fenced, OutlierColumns, ScoreColumns, Stale, StreamControl
from storage.ledger.idle import IDLE_LEASE_US, IdleSource
from storage.ledger.ledger import Ledger
from tests.integration.storage.commits import (
    MINUTE,
    SECOND,
    T0,
    ClaimedStream,
    claim_stream,
    count_rows,
    dead_letter_columns,
    fetch_rows,
    part_row,
    seal,
)


def test_commit_stores_scores_outliers_dead_letters_parts_and_position(feed: ClaimedStream) -> None:
    outcome = feed.commit(
        10,
        end=12,
        outlier_offsets=[3, 4],
        dead=dead_letter_columns([10, 11]),
        parts=[part_row(T0, events=10, threshold_id=feed.threshold_id)],
        end_cursor=777,
    )
    assert outcome == Committed(control=StreamControl(sealed_until_us=None, revision=0))
    assert [count_rows(feed.db, table) for table in ("scores", "outliers", "dead_letters", "window_parts")] == [
        10,
        2,
        2,
        1,
    ]
    position = feed.position()
    assert (position.next_offset, position.cursor) == (12, 777)
    assert position.watermark_us == position.last_event_us == T0 + 9 * SECOND
    assert position.committed_at_us > T0


def test_features_of_an_outlier_are_stored_by_name_as_shortest_decimals(feed: ClaimedStream) -> None:
    feed.commit(5, outlier_offsets=[2])
    ((features,),) = fetch_rows(feed.db, "SELECT features FROM outliers")
    assert features == '{"amount": 0.1, "age.days": 0.1}'


def test_nan_and_infinite_features_are_stored_as_null(feed: ClaimedStream) -> None:
    plain = feed.build_commit(1)
    outliers = OutlierColumns(
        offsets=plain.scores.offsets,
        times_us=plain.scores.times_us,
        energies=np.array([np.float32(3e38)]),
        threshold_ids=plain.scores.threshold_ids,
        features=np.array([[np.nan, -np.inf]], np.float32),
        feature_names=("a", "b"),
    )
    feed.commit(1, outliers=outliers)
    ((features,),) = fetch_rows(feed.db, "SELECT features FROM outliers")
    assert json.loads(features) == {"a": None, "b": None}


def test_commit_without_events_advances_the_position(feed: ClaimedStream) -> None:
    assert isinstance(feed.commit(0, end=25), Committed)
    assert feed.position().next_offset == 25
    assert count_rows(feed.db, "scores") == 0


def test_watermark_never_decreases(feed: ClaimedStream) -> None:
    feed.commit(5, watermark_us=T0 + MINUTE)
    feed.commit(5, watermark_us=T0)
    feed.commit(0, end=11, watermark_us=None)
    assert feed.position().watermark_us == T0 + MINUTE


def test_previous_owner_is_fenced_after_a_new_claim(feed: ClaimedStream) -> None:
    old_commit = feed.build_commit(10)
    feed.reclaim("another")
    assert feed.send(old_commit) == Fenced()
    assert count_rows(feed.db, "scores") == 0
    assert feed.position().next_offset == 0


def test_each_claim_increments_the_epoch_and_returns_the_position(feed: ClaimedStream) -> None:
    feed.commit(10, end_cursor=400)
    first, second = feed.reclaim("a"), feed.reclaim("b")
    assert second.epoch == first.epoch + 1
    assert (second.next_offset, second.cursor, second.watermark_us) == (10, 400, T0 + 9 * SECOND)
    assert feed.position().owner == "b"


@pytest.mark.parametrize("begin", [0, 9, 11])
def test_commit_that_does_not_begin_at_the_position_is_fenced(feed: ClaimedStream, begin: int) -> None:
    feed.commit(10)
    assert feed.send(feed.build_commit(5, begin=begin, end=begin + 5)) == Fenced()
    assert count_rows(feed.db, "scores") == 10


def test_repeated_commit_is_stored_once(feed: ClaimedStream) -> None:
    commit = feed.build_commit(10)
    assert isinstance(feed.send(commit), Committed)
    assert feed.send(commit) == Fenced()
    assert count_rows(feed.db, "scores") == 10


def test_commit_with_a_part_of_a_sealed_window_is_stale(feed: ClaimedStream) -> None:
    commit = feed.build_commit(10, parts=[part_row(T0)])
    seal(feed.db, feed.stream_id, T0 + MINUTE)
    assert feed.send(commit) == Stale(control=StreamControl(sealed_until_us=T0 + MINUTE, revision=0))
    assert [count_rows(feed.db, table) for table in ("scores", "window_parts")] == [0, 0]
    assert feed.position().next_offset == 0


def test_late_counts_of_a_sealed_window_are_stored(feed: ClaimedStream) -> None:
    seal(feed.db, feed.stream_id, T0 + MINUTE)
    assert isinstance(feed.commit(10, parts=[part_row(T0, events=0, late=10)]), Committed)
    assert fetch_rows(feed.db, "SELECT events, late FROM window_parts") == [(0, 10)]


def test_part_of_an_open_window_is_stored(feed: ClaimedStream) -> None:
    seal(feed.db, feed.stream_id, T0)
    assert isinstance(feed.commit(10, parts=[part_row(T0)]), Committed)


def test_commit_under_an_old_revision_is_stale(feed: ClaimedStream) -> None:
    commit = feed.build_commit(10)
    seal(feed.db, feed.stream_id, T0, revisions=1)
    assert feed.send(commit) == Stale(control=StreamControl(sealed_until_us=T0, revision=1))
    assert count_rows(feed.db, "scores") == 0


def test_commit_under_other_settings_is_stale(feed: ClaimedStream) -> None:
    commit = feed.build_commit(10)
    with feed.db.write() as connection:
        connection.execute(sa.update(streams).where(streams.c.id == feed.stream_id).values(settings_revision=3))
    assert feed.send(commit) == Stale(control=StreamControl(sealed_until_us=None, revision=0, settings_revision=3)), (
        "no row of it is stored"
    )
    assert count_rows(feed.db, "scores") == 0


def test_commit_that_waits_for_a_seal_sees_the_sealed_state(db: Database) -> None:
    feed = claim_stream(db)
    commit = feed.build_commit(10, parts=[part_row(T0)])
    with ThreadPoolExecutor(1) as pool:
        with db.write() as connection:
            connection.execute(
                sa.select(positions.c.source_id)
                .where(positions.c.stream_id == feed.stream_id)
                .order_by(positions.c.source_id)
                .with_for_update()
            ).all()
            waiting = pool.submit(Ledger(db).commit, commit)
            connection.execute(sa.update(streams).values(sealed_until_us=T0 + MINUTE))
        assert waiting.result(20) == Stale(control=StreamControl(sealed_until_us=T0 + MINUTE, revision=0))


def test_commit_ends_the_idle_lease(feed: ClaimedStream) -> None:
    assert feed.mark_idle(T0)
    assert feed.position().idle_until_us == T0 + IDLE_LEASE_US
    feed.commit(0, end=1, dead=dead_letter_columns([0]))
    assert feed.position().idle_until_us == 0


def test_idle_source_keeps_its_latest_look_at_the_end_of_its_log(feed: ClaimedStream) -> None:
    assert feed.mark_idle(T0 + MINUTE)
    assert feed.mark_idle(T0)
    position = feed.position()
    assert (position.idle_seen_us, position.idle_until_us) == (T0 + MINUTE, T0 + MINUTE + IDLE_LEASE_US)


def test_only_sources_of_the_caller_at_their_position_are_marked_idle_together(db: Database) -> None:
    feeds = [claim_stream(db, partition=partition) for partition in range(4)]
    sources = [
        IdleSource(source_id=feed.claim.source_id, epoch=feed.claim.epoch, next_offset=feed.claim.next_offset)
        for feed in feeds
    ]
    feeds[1].reclaim("another")
    feeds[2].commit(5)
    ids = [each.source_id for each in sources]
    assert Ledger(db).mark_idle(sources, T0) == {ids[0], ids[3]}
    assert fetch_rows(db, "SELECT source_id, idle_seen_us, idle_until_us FROM positions ORDER BY 1") == [
        (source_id, T0 if is_idle else None, T0 + IDLE_LEASE_US if is_idle else 0)
        for source_id, is_idle in zip(ids, [True, False, False, True], strict=True)
    ]


def test_ended_source_is_idle_for_ever(feed: ClaimedStream) -> None:
    feed.commit(5, ended=True, end_cursor=90)
    assert feed.position().idle_until_us == FOREVER_US
    assert feed.mark_idle(T0)
    assert feed.position().idle_until_us == FOREVER_US


def test_commit_of_the_end_of_a_source_keeps_its_cursor(feed: ClaimedStream) -> None:
    feed.commit(5, end_cursor=90)
    feed.commit(0, ended=True)
    assert (feed.position().next_offset, feed.position().cursor) == (5, 90)


def test_unreadable_range_is_stored_as_a_gap(feed: ClaimedStream) -> None:
    feed.commit(0, end=40, gap_reason="retention", watermark_us=T0)
    assert fetch_rows(feed.db, "SELECT from_offset, to_offset, reason, event_time_us FROM gaps") == [
        (0, 40, "retention", T0)
    ]


def test_two_sources_commit_concurrently(db: Database) -> None:
    feeds = [claim_stream(db, partition=partition) for partition in range(2)]

    def run(feed: ClaimedStream) -> None:
        for _ in range(20):
            assert isinstance(feed.commit(200), Committed)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, feeds))
    assert fetch_rows(db, "SELECT source_id, count(*), max(source_offset) FROM scores GROUP BY 1 ORDER BY 1") == [
        (feed.claim.source_id, 4000, 3999) for feed in feeds
    ]


def test_commits_do_not_deadlock_with_a_transaction_that_locks_all_positions(db: Database) -> None:
    feeds = [claim_stream(db, partition=partition) for partition in range(3)]

    def run(feed: ClaimedStream) -> None:
        for _ in range(15):
            assert isinstance(feed.commit(50), Committed)

    def lock_all() -> None:
        for _ in range(30):
            with db.write() as connection:
                connection.execute(
                    sa.select(positions.c.source_id).order_by(positions.c.source_id).with_for_update()
                ).all()
                connection.execute(sa.update(streams).values(last_tick_us=T0))

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(run, feed) for feed in feeds] + [pool.submit(lock_all)]
        for each in work:
            each.result(60)
    assert count_rows(db, "scores") == 3 * 15 * 50


def test_unstorable_characters_are_replaced(feed: ClaimedStream) -> None:
    plain = feed.build_commit(2)
    texts = ScoreColumns(
        offsets=plain.scores.offsets,
        times_us=plain.scores.times_us,
        energies=plain.scores.energies,
        threshold_ids=plain.scores.threshold_ids,
        keys=["a\x00b", "\ud800"],
        ids=[None, "ü"],
    )
    assert isinstance(feed.commit(2, scores=texts), Committed)
    assert fetch_rows(feed.db, "SELECT key, event_id FROM scores ORDER BY source_offset") == [
        ("a\ufffdb", None),
        ("\ufffd", "ü"),
    ]


def test_only_a_hundred_payloads_of_dead_letters_per_minute_are_stored(feed: ClaimedStream) -> None:
    feed.commit(0, end=150, dead=dead_letter_columns(range(150)))
    feed.commit(0, end=300, dead=dead_letter_columns(range(150, 300)))
    assert fetch_rows(feed.db, "SELECT count(*), sum(count) FROM dead_letters") == [(300, 300)]
    by_minute = fetch_rows(feed.db, "SELECT count(payload) FROM dead_letters GROUP BY recorded_at_us / 60000000")
    assert {payloads for (payloads,) in by_minute} == {100}
