"""A filter before a codec: the records that it leaves out are counted, and are neither events nor dead letters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from consumers.batch import Int64, Mask, RawBatch, Table
from consumers.codecs.assembly import ColumnValues, FeatureRows, assemble_batch
from consumers.codecs.dead_letters import DeadLetterBuilder, RejectedRecord
from consumers.codecs.message_fields import ABSENT, look_up_field
from consumers.codecs.messages import parse_message
from consumers.codecs.schema import Codec, Schema
from consumers.decoded_batch import NO_TIME_US, DecodedBatch, FilteredRecords


class RecordFilter(Protocol):
    """The decision which records of a stream become events."""

    def keep(self, raw: RawBatch) -> Mask:
        """Return a mask of the records to decode; the others are filtered. No input raises an exception."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FilteringCodec:
    """Decode the records that a filter keeps; of the others only the event time is read.

    Filtered records with a valid event time move the watermark of their source as events do.
    """

    codec: Codec
    schema: Schema
    record_filter: RecordFilter

    def decode(self, raw: RawBatch, now_us: int) -> DecodedBatch:
        """Decode a batch: every record becomes an event, a dead letter or a filtered record."""
        kept = self.record_filter.keep(raw) if len(raw) else np.ones(0, np.bool_)
        if kept.all():
            return self.codec.decode(raw, now_us)
        decoded = self.codec.decode(raw.select(np.flatnonzero(kept)), now_us)
        return replace(decoded, filtered=self._read_filtered(raw, np.flatnonzero(~kept), now_us))

    def _read_filtered(self, raw: RawBatch, rows: Int64, now_us: int) -> FilteredRecords:
        times = _read_time_cells(raw, rows, self.schema)
        without_features = FeatureRows(index=rows, features=np.empty((len(rows), 0), np.float64), times=times)
        unkeyed = replace(raw, keys=None)
        timed = assemble_batch(unkeyed, self.schema, without_features, DeadLetterBuilder(), now_us).events
        offsets = raw.offsets[rows]
        times_us = np.full(len(rows), NO_TIME_US)
        times_us[np.searchsorted(offsets, timed.offsets)] = timed.times_us
        has_append_time = np.zeros(len(rows), np.bool_)
        if timed.has_append_time is not None:
            has_append_time[np.searchsorted(offsets, timed.offsets)] = timed.has_append_time
        return FilteredRecords(
            offsets=offsets,
            times_us=times_us,
            batch_offsets=None if raw.batch_offsets is None else raw.batch_offsets[rows],
            has_append_time=None if timed.has_append_time is None else has_append_time,
        )


def _read_time_cells(raw: RawBatch, rows: Int64, schema: Schema) -> ColumnValues | None:
    """Return the value of the time field of each row, None where it is absent; None without a time field."""
    if schema.time_field is None:
        return None
    if isinstance(raw.values, Table):
        column = raw.values.columns.get(schema.time_field)
        return None if column is None else [column[row] for row in rows.tolist()]
    values = raw.values
    return [_read_time_field(values[row], schema) for row in rows.tolist()]


def _read_time_field(value: bytes | None, schema: Schema) -> Any:
    assert schema.time_field is not None, "called for a schema with a time field"
    try:
        message = parse_message(value, schema.format)
    except RejectedRecord:
        return None
    found = look_up_field(message, schema.time_field) if isinstance(message, dict) else ABSENT
    return None if found is ABSENT else found
