"""The codec for JSON and MessagePack records. A record is an object with named features or a list of numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from consumers.batch import RawBatch, Table
from consumers.byte_slices import ByteSlices
from consumers.codecs.assembly import FeatureRows, assemble_batch, merge_rows
from consumers.codecs.dead_letters import DeadLetterBuilder, DeadLetterReason, RejectedRecord
from consumers.codecs.message_fields import ABSENT, MessageType, build_message_types, look_up_field, parse_number
from consumers.codecs.schema import Schema
from consumers.codecs.text import describe_value
from consumers.decoded_batch import DecodedBatch

DECODE_ERRORS = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""Exceptions of the decoders for malformed bytes, invalid UTF-8, None, large integers and deep nesting."""


_UTF16_BE_JSON = (b"\0{\0", b"\0[\0")


class MessageCodec:
    """Decode each message into a type generated for the schema, and parse the remaining messages individually.

    The generated type checks every field while it decodes. A message that matches it is valid except for its
    time and for numbers outside the range of float32. The individual path (`read_message`) is the reference:
    it accepts every message that a type accepts, gives the reason for a rejection, and accepts the NaN and
    Infinity literals that Python's json writes.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._types = build_message_types(schema)
        element: Any = float | None if schema.mean_if_missing else float
        make = msgspec.json.Decoder if schema.format == "json" else msgspec.msgpack.Decoder
        self._decoders: list[Callable[[Any], Any]] = [make(kind.struct | list[element]).decode for kind in self._types]

    def decode(self, raw: RawBatch, now_us: int) -> DecodedBatch:
        """Decode a batch: every record becomes an event or a dead letter."""
        assert not isinstance(raw.values, Table), "messages come one by one"
        dead_letters = DeadLetterBuilder()
        values = raw.values.tolist() if isinstance(raw.values, ByteSlices) else raw.values
        rows = self._reject_oversized(values, dead_letters)
        pieces: list[FeatureRows] = []
        for type_index in range(len(self._types)):
            before = len(rows)
            typed, rows = self._decode_typed(type_index, values, rows)
            pieces.extend(typed)
            if type_index and 2 * len(rows) < before:
                # Most messages match the second type: try it first from now on. The order has no effect on results.
                self._types.reverse()
                self._decoders.reverse()
            if not rows:
                break
        pieces.append(self._read_individually(values, rows, dead_letters))
        merged = merge_rows(pieces, len(self.schema.features))
        return assemble_batch(raw, self.schema, merged, dead_letters, now_us)

    def _reject_oversized(self, values: Sequence[bytes | None], dead_letters: DeadLetterBuilder) -> Sequence[int]:
        limit = self.schema.max_bytes
        if max(map(len, filter(None, values)), default=0) <= limit:
            return range(len(values))
        rows = []
        for row, value in enumerate(values):
            if value is not None and len(value) > limit:
                dead_letters.add(row, DeadLetterReason.TOO_LARGE, f"more than {limit} bytes")
            else:
                rows.append(row)
        return rows

    def _decode_typed(
        self, type_index: int, values: Sequence[bytes | None], rows: Sequence[int]
    ) -> tuple[list[FeatureRows], list[int]]:
        """Decode the rows that match a type. Return their features, and the remaining rows."""
        decode, kind = self._decoders[type_index], self._types[type_index]
        objects: list[Any] = []
        lists: list[list[float | None]] = []
        object_rows: list[int] = []
        list_rows: list[int] = []
        remaining: list[int] = []
        for row in rows:
            try:
                message = decode(values[row])
            except DECODE_ERRORS:
                remaining.append(row)
                continue
            if type(message) is list:
                lists.append(message)
                list_rows.append(row)
            else:
                objects.append(message)
                object_rows.append(row)
        pieces = []
        if objects:
            pieces.append(self._object_rows(kind, objects, object_rows, remaining))
        if lists:
            pieces.append(self._list_rows(lists, list_rows, remaining))
        return pieces, sorted(remaining)

    def _object_rows(self, kind: MessageType, objects: list[Any], rows: list[int], remaining: list[int]) -> FeatureRows:
        n = len(self.schema.features)
        cells = map(kind.features, objects)
        flat = np.fromiter(cells if n == 1 else chain.from_iterable(cells), np.float64, len(objects) * n)
        index, features, valid_rows = self._finite_rows(flat.reshape(-1, n), rows, remaining)
        if len(valid_rows) < len(objects):
            objects = [objects[i] for i in valid_rows]

        def column(getter: attrgetter[Any] | None) -> list[Any] | None:
            return None if getter is None else list(map(getter, objects))

        times, keys, ids = column(kind.time), column(kind.key), column(kind.id)
        return FeatureRows(index=index, features=features, times=times, keys=keys, ids=ids)

    def _list_rows(self, lists: list[list[float | None]], rows: list[int], remaining: list[int]) -> FeatureRows:
        n = len(self.schema.features)
        remaining.extend(row for row, numbers in zip(rows, lists, strict=True) if len(numbers) != n)
        rows = [row for row, numbers in zip(rows, lists, strict=True) if len(numbers) == n]
        flat: Any = chain.from_iterable(numbers for numbers in lists if len(numbers) == n)
        cells = np.fromiter(flat, np.float64, len(rows) * n).reshape(-1, n)
        index, features, _ = self._finite_rows(cells, rows, remaining)
        return self._rows_without_fields(index, features)

    def _rows_without_fields(self, index: Any, features: Any) -> FeatureRows:
        """Return the rows of list messages, which have no time, key or id."""
        empty_column = [None] * len(index)
        schema = self.schema
        return FeatureRows(
            index=index,
            features=features,
            times=empty_column if schema.time_field else None,
            keys=empty_column if schema.key_field else None,
            ids=empty_column if schema.id_field else None,
        )

    def _finite_rows(self, features: Any, rows: list[int], remaining: list[int]) -> tuple[Any, Any, Any]:
        """Return the rows of features that are finite as float32. The other rows are added to `remaining`.

        The individual path rejects them and names the field.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(features.astype(np.float32))
        good = finite.all(axis=1)
        if self.schema.mean_if_missing and self.schema.format == "json":
            absent = np.isnan(features)  # JSON has no NaN, so these values are missing
            good = (finite | absent).all(axis=1) & ~absent.all(axis=1)
        index = np.array(rows, np.int64)
        if good.all():
            return index, features, range(len(rows))
        remaining.extend(index[~good].tolist())
        return index[good], features[good], np.flatnonzero(good).tolist()

    def _read_individually(
        self, values: Sequence[bytes | None], rows: Sequence[int], dead_letters: DeadLetterBuilder
    ) -> FeatureRows:
        schema = self.schema
        index: list[int] = []
        read: list[tuple[list[float], Any, Any, Any]] = []
        for row in rows:
            try:
                read.append(self.read_message(values[row]))
                index.append(row)
            except RejectedRecord as rejected:
                dead_letters.add(row, rejected.reason, rejected.detail)
        features, times, keys, ids = zip(*read, strict=True) if read else ((), (), (), ())
        return FeatureRows(
            index=np.array(index, np.int64),
            features=np.array(features, np.float64).reshape(len(index), len(schema.features)),
            times=times if schema.time_field else None,
            keys=keys if schema.key_field else None,
            ids=ids if schema.id_field else None,
        )

    def read_message(self, value: bytes | None) -> tuple[list[float], Any, Any, Any]:
        """Return the features, time, key and id of one message by looking up each field.

        Raises:
            RejectedRecord: The message is not an event. The exception has the reason and the field.
        """
        schema = self.schema
        message = parse_message(value, schema.format)
        if isinstance(message, list | tuple):
            if len(message) != len(schema.features):
                detail = f"{len(message)} numbers, the model has {len(schema.features)} features"
                raise RejectedRecord(DeadLetterReason.WRONG_LENGTH, detail)
            cells, others = list(message), [None, None, None]
        elif isinstance(message, dict):
            cells = [look_up_field(message, name) for name in schema.features]
            fields = (schema.time_field, schema.key_field, schema.id_field)
            found = [ABSENT if name is None else look_up_field(message, name) for name in fields]
            others = [None if cell is ABSENT else cell for cell in found]
        else:
            raise RejectedRecord(
                DeadLetterReason.NOT_AN_OBJECT, f"neither an object nor a list: {describe_value(message)}"
            )
        if schema.mean_if_missing and all(cell is None or cell is ABSENT for cell in cells):
            raise RejectedRecord(
                DeadLetterReason.MISSING_FEATURE, f"{schema.features[0]} and all other features: absent"
            )
        named = zip(schema.features, cells, strict=True)
        features = [parse_number(name, cell, mean_if_missing=schema.mean_if_missing) for name, cell in named]
        return features, *others  # type: ignore[return-value]


