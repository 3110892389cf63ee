"""The synthetic source: reproducible events, planted bursts and drift, and pacing."""

import itertools
import json
import time

import numpy as np
import pytest

from config.streams import EventSettings
from config.time_format import MINUTE_US
from consumers.batch import Partition, Position
from consumers.codec import make_codec
from consumers.synthetic.plan import BLOCK_EVENTS, SyntheticPlan
from consumers.synthetic.source import SyntheticSource

START_US = 1_700_000_000_000_000


def opened(plan, positions=None, **options):
    options = {"speed": 0.0, "start_us": START_US} | options
    source = SyntheticSource(plan, **options)
    for partition in sorted(source.poll(0).assigned):
        source.seek(partition, Position(next_offset=(positions or {}).get(partition.partition, 0)))
    return source


def drain(source):
    batches, ended = [], set()
    while len(ended) < source.plan.partitions:
        poll = source.poll(0.05)
        batches.extend(poll.batches)
        ended |= poll.ended
    return batches


def values_of(batches, partition=0):
    return [value for batch in batches if batch.partition.partition == partition for value in batch.values]


def decode(plan, batches):
    event = EventSettings(time={"field": "ts"}, id="id")
    codec = make_codec(event, plan.feature_names, layout="lines", max_future_us=0)
    return [codec.decode(batch, 0) for batch in batches]


def test_every_event_is_delivered_once_before_every_partition_ends():
    batches = drain(opened(SyntheticPlan(partitions=3), events=10_000))
    for p, n in ((0, 3_334), (1, 3_333), (2, 3_333)):
        offsets = np.concatenate([batch.offsets for batch in batches if batch.partition.partition == p])
        assert offsets.tolist() == list(range(n))


@pytest.mark.parametrize("offset", [0, 1, BLOCK_EVENTS - 1, BLOCK_EVENTS, 5_001])
def test_restart_at_any_offset_continues_with_identical_bytes(offset):
    plan = SyntheticPlan(seed=7, partitions=2)
    whole = values_of(drain(opened(plan, events=12_000)), 1)
    assert values_of(drain(opened(plan, {1: offset}, events=12_000)), 1) == whole[offset:]


def test_another_seed_gives_other_events():
    first, second = (values_of(drain(opened(SyntheticPlan(seed=seed), events=10))) for seed in (1, 2))
    assert first != second


def test_records_are_decoded_with_the_broker_timestamp_as_time():
    plan = SyntheticPlan(n_features=5, partitions=2, rate=100.0)
    batches = drain(opened(plan, events=5_000))
    for batch, decoded in zip(batches, decode(plan, batches), strict=True):
        assert len(decoded.dead_letters) == 0
        np.testing.assert_array_equal(decoded.events.times_us, batch.timestamps_us)
        assert decoded.events.ids[0] == f"{batch.partition.partition}-{batch.begin}"


def test_event_times_rise_over_all_partitions_at_the_rate():
    plan = SyntheticPlan(partitions=3, rate=200.0)
    batches = drain(opened(plan, events=6_000))
    by_number = np.empty(6_000, np.int64)
    for batch in batches:
        by_number[batch.offsets * 3 + batch.partition.partition] = batch.timestamps_us
    assert (np.diff(by_number) >= 0).all()
    assert by_number[0] >= START_US
    assert by_number[-1] < START_US + 30_000_000


def test_outliers_are_planted_only_in_bursts_and_with_their_share():
    plan = SyntheticPlan(
        n_features=6, rate=1_000.0, first_burst_us=5_000_000, burst_every_us=10_000_000, burst_length_us=2_000_000,
        burst_share=0.3,
    )  # fmt: skip
    calm = SyntheticPlan(
        n_features=6, rate=1_000.0, first_burst_us=5_000_000, burst_every_us=10_000_000, burst_length_us=2_000_000,
        burst_share=0.0,
    )  # fmt: skip
    source = opened(plan, events=20_000)
    with_bursts = np.concatenate([each.events.features for each in decode(plan, drain(source))])
    batches = drain(opened(calm, events=20_000))
    without = np.concatenate([each.events.features for each in decode(calm, batches)])
    times = np.concatenate([batch.timestamps_us for batch in batches])
    changed = (with_bursts != without).any(axis=1)
    inside = np.zeros(20_000, bool)
    for start, end, kind in source.planted_anomalies():
        assert kind == "burst"
        inside |= (times >= start) & (times < end)
    assert not changed[~inside].any()
    assert 0.25 < changed[inside].mean() < 0.35
    scale = without.std(axis=0)
    far = np.abs((with_bursts[changed] - without.mean(axis=0)) / scale).max(axis=1)
    assert np.quantile(far, 0.05) > 4
    assert source.planted_anomalies() == [
        (START_US + 5_000_000, START_US + 7_000_000, "burst"),
        (START_US + 15_000_000, START_US + 17_000_000, "burst"),
    ]


