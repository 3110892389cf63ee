"""Samples of windows: from the parts of the commits to a table of their own, and bounded by event time."""

from datetime import timedelta

import numpy as np
import sqlalchemy as sa

from config.settings import RetentionSettings
from monitor.control_plane.judge import judge_window
from monitor.incidents.window import ThresholdInForce
from monitor.statistics.event_sample import (
    decode_sample,
    encode_sample,
    encode_window_samples,
    hash_offsets,
    merge_samples,
)
from monitor.statistics.part import Scale, summarise
from monitor.statistics.part_codec import encode_part
from storage import retention
from storage.control.samples import SampleStore
from storage.control.thresholds import ThresholdRow
from storage.control.windows import WindowStore
from storage.database.tables import models, thresholds, window_parts, window_samples
from storage.ledger.commit import WindowPartRow
from tests.integration.storage.commits import MINUTE, T0, ClaimedStream, add_threshold, count_rows, store_sample
from tests.rules import make_rules

RULES = make_rules(size_us=MINUTE)
LAW = {"rate": 0.01, "dispersion": 1.0, "windows": 0, "calibration_n": 10.0, "state": "provisional"}


def _sample(offsets: np.ndarray) -> bytes:
    features = np.stack([offsets * 0.1, offsets * 2.0], axis=1)
    (payload,) = encode_window_samples(
        hash_offsets("t", 0, offsets),
        np.zeros(len(offsets), np.int64),
        np.array([8]),
        rows=np.arange(len(offsets)),
        times_us=T0 + offsets,
        features=features,
    )
    assert payload is not None
    return payload


def _part(feed: ClaimedStream, offsets: np.ndarray, sample: bytes | None) -> WindowPartRow:
    energies = np.zeros(len(offsets), np.float32)
    part = summarise(energies, energies > 1, Scale(median=0.0, iqr=1.0))
    return WindowPartRow(
        window_start_us=T0,
        window_end_us=T0 + MINUTE,
        threshold_id=feed.threshold_id,
        events=len(offsets),
        outliers=0,
        late=0,
        dead=0,
        payload=encode_part(part),
        sample=sample,
    )


def _judge(feed: ClaimedStream) -> None:
    store = WindowStore(feed.db)
    facts = store.read_window(feed.stream_id, T0)
    assert facts is not None
    row = ThresholdRow(
        id=feed.threshold_id,
        model_id=1,
        computed_at_us=0,
        valid_from_us=0,
        percentile=99.5,
        threshold=1.0,
        lower=1.0,
        upper=1.0,
        n=10,
        method="plain",
        details={"law": LAW, "scale": {"median": 0.0, "iqr": 1.0}, "limit": {}},
    )
    judgement = judge_window(facts, lambda _: ThresholdInForce.from_row(row, model_version=1), RULES, T0)
    assert store.store_judgement(feed.stream_id, "payments", facts, judgement)


def test_judging_moves_the_merged_sample_of_the_parts(feed: ClaimedStream) -> None:
    first, second = np.arange(20), np.arange(20, 50)
    feed.commit(20, parts=[_part(feed, first, _sample(first))])
    feed.commit(30, parts=[_part(feed, second, _sample(second))])
    _judge(feed)
    (stored,) = SampleStore(feed.db).read_samples(feed.stream_id, 0, T0 + MINUTE)
    merged = merge_samples([decode_sample(_sample(first)), decode_sample(_sample(second))])
    assert stored.payload == encode_sample(merged) == _sample(np.arange(50))
    assert (stored.events, stored.model_id, stored.window_end_us) == (50, 1, T0 + MINUTE)
    assert count_rows(feed.db, "window_parts") == 0


def test_a_window_with_a_part_of_an_older_version_has_no_sample(feed: ClaimedStream) -> None:
    offsets = np.arange(20)
    feed.commit(20, parts=[_part(feed, offsets, _sample(offsets))])
    feed.commit(20, parts=[_part(feed, offsets + 20, _sample(offsets + 20))])
    with feed.db.write() as connection:
        first = sa.select(sa.func.min(window_parts.c.id)).scalar_subquery()
        connection.execute(sa.update(window_parts).where(window_parts.c.id == first).values(sample=None))
    _judge(feed)
    assert SampleStore(feed.db).last_end_us(feed.stream_id) is None
    assert count_rows(feed.db, "windows") == 1


def test_samples_are_read_in_chunks_by_the_time_of_their_windows(feed: ClaimedStream) -> None:
    for minute in range(1_100):
        store_sample(feed, T0 + minute * MINUTE)
    store = SampleStore(feed.db)
    found = [each.window_start_us for each in store.read_samples(feed.stream_id, T0 + MINUTE, T0 + 1_090 * MINUTE)]
    assert found == [T0 + minute * MINUTE for minute in range(1, 1_090)]
    assert store.last_end_us(feed.stream_id) == T0 + 1_100 * MINUTE


def test_retention_keeps_samples_of_the_last_event_time(feed: ClaimedStream) -> None:
    for minute in range(100):
        store_sample(feed, T0 + minute * MINUTE)
    kept = RetentionSettings(samples=timedelta(minutes=30))
    deleted = retention.delete_expired(feed.db, kept, T0)
    starts = [each.window_start_us for each in SampleStore(feed.db).read_samples(feed.stream_id, 0, T0 + 100 * MINUTE)]
    assert starts == [T0 + minute * MINUTE for minute in range(68, 100)]
    assert deleted.samples == 68


def test_a_model_that_a_sample_refers_to_is_kept(feed: ClaimedStream) -> None:
    first = feed.threshold_id
    second = add_threshold(feed.db, feed.stream_id, valid_from_us=T0)
    store_sample(feed, T0)
    with feed.db.write() as connection:
        connection.execute(sa.update(models).values(state="retired", valid_from_us=models.c.id))
        connection.execute(sa.delete(thresholds).where(thresholds.c.id.in_([first, second])))
    for _ in range(2):
        retention.delete_expired(feed.db, RetentionSettings(models=1), T0)
        assert count_rows(feed.db, "models") == 2
    with feed.db.write() as connection:
        connection.execute(sa.delete(window_samples))
    retention.delete_expired(feed.db, RetentionSettings(models=1), T0)
    assert count_rows(feed.db, "models") == 1
