"""Pending records, claims and control states for tests of the batch loop."""

from dataclasses import replace

import numpy as np

from consumers.batch import UNREADABLE_BATCH, Partition
from consumers.decoded_batch import DeadLetters, DecodedBatch, Events
from monitor.pipeline.partition_buffer import PartitionBuffer
from storage.ledger.commit import StreamControl
from storage.ledger.sources import SourceClaim
from tests.rules import make_rules

MINUTE = 60_000_000
T0 = 1_767_225_600_000_000
KAFKA = make_rules(size_us=MINUTE, grace_us=MINUTE // 6, ahead_us=10 * MINUTE, max_future_us=None)
FILE = replace(KAFKA, max_future_us=5 * MINUTE)
PARTITION = Partition(topic="t", partition=0)


def control(sealed: float | None = 0, revision: int = 0) -> StreamControl:
    """Return the control state of a stream that is sealed until this minute after T0."""
    return StreamControl(sealed_until_us=None if sealed is None else T0 + round(sealed * MINUTE), revision=revision)


def claimed(begin: int = 0, watermark: float | None = None) -> PartitionBuffer:
    """Return the buffer of a new claim; the watermark is in minutes after T0."""
    watermark_us = None if watermark is None else T0 + round(watermark * MINUTE)
    claim = SourceClaim(source_id=1, epoch=1, next_offset=begin, cursor=10 * begin, watermark_us=watermark_us)
    return PartitionBuffer.from_claim(PARTITION, claim, now_s=0.0)


def records(*minutes: float, begin: int = 0, dead: int = 0) -> DecodedBatch:
    """Return events at these minutes after T0, followed by `dead` dead letters."""
    n = len(minutes)
    offsets = np.arange(begin, begin + n + dead, dtype=np.int64)
    return DecodedBatch(
        partition=PARTITION,
        begin=begin,
        end=begin + n + dead,
        cursors=np.arange(begin, begin + n + dead + 1, dtype=np.int64) * 10,
        events=Events(
            offsets=offsets[:n],
            times_us=np.array([T0 + round(minute * MINUTE) for minute in minutes], np.int64),
            features=np.ones((n, 1), np.float32),
        ),
        dead_letters=dead_letters(offsets[n:], "not_json"),
    )


def unreadable(begin: int, end: int) -> DecodedBatch:
    """Return an unreadable range, which is one dead letter."""
    letters = replace(dead_letters(np.array([begin]), UNREADABLE_BATCH), end_offsets=np.array([end], np.int64))
    return replace(records(begin=begin, dead=end - begin), dead_letters=letters, skip_reason=UNREADABLE_BATCH)


def dead_letters(offsets: np.ndarray, reason: str) -> DeadLetters:
    n = len(offsets)
    return DeadLetters(
        offsets=offsets, end_offsets=offsets + 1, reasons=[reason] * n, details=["-"] * n, payloads=[None] * n
    )
