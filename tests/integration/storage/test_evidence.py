"""Evidence of a window is evidence by its offset ranges; late events are not part of it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import sqlalchemy as sa

from config.settings import RetentionSettings
from config.time_format import DAY_US
from storage.control.evidence import MAX_COUNTED_KEYS, MAX_OUTLIERS, EvidenceStore, WindowKeys
from storage.control.habitual_keys import write_habitual_keys
from storage.control.records import HabitualKeyRow, OffsetRange
from storage.database.engine import Database
from storage.ledger.commit import Committed, OutlierColumns, ScoreColumns
from storage.retention import delete_expired
from tests.integration.storage.commits import MINUTE, SECOND, T0, ClaimedStream, claim_stream


def commit_events(
    feed: ClaimedStream, times_s: list[int], energies: Sequence[float], keys: Sequence[str | None]
) -> None:
    """Commit events of one source; those with an energy above 10 are outliers."""
    n = len(times_s)
    offsets = feed.claim.next_offset + np.arange(n, dtype=np.int64)
    times, energy = T0 + np.array(times_s, np.int64) * SECOND, np.array(energies, np.float32)
    is_outlier, ids = energy > 10, np.full(n, feed.threshold_id, np.int64)
    outcome = feed.commit(
        n,
        scores=ScoreColumns(offsets=offsets, times_us=times, energies=energy, threshold_ids=ids, keys=keys),
        outliers=OutlierColumns(
            offsets=offsets[is_outlier],
            times_us=times[is_outlier],
            energies=energy[is_outlier],
            threshold_ids=ids[is_outlier],
            features=np.full((int(is_outlier.sum()), 1), 2.5, np.float32),
            feature_names=("amount",),
            keys=[key for key, above in zip(keys, is_outlier, strict=True) if above],
        ),
    )
    assert isinstance(outcome, Committed)


def offset_range(feed: ClaimedStream, first: int, last: int) -> OffsetRange:
    return OffsetRange(
        source_id=feed.claim.source_id, topic="payments", partition=0, first_offset=first, last_offset=last
    )


def test_outliers_are_sorted_by_energy_and_have_their_features(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1, 2, 70, 3], [20, 30, 99, 1], ["a", "b", "c", "a"])
    evidence = EvidenceStore(db).find_evidence([offset_range(feed, 0, 3)], T0, T0 + MINUTE)
    assert [(each.energy, each.key, each.source_offset) for each in evidence.top_outliers] == [
        (30, "b", 1),
        (20, "a", 0),
    ]
    assert evidence.top_outliers[0].features == {"amount": 2.5}


def test_late_events_lie_after_the_offset_range_and_are_not_found(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1, 2, 70], [20, 1, 1], ["a", "b", "c"])
    before = EvidenceStore(db).find_evidence([offset_range(feed, 0, 1)], T0, T0 + MINUTE)
    commit_events(feed, [5], [50], ["late"])
    assert EvidenceStore(db).find_evidence([offset_range(feed, 0, 1)], T0, T0 + MINUTE) == before


def test_keys_are_counted_over_all_events_of_the_window(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1, 2, 3, 4, 5, 70], [20, 30, 40, 1, 1, 40], ["a", "a", "b", "a", "c", "a"])
    evidence = EvidenceStore(db).find_evidence([offset_range(feed, 0, 5)], T0, T0 + MINUTE)
    assert [(each.key, each.events, each.outliers) for each in evidence.keys] == [("a", 3, 2), ("b", 1, 1)]
    assert evidence.distinct_keys == 3


def test_a_burst_has_a_bounded_number_of_outliers_to_explain(db: Database) -> None:
    feed = claim_stream(db)
    n = 10_000
    commit_events(feed, [1] * n, [float(20 + i) for i in range(n)], ["a"] * n)
    evidence = EvidenceStore(db).find_evidence([offset_range(feed, 0, n - 1)], T0, T0 + MINUTE)
    assert [each.source_offset for each in evidence.top_outliers] == [n - 1 - i for i in range(MAX_OUTLIERS)]


def test_events_without_keys_have_no_key_counts(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1, 2], [20, 30], [None, None])
    evidence = EvidenceStore(db).find_evidence([offset_range(feed, 0, 1)], T0, T0 + MINUTE)
    assert (evidence.keys, evidence.distinct_keys) == ([], 0)


def test_energy_is_the_same_float32_on_both_databases(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1], [19.98526], ["a"])
    (outlier,) = EvidenceStore(db).find_evidence([offset_range(feed, 0, 0)], T0, T0 + MINUTE).top_outliers
    assert outlier.energy == float(np.float32(19.98526))


def test_keys_are_counted_if_they_have_outliers_or_are_tracked(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1, 2, 3, 4, 5, 6, 70], [20, 30, 40, 1, 1, 1, 40], ["a", "a", "b", "a", "c", None, "a"])
    store, ranges = EvidenceStore(db), [offset_range(feed, 0, 6)]
    assert store.count_keys(ranges, T0, T0 + MINUTE, []) == WindowKeys(
        counts={"a": (3, 2), "b": (1, 1)}, largest={"a": 30.0, "b": 40.0}
    )
    assert store.count_keys(ranges, T0, T0 + MINUTE, ["c", "d"]).counts == {"a": (3, 2), "b": (1, 1), "c": (1, 0)}
    assert store.count_keys([offset_range(feed, 0, 400_000)], T0, T0 + MINUTE, []) == WindowKeys(counts={})


def test_largest_energies_by_key_are_float32_and_those_without_a_counted_key_are_together(db: Database) -> None:
    feed = claim_stream(db)
    keys = [f"k{i}" for i in range(MAX_COUNTED_KEYS + 1)]
    commit_events(feed, [1] * (len(keys) + 3), [19.98526, *range(21, 22 + len(keys)), 9], [*keys, "k0", None, "k1"])
    found = EvidenceStore(db).count_keys([offset_range(feed, 0, len(keys) + 2)], T0, T0 + MINUTE, [])
    assert len(found.counts) == MAX_COUNTED_KEYS
    assert found.largest["k0"] == float(len(keys) + 20)
    assert found.largest_of_others == float(len(keys) + 21), "the event without a key"
    alone = EvidenceStore(db).count_keys([offset_range(feed, 0, 0)], T0, T0 + MINUTE, [])
    assert alone.largest == {"k0": float(np.float32(19.98526))}


def test_outliers_of_a_habitual_key_are_marked_while_it_is_one(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1, 61, 121], [20, 30, 40], ["a", "a", "a"])
    row = HabitualKeyRow(key="a", rate=1.0, windows=30, since_us=T0 + MINUTE, until_us=T0 + 9 * MINUTE)
    ended = replace(row, until_us=T0 + 2 * MINUTE)
    query = "SELECT event_time_us, habitual FROM outlier_history ORDER BY event_time_us"
    for rows, flags in (([], [False] * 3), ([row], [False, True, True]), ([ended], [False, True, False])):
        with db.write() as conn:
            write_habitual_keys(conn, feed.stream_id, rows, T0)
        with db.read() as conn:
            assert [bool(flag) for _, flag in conn.execute(sa.text(query))] == flags


def test_retention_keeps_habitual_keys_as_long_as_their_outliers(db: Database) -> None:
    feed = claim_stream(db)
    row = HabitualKeyRow(key="a", rate=1.0, windows=30, since_us=T0, until_us=T0 + MINUTE)
    with db.write() as conn:
        write_habitual_keys(conn, feed.stream_id, [row], T0)
    for days, kept in ((117, 1), (119, 0)):
        delete_expired(db, RetentionSettings(), T0 + days * DAY_US)
        with db.read() as conn:
            assert conn.execute(sa.text("SELECT count(*) FROM habitual_keys")).scalar_one() == kept
