"""The codec for records of packed little-endian float32 values. The event time is the broker's timestamp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from consumers.batch import RawBatch, Table
from consumers.byte_slices import ByteSlices
from consumers.codecs.assembly import FeatureRows, assemble_batch
from consumers.codecs.dead_letters import DeadLetterBuilder, DeadLetterReason
from consumers.codecs.schema import Schema
from consumers.decoded_batch import DecodedBatch


@dataclass(frozen=True, slots=True)
class Float32Codec:
    """Decode packed float32 records: check every length, join the records, and view them as one array."""

    schema: Schema

    def decode(self, raw: RawBatch, now_us: int) -> DecodedBatch:
        """Decode a batch. A record that does not have exactly 4 bytes per feature is rejected."""
        assert not isinstance(raw.values, Table), "float32 records come one by one"
        dead_letters = DeadLetterBuilder()
        feature_names = self.schema.features
        expected = 4 * len(feature_names)
        values = raw.values.tolist() if isinstance(raw.values, ByteSlices) else raw.values
        present = values if None not in values else [value or b"" for value in values]
        lengths = np.fromiter(map(len, present), np.int64, len(values))  # type: ignore[arg-type]
        index = np.flatnonzero(lengths == expected)
        for row in np.flatnonzero(lengths != expected).tolist():
            dead_letters.add(row, *self._length_error(int(lengths[row]), expected))
        fitting = present if len(index) == len(values) else [present[row] for row in index.tolist()]
        joined = b"".join(fitting)  # type: ignore[arg-type]
        features = np.frombuffer(joined, "<f4").astype(np.float32).reshape(len(index), len(feature_names))
        finite = np.isfinite(features)
        good = finite.all(axis=1)
        for row in np.flatnonzero(~good).tolist():
            column = int(np.argmin(finite[row]))
            detail = f"{feature_names[column]}: {features[row, column]}"
            dead_letters.add(int(index[row]), DeadLetterReason.NOT_FINITE, detail)
        rows = (
            FeatureRows(index=index[good], features=features[good])
            if not good.all()
            else FeatureRows(index=index, features=features)
        )
        return assemble_batch(raw, self.schema, rows, dead_letters, now_us)

    def _length_error(self, length: int, expected: int) -> tuple[DeadLetterReason, str]:
        if length == 0:
            return DeadLetterReason.EMPTY, "a record without a value"
        if length > self.schema.max_bytes:
            return DeadLetterReason.TOO_LARGE, f"{length} bytes, the limit is {self.schema.max_bytes}"
        n = expected // 4
        return DeadLetterReason.WRONG_LENGTH, f"{length} bytes, {n} float32 features take {expected}"
