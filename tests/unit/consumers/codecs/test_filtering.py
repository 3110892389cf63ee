"""A filter before the codec: each record is an event, a dead letter or filtered."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from config.streams import EventSettings
from consumers.batch import Mask, RawBatch, Table
from consumers.byte_slices import ByteSlices
from consumers.codec import make_codec
from consumers.decoded_batch import NO_TIME_US
from tests.unit.consumers.raw_batches import MAX_FUTURE_US, NOW_US, STAMP_US, json_records, raw_batch


@dataclass
class ContainsFilter:
    """Keep the records with a text in them (a table's column `type`)."""

    text: str

    def keep(self, raw: RawBatch) -> Mask:
        if isinstance(raw.values, Table):
            return np.array([cell == self.text for cell in raw.values.columns["type"]])
        return np.array([value is not None and self.text.encode() in value for value in raw.values], np.bool_)


def decode(batch: RawBatch, text: str = "buy", *, layout: str = "lines", **event: object):
    settings = EventSettings.model_validate({"time": {"field": "ts"}, **event})
    codec = make_codec(settings, ("a",), layout=layout, max_future_us=MAX_FUTURE_US, record_filter=ContainsFilter(text))
    return codec.decode(batch, NOW_US)


RECORDS = [
    *json_records(
        {"type": "buy", "a": 1, "ts": STAMP_US},
        {"type": "view", "ts": STAMP_US + 1},
        {"type": "buy", "ts": STAMP_US + 2},
        {"type": "view", "a": 1, "ts": "?"},
        {"type": "buy", "a": 2, "ts": STAMP_US + 3},
    ),
    b"not json",
    None,
]


def as_slices(values):
    lengths = np.array([-1 if value is None else len(value) for value in values])
    starts = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0))[:-1]])
    return ByteSlices(b"".join(value or b"" for value in values), starts, lengths)


@pytest.mark.parametrize("values", [RECORDS, as_slices(RECORDS)], ids=["objects", "slices"])
def test_every_record_is_an_event_a_dead_letter_or_filtered(values):
    decoded = decode(raw_batch(values, keys=[b"k"] * 7, begin=10))
    assert decoded.events.offsets.tolist() == [10, 14]
    assert decoded.dead_letters.offsets.tolist() == [12]
    assert decoded.filtered.offsets.tolist() == [11, 13, 15, 16]
    assert decoded.filtered.times_us.tolist() == [STAMP_US + 1, NO_TIME_US, NO_TIME_US, NO_TIME_US]
    assert decoded.n_records == len(values)
    assert (decoded.begin, decoded.end) == (10, 17)


def test_a_filter_that_keeps_everything_changes_nothing():
    batch = raw_batch(json_records({"type": "buy", "a": 1, "ts": STAMP_US}))
    assert len(decode(batch).filtered) == 0


def test_a_time_beyond_the_timestamp_of_the_broker_is_no_valid_time():
    batch = raw_batch(json_records({"ts": STAMP_US + MAX_FUTURE_US + 1}))
    assert decode(batch).filtered.times_us.tolist() == [NO_TIME_US]


def test_without_a_time_field_the_timestamp_of_the_record_counts():
    assert decode(raw_batch([b"-"]), time=None).filtered.times_us.tolist() == [STAMP_US]


def test_filtered_records_keep_their_record_batches():
    batch = raw_batch(
        json_records({"ts": STAMP_US}, {"type": "buy", "a": 1, "ts": STAMP_US}, {"ts": STAMP_US}),
        batch_offsets=np.array([0, 0, 2]),
        has_append_time=np.array([True, True, False]),
    )
    filtered = decode(batch).filtered
    assert filtered.batch_offsets.tolist() == [0, 2]
    assert filtered.has_append_time.tolist() == [True, False]


def test_rows_of_a_table_are_filtered():
    table = Table(
        columns={"type": ["view", "buy", "buy"], "a": ["1", "2", "x"], "ts": [str(STAMP_US)] * 3},
        n_rows=3,
        row_bytes=[json.dumps(i).encode() for i in range(3)],
    )
    decoded = decode(
        replace(raw_batch([]), end=3, offsets=np.arange(3), values=table, timestamps_us=None), layout="table"
    )
    assert decoded.events.offsets.tolist() == [1]
    assert decoded.dead_letters.payloads == [b"2"]
    assert decoded.filtered.times_us.tolist() == [STAMP_US]