def parse_message(value: bytes | None, encoding: str) -> Any:
    """Decode a message into Python objects.

    Raises:
        RejectedRecord: The message is empty, has schema-registry framing, or has another encoding.
    """
    if value is None:
        raise RejectedRecord(DeadLetterReason.EMPTY, "a record without a value (a tombstone)")
    if not value.strip():
        raise RejectedRecord(DeadLetterReason.EMPTY, "a record of no bytes" if not value else "a record of white space")
    if value[0] == 0 and not (encoding == "json" and value.startswith(_UTF16_BE_JSON)):
        schema_id = int.from_bytes(value[1:5], "big")
        detail = f"starts with 0x00, as schema-registry framing does (schema id {schema_id})"
        raise RejectedRecord(DeadLetterReason.SCHEMA_REGISTRY_FRAMING, detail)
    reason = DeadLetterReason.NOT_JSON if encoding == "json" else DeadLetterReason.NOT_MSGPACK
    try:
        if encoding == "msgpack":
            return msgspec.msgpack.decode(value)
        return _parse_json(value)
    except RecursionError:
        raise RejectedRecord(reason, "nested too deeply") from None
    except DECODE_ERRORS as error:
        raise RejectedRecord(reason, f"{error}") from None


def _parse_json(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError):
        # Records in UTF-8 with a byte order mark, UTF-16 and UTF-32, which msgspec does not read.
        encoding = json.detect_encoding(value) if len(value) > 4 else "utf-8-sig"
        return json.loads(value.decode(encoding), parse_int=_parse_integer)


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else float(digits)
