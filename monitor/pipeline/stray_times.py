"""Stray future times: found by the vote of the log, and turned into dead letters. Pure functions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from config.stream_rules import StreamRules
from config.time_format import format_utc
from consumers.clock_vote import ReadExtent, TimedRecords, find_stray_times, has_jumps
from consumers.decoded_batch import NO_TIME_US, DeadLetters, DecodedBatch

Int64 = NDArray[np.int64]


def find_timed_records(batch: DecodedBatch) -> TimedRecords:
    """Return the records of a batch that have an event time: its events, and the filtered records with a valid time."""
    events, filtered = batch.events, batch.filtered
    pieces = [TimedRecords.of(events.offsets, events.times_us, events.batch_offsets, events.has_append_time)]
    if len(filtered):
        timed = filtered.times_us != NO_TIME_US
        pieces.append(
            TimedRecords.of(
                filtered.offsets[timed],
                filtered.times_us[timed],
                None if filtered.batch_offsets is None else filtered.batch_offsets[timed],
                None if filtered.has_append_time is None else filtered.has_append_time[timed],
            )
        )
    return TimedRecords.merge(pieces)


def mask_stray_times(
    records: TimedRecords,
    watermark_us: int | None,
    rules: StreamRules,
    *,
    following: Sequence[DecodedBatch],
    extent: ReadExtent,
) -> tuple[NDArray[np.bool_], int]:
    """Return a mask of the records with stray future times, and the number of leading records that are decided.

    Args:
        records: The records of a batch that have an event time.
        watermark_us: The source's watermark before them.
        rules: The rules of the stream.
        following: The batches after it that are read already, which vote too.
        extent: How far the log was read.
    """
    n = len(records)
    if rules.max_future_us is None or not has_jumps(records, watermark_us, rules.max_future_us):
        return np.zeros(n, np.bool_), n
    known = TimedRecords.merge([records, *(find_timed_records(batch) for batch in following)])
    stray, decided = find_stray_times(known, n, watermark_us, rules.max_future_us, extent)
    stray[decided:] = False
    return stray, decided


def reject_stray_times(batch: DecodedBatch, stray_offsets: Int64) -> DecodedBatch:
    """Turn the events at these offsets into dead letters."""
    stray = np.isin(batch.events.offsets, stray_offsets)
    rows = np.flatnonzero(stray)
    if not len(rows):
        return batch
    rejected = DeadLetters(
        offsets=batch.events.offsets[rows],
        end_offsets=batch.events.offsets[rows] + 1,
        reasons=["future_time"] * len(rows),
        details=[
            f"{format_utc(int(batch.events.times_us[i]))}; the record batches after it have earlier times" for i in rows
        ],
        payloads=[None] * len(rows),
    )
    dead_letters = _sort_dead_letters(DeadLetters.concat([batch.dead_letters, rejected]))
    return replace(batch, events=batch.events.filter(~stray), dead_letters=dead_letters)


def _sort_dead_letters(dead_letters: DeadLetters) -> DeadLetters:
    order = np.argsort(dead_letters.offsets, kind="stable")
    return DeadLetters(
        offsets=dead_letters.offsets[order],
        end_offsets=dead_letters.end_offsets[order],
        reasons=[dead_letters.reasons[i] for i in order],
        details=[dead_letters.details[i] for i in order],
        payloads=[dead_letters.payloads[i] for i in order],
    )
