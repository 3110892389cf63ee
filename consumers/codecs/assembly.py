"""Assembly of decoded batches: event times, keys and ids are added to rows of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from consumers.batch import Floats, Int64, Mask, RawBatch
from consumers.codecs.dead_letters import DeadLetterBuilder, DeadLetterReason
from consumers.codecs.schema import Schema
from consumers.codecs.text import describe_value, key_column, text_column
from consumers.decoded_batch import DecodedBatch, Events
from consumers.times import BAD_TIME, END_OF_TIME_US, NO_TIME, times_us

ColumnValues = Sequence[object] | NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRows:
    """Rows of one raw batch with decoded features. Times, keys and ids are not yet parsed.

    `index` holds each row's position in the raw batch.
    """

    index: Int64
    features: Floats
    times: ColumnValues | None = None
    keys: ColumnValues | None = None
    ids: ColumnValues | None = None

    def __len__(self) -> int:
        return len(self.index)


def merge_rows(pieces: Sequence[FeatureRows], n_features: int) -> FeatureRows:
    """Merge pieces with the same columns into one, in the order of the raw batch."""
    pieces = [piece for piece in pieces if len(piece)]
    if len(pieces) == 1:
        return pieces[0]
    if not pieces:
        return FeatureRows(index=np.empty(0, np.int64), features=np.empty((0, n_features), np.float64))
    index = np.concatenate([piece.index for piece in pieces])
    order = np.argsort(index)
    return FeatureRows(
        index=index[order],
        features=np.concatenate([piece.features for piece in pieces])[order],
        times=_concatenate_in_order([piece.times for piece in pieces], order),
        keys=_concatenate_in_order([piece.keys for piece in pieces], order),
        ids=_concatenate_in_order([piece.ids for piece in pieces], order),
    )


def _concatenate_in_order(columns: Sequence[ColumnValues | None], order: NDArray[np.intp]) -> list[object] | None:
    joined: list[object] = []
    for column in columns:
        if column is None:
            return None
        joined.extend(column)
    return [joined[i] for i in order.tolist()]


def assemble_batch(
    raw: RawBatch, schema: Schema, rows: FeatureRows, dead_letters: DeadLetterBuilder, now_us: int
) -> DecodedBatch:
    """Build the decoded batch: parse the event times, and reject rows without a valid one.

    Args:
        raw: The raw batch.
        schema: The fields of an event.
        rows: The rows with valid features.
        dead_letters: The rows rejected so far. Rows without a valid time are added.
        now_us: The time of events without a timestamp, in microseconds since 1970.
    """
    times = _event_times(raw, schema, rows, now_us)
    good = _reject_bad_times(raw, schema, rows, times, dead_letters)
    if not good.all():
        selected = np.flatnonzero(good)
        rows, times = _select_rows(rows, selected), times[selected]
    return DecodedBatch(
        partition=raw.partition,
        begin=raw.begin,
        end=raw.end,
        cursors=raw.cursors,
        events=Events(
            offsets=raw.offsets[rows.index],
            times_us=times,
            features=rows.features,
            keys=_key_column(raw, schema, rows),
            ids=None if rows.ids is None else text_column(_as_sequence(rows.ids)),
            trace_ids=None if raw.trace_ids is None else [raw.trace_ids[row] for row in rows.index.tolist()],
            batch_offsets=None if raw.batch_offsets is None else raw.batch_offsets[rows.index],
            has_append_time=_trusted_times(raw, schema, rows.index),
        ),
        dead_letters=dead_letters.build(raw),
        skip_reason=raw.skip_reason,
    )


def _trusted_times(raw: RawBatch, schema: Schema, index: Int64) -> Mask | None:
    """Return a mask of the times that a trusted clock has set: that of the broker, or of this machine for a file."""
    if schema.time_field is None and raw.timestamps_us is None:
        return np.ones(len(index), np.bool_)
    return None if raw.has_append_time is None else raw.has_append_time[index]


def _event_times(raw: RawBatch, schema: Schema, rows: FeatureRows, now_us: int) -> Int64:
    if schema.time_field is not None:
        if rows.times is None:
            return np.full(len(rows), NO_TIME)
        return times_us(rows.times, schema.time_unit)
    if raw.timestamps_us is None:
        return np.full(len(rows), now_us)
    stamps = raw.timestamps_us[rows.index]
    stamps = np.where(stamps < 0, NO_TIME, stamps)
    return np.where(stamps >= END_OF_TIME_US, BAD_TIME, stamps)


def _reject_bad_times(
    raw: RawBatch, schema: Schema, rows: FeatureRows, times: Int64, dead_letters: DeadLetterBuilder
) -> Mask:
    field = schema.time_field or "the broker's timestamp"
    good: Mask = times >= 0
    for i in np.flatnonzero(~good).tolist():
        if times[i] == NO_TIME:
            dead_letters.add(int(rows.index[i]), DeadLetterReason.NO_TIME, f"{field}: absent")
        else:
            value = raw.timestamps_us if rows.times is None else rows.times
            original = None if value is None else value[i if rows.times is not None else int(rows.index[i])]
            dead_letters.add(int(rows.index[i]), DeadLetterReason.BAD_TIME, f"{field}: {describe_value(original)}")
    if schema.time_field is not None and raw.timestamps_us is not None:
        stamps = raw.timestamps_us[rows.index]
        ahead = good & (stamps >= 0) & (times - schema.max_future_us > stamps)
        for i in np.flatnonzero(ahead).tolist():
            lead_s = (int(times[i]) - int(stamps[i])) / 1e6
            detail = f"{field}: {lead_s:.3f} s after the broker's timestamp"
            dead_letters.add(int(rows.index[i]), DeadLetterReason.FUTURE_TIME, detail)
        good = good & ~ahead
    if raw.max_event_time_us is not None:
        beyond = good & (times > raw.max_event_time_us)
        for i in np.flatnonzero(beyond).tolist():
            lead_s = (int(times[i]) - raw.max_event_time_us) / 1e6
            detail = f"{field}: {lead_s:.3f} s after anything that can have happened by this machine's clock"
            dead_letters.add(int(rows.index[i]), DeadLetterReason.FUTURE_TIME, detail)
        good = good & ~beyond
    return good


def _select_rows(rows: FeatureRows, selected: NDArray[np.intp]) -> FeatureRows:
    indices = selected.tolist()
    return FeatureRows(
        index=rows.index[selected],
        features=rows.features[selected],
        keys=None if rows.keys is None else [rows.keys[i] for i in indices],
        ids=None if rows.ids is None else [rows.ids[i] for i in indices],
    )


def _key_column(raw: RawBatch, schema: Schema, rows: FeatureRows) -> list[str | None] | None:
    if schema.key_field is not None:
        return None if rows.keys is None else text_column(_as_sequence(rows.keys))
    if raw.keys is None:
        return None
    is_complete = len(rows) == len(raw)
    return key_column(raw.keys if is_complete else [raw.keys[i] for i in rows.index.tolist()])


def _as_sequence(column: ColumnValues) -> Sequence[object]:
    return column.tolist() if isinstance(column, np.ndarray) else column
