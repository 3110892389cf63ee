"""What explains a window is found by its place in the log, and what came late into it is not."""

import numpy as np

from storage.control.evidence import EvidenceStore
from storage.control.records import OffsetRange
from storage.database.engine import Database
from storage.ledger.commit import Committed, OutlierColumns, ScoreColumns
from tests.integration.storage.commits import MINUTE, SECOND, T0, ClaimedStream, claim_stream


def commit_events(feed: ClaimedStream, times_s: list[int], energies: list[float], keys: list[str | None]) -> None:
    """Store events of one source, those above 10 as outliers."""
    n = len(times_s)
    offsets = feed.claim.next_offset + np.arange(n, dtype=np.int64)
    times, energy = T0 + np.array(times_s, np.int64) * SECOND, np.array(energies, np.float32)
    strange, ids = energy > 10, np.full(n, feed.threshold_id, np.int64)
    outcome = feed.commit(
        n,
        scores=ScoreColumns(offsets=offsets, times_us=times, energies=energy, threshold_ids=ids, keys=keys),
        outliers=OutlierColumns(
            offsets=offsets[strange],
            times_us=times[strange],
            energies=energy[strange],
            threshold_ids=ids[strange],
            features=np.full((int(strange.sum()), 1), 2.5, np.float32),
            feature_names=("amount",),
            keys=[key for key, is_strange in zip(keys, strange, strict=True) if is_strange],
        ),
    )
    assert isinstance(outcome, Committed)


def offset_range(feed: ClaimedStream, first: int, last: int) -> OffsetRange:
    return OffsetRange(
        source_id=feed.claim.source_id, topic="payments", partition=0, first_offset=first, last_offset=last
    )


def test_the_strangest_of_the_window_come_first_with_their_features(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1, 2, 70, 3], [20, 30, 99, 1], ["a", "b", "c", "a"])
    found = EvidenceStore(db).find_evidence([offset_range(feed, 0, 3)], T0, T0 + MINUTE)
    assert [(each.energy, each.key, each.source_offset) for each in found.top_outliers] == [(30, "b", 1), (20, "a", 0)]
    assert found.top_outliers[0].features == {"amount": 2.5}


def test_what_comes_late_lies_behind_the_window_and_is_not_found(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1, 2, 70], [20, 1, 1], ["a", "b", "c"])
    before = EvidenceStore(db).find_evidence([offset_range(feed, 0, 1)], T0, T0 + MINUTE)
    commit_events(feed, [5], [50], ["late"])
    assert EvidenceStore(db).find_evidence([offset_range(feed, 0, 1)], T0, T0 + MINUTE) == before


def test_keys_are_counted_over_all_events_of_the_window(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1, 2, 3, 4, 5, 70], [20, 30, 40, 1, 1, 40], ["a", "a", "b", "a", "c", "a"])
    found = EvidenceStore(db).find_evidence([offset_range(feed, 0, 5)], T0, T0 + MINUTE)
    assert [(each.key, each.events, each.outliers) for each in found.keys] == [("a", 3, 2), ("b", 1, 1)]
    assert found.distinct_keys == 3


def test_events_without_keys_have_none(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1, 2], [20, 30], [None, None])
    found = EvidenceStore(db).find_evidence([offset_range(feed, 0, 1)], T0, T0 + MINUTE)
    assert (found.keys, found.distinct_keys) == ([], 0)


def test_an_energy_reads_the_same_on_both_databases(db: Database) -> None:
    feed = claim_stream(db)
    commit_events(feed, [1], [19.98526], ["a"])
    (found,) = EvidenceStore(db).find_evidence([offset_range(feed, 0, 0)], T0, T0 + MINUTE).top_outliers
    assert found.energy == float(np.float32(19.98526))
