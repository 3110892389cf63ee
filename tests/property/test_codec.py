"""Every record becomes an event or a dead letter for arbitrary bytes, and decoding raises no exception."""

import json
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.streams import EventSettings
from consumers.batch import Partition, RawBatch, Table
from consumers.codec import make_codec
from consumers.codecs.dead_letters import DeadLetterReason, RejectedRecord
from consumers.codecs.messages import MessageCodec
from consumers.codecs.schema import Schema
from consumers.codecs.text import MAX_DETAIL_CHARS, MAX_KEY_CHARS
from consumers.decoded_batch import DecodedBatch
from consumers.times import END_OF_TIME_US
from tests.property.malformed_records import malformed_records

MAX_FUTURE_US = 300_000_000
NOW_US = 1_720_000_000_000_000
FEATURES = ("a", "b", "c.d")


def batch(values, *, timestamps=True, begin=10):
    offsets = np.arange(begin, begin + len(values), dtype=np.int64)
    return RawBatch(
        partition=Partition(topic="t", partition=0),
        begin=begin,
        end=begin + len(values),
        offsets=offsets,
        values=values,
        keys=[None if i % 3 else bytes([i % 256, 0, 255]) for i in range(len(values))],
        timestamps_us=np.full(len(values), NOW_US) if timestamps else None,
    )


def settings(encoding="json", *, missing="reject", fields=True):
    named = {"time": {"field": "ts"}, "key": "cust", "id": "id"} if fields else {}
    return EventSettings(format=encoding, missing=missing, max_size="4KiB", **named)


def is_storable(text, limit):
    return len(text) <= limit and "\0" not in text and text.encode().decode() == text


def check(decoded: DecodedBatch, raw: RawBatch, *, mean: bool = False) -> None:
    """Check the invariants of a decoded batch, and that a database can store its texts."""
    events, dead = decoded.events, decoded.dead_letters
    assert sorted([*events.offsets.tolist(), *dead.offsets.tolist()]) == raw.offsets.tolist()
    assert (np.diff(events.offsets) > 0).all()
    assert (np.diff(dead.offsets) > 0).all()
    assert (dead.end_offsets == dead.offsets + 1).all()
    assert (decoded.begin, decoded.end) == (raw.begin, raw.end)
    assert events.features.dtype in (np.float32, np.float64)
    assert events.features.shape == (len(events), len(FEATURES))
    assert not np.isinf(events.features).any()
    assert mean or not np.isnan(events.features).any()
    assert ((events.times_us >= 0) & (events.times_us < END_OF_TIME_US)).all()
    for texts, limit in ((events.keys, MAX_KEY_CHARS), (events.ids, MAX_KEY_CHARS), (dead.details, MAX_DETAIL_CHARS)):
        for text in texts or []:
            assert text is None or is_storable(text, limit)
    assert set(dead.reasons) <= {reason.value for reason in DeadLetterReason}
    assert all(payload is None or len(payload) <= 4096 for payload in dead.payloads)


def fuzz(n_records: int, seed: int) -> int:
    """Decode records in batches of 500 with every codec in turn. Return the number of events."""
    rng = random.Random(seed)
    scored = 0
    for turn in range(-(-n_records // 500)):
        encoding, mean, fields = ("json", "msgpack")[turn % 2], turn % 4 > 1, turn % 8 > 3
        event = settings(encoding, missing="mean" if mean else "reject", fields=fields)
        codec = make_codec(event, FEATURES, layout="lines", max_future_us=MAX_FUTURE_US)
        raw = batch(list(malformed_records(rng, encoding, 500)), timestamps=turn % 3 > 0)
        decoded = codec.decode(raw, NOW_US)
        check(decoded, raw, mean=mean)
        scored += len(decoded.events)
    return scored


@pytest.mark.slow
def test_twenty_thousand_bad_and_good_records_are_all_events_or_dead_letters():
    assert fuzz(20_000, seed=1) > 4_000


@pytest.mark.long
def test_a_million_bad_and_good_records_are_all_events_or_dead_letters():
    assert fuzz(1_000_000, seed=2) > 200_000


@given(st.lists(st.none() | st.binary(max_size=60), max_size=30), st.sampled_from(["json", "msgpack", "float32"]))
def test_any_bytes_are_events_or_dead_letters(values, encoding):
    raw = batch(values)
    event = settings(encoding, fields=False)
    check(make_codec(event, FEATURES, layout="lines", max_future_us=0).decode(raw, NOW_US), raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcdef"), inner, max_size=4),
    max_leaves=6,
)
NUMBER = st.floats(width=32) | st.integers(-(10**6), 10**6)
NEARLY = st.fixed_dictionaries(
    {"a": NUMBER, "b": NUMBER | JSON},
    optional={"c": st.fixed_dictionaries({"d": NUMBER}) | JSON, "c.d": NUMBER | JSON, "ts": JSON, "id": JSON},
)


@pytest.mark.slow
@given(st.lists(NEARLY | st.lists(NUMBER, max_size=4) | JSON, max_size=12), st.booleans())
def test_typed_decoders_agree_with_the_individual_decoder(messages, mean):
    schema = Schema(
        features=FEATURES, time_field=None, key_field="ts", id_field="id", mean_if_missing=mean, max_bytes=10**6
    )
    values = [json.dumps(message).encode() for message in messages]
    codec = MessageCodec(schema)
    raw = batch(values)
    decoded = codec.decode(raw, NOW_US)
    check(decoded, raw, mean=mean)
    found = dict(zip(decoded.events.offsets.tolist(), decoded.events.features, strict=True))
    rejected = dict(zip(decoded.dead_letters.offsets.tolist(), decoded.dead_letters.reasons, strict=True))
    for offset, value in zip(raw.offsets.tolist(), values, strict=True):
        try:
            features, *_ = codec.read_message(value)
        except RejectedRecord as verdict:
            assert rejected[offset] == verdict.reason
        else:
            np.testing.assert_array_equal(found[offset], np.array(features))


@pytest.mark.slow
@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3)))
def test_every_float32_round_trips_through_all_formats(rows):
    x = np.array(rows, np.float32).reshape(-1, 3)
    encoded = {
        "json": [json.dumps(row).encode() for row in x.tolist()],
        "msgpack": [msgspec.msgpack.encode(row) for row in x.tolist()],
        "float32": [row.astype("<f4").tobytes() for row in x],
    }
    for encoding, values in encoded.items():
        codec = make_codec(settings(encoding, fields=False), FEATURES, layout="lines", max_future_us=0)
        decoded = codec.decode(batch(values), NOW_US)
        np.testing.assert_array_equal(decoded.events.features, x)


CELL = st.none() | st.text(max_size=6) | st.floats().map(str) | st.integers(-(10**40), 10**40).map(str)


@pytest.mark.slow
@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), min_size=1, max_size=10), st.booleans())
def test_any_cells_of_a_table_are_events_or_dead_letters(rows, mean):
    names = ("a", "b", "c.d", "ts")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    offsets = np.arange(10, 10 + len(rows), dtype=np.int64)
    raw = RawBatch(
        partition=Partition(topic="t.csv", partition=0),
        begin=10,
        end=10 + len(rows),
        offsets=offsets,
        values=Table(columns=columns, n_rows=len(rows)),
    )
    event = EventSettings(time={"field": "ts"}, missing="mean" if mean else "reject")
    decoded = make_codec(event, FEATURES, layout="table", max_future_us=0).decode(raw, NOW_US)
    check(decoded, raw, mean=mean)
