"""Raw batches and decoding helpers for the tests of the codecs."""

import json

import numpy as np

from config.streams import EventSettings
from consumers.batch import Partition, RawBatch
from consumers.codec import make_codec

STAMP_US = 1_714_566_896_000_000
NOW_US = 1_800_000_000_000_000
MAX_FUTURE_US = 300_000_000


def raw_batch(values, *, keys=None, timestamps=True, begin=0, **others):
    n = len(values)
    return RawBatch(
        partition=Partition(topic="t", partition=0),
        begin=begin,
        end=begin + n,
        offsets=np.arange(begin, begin + n, dtype=np.int64),
        values=values,
        keys=keys,
        timestamps_us=np.full(n, STAMP_US) if timestamps else None,
        **others,
    )


def json_records(*objects):
    return [json.dumps(each).encode() for each in objects]


def decode(values, features=("a", "b"), *, layout="lines", now_us=NOW_US, batch=None, **event):
    codec = make_codec(EventSettings(**event), features, layout=layout, max_future_us=MAX_FUTURE_US)
    return codec.decode(raw_batch(values) if batch is None else batch, now_us)


def rejection_of(value, features=("a", "b"), **event):
    """Return the reason and the detail of one rejected record."""
    decoded = decode([value], features, **event)
    assert len(decoded.events) == 0
    return decoded.dead_letters.reasons[0], decoded.dead_letters.details[0]