def test_drift_shifts_some_features_by_deviations_from_its_start():
    plan = SyntheticPlan(n_features=8, rate=1_000.0, burst_share=0.0, drift_after_us=20_000_000, drift_shift=0.8)
    source = opened(plan, events=40_000)
    x = np.concatenate([each.events.features for each in decode(plan, drain(source))])
    shift = (x[20_000:].mean(axis=0) - x[:20_000].mean(axis=0)) / x[:20_000].std(axis=0)
    assert np.abs(shift[:2] - 0.8).max() < 0.1
    assert np.abs(shift[2:]).max() < 0.1
    assert source.planted_anomalies(START_US + 30_000_000) == [(START_US + 20_000_000, START_US + 30_000_000, "drift")]


def test_default_start_is_the_minute_and_is_kept_in_the_identity():
    plan = SyntheticPlan(seed=3)
    found = SyntheticSource(plan).discover()[0]
    later = SyntheticSource(plan, identity=found.identity)
    assert later.start_us % MINUTE_US == 0
    assert later.discover()[0].identity == found.identity
    assert str(later.start_us) in found.identity


def test_identity_of_another_plan_is_ignored():
    identity = SyntheticSource(SyntheticPlan(seed=3), start_us=START_US).discover()[0].identity
    assert SyntheticSource(SyntheticPlan(seed=4), identity=identity).start_us != START_US


def test_live_stream_delivers_exactly_the_due_events():
    plan = SyntheticPlan(rate=100.0)
    identity = f"synthetic:plan={plan.fingerprint}:start={time.time_ns() // 1_000 - 10_000_000}"
    source = SyntheticSource(plan, identity=identity)
    (partition,) = source.poll(0).assigned
    source.seek(partition, Position(next_offset=0))
    (batch,) = source.poll(0.05).batches
    assert 1_000 <= len(batch) < 1_100
    assert batch.timestamps_us.max() <= time.time_ns() // 1_000


def test_paced_stream_delivers_event_time_at_its_speed():
    source = opened(SyntheticPlan(rate=1_000.0), speed=10.0)
    began = time.monotonic()
    n = 0
    while n < 3_000:
        n += sum(len(batch) for batch in source.poll(0.5).batches)
        assert n <= (time.monotonic() - began) * 10_000 + 1
    assert time.monotonic() - began < 2.0


def test_caught_up_after_all_due_events_were_delivered():
    source = opened(SyntheticPlan(), events=100)
    partition = Partition(topic="synthetic", partition=0)
    assert source.caught_up({partition}) == frozenset()
    drain(source)
    assert source.caught_up({partition}) == {partition}


def test_paused_partition_waits_while_the_others_continue():
    source = opened(SyntheticPlan(partitions=2), events=100)
    paused = Partition(topic="synthetic", partition=0)
    source.set_paused({paused})
    assert {batch.partition.partition for batch in source.poll(0).batches} == {1}
    source.set_paused(set())
    assert len(values_of(drain_one(source, paused))) == 50


def drain_one(source, partition):
    batches = []
    while not (poll := source.poll(0.05)).ended:
        batches.extend(poll.batches)
    return [*batches, *poll.batches]


def test_time_resolves_to_the_first_event_at_or_after_it_within_a_slot():
    plan = SyntheticPlan(rate=10.0, partitions=2)
    source = SyntheticSource(plan, start_us=START_US, speed=0.0, events=1_000)
    found = source.discover()
    at = source.resolve(START_US + 10_000_000, found)
    assert [position.next_offset for position in at.values()] == [50, 50]
    assert {position.next_offset for position in source.resolve("latest", found).values()} == {500}
    assert {position.next_offset for position in source.resolve("earliest", found).values()} == {0}


def test_records_have_the_form_of_a_brokers_records():
    (batch,) = opened(SyntheticPlan(n_features=2), events=1).poll(0).batches
    record = json.loads(batch.values[0])
    assert list(record) == ["ts", "id", "x0", "x1"]
    assert record["ts"].endswith("Z")


def test_batches_of_a_partition_are_contiguous():
    batches = drain(opened(SyntheticPlan(), events=9_000))
    assert all(before.end == after.begin for before, after in itertools.pairwise(batches))
