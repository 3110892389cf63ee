"""Detection of the encoding of records from their bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from consumers.codecs.dead_letters import RejectedRecord
from consumers.codecs.messages import DECODE_ERRORS, parse_message
from consumers.codecs.text import describe_value

_MAX_RECORDS = 200
_MIN_SHARE = 0.9
_PLAUSIBLE_MAGNITUDES = (1e-12, 1e12)
"""The plausible range of magnitudes of event values. Random bytes read as float32 are mostly outside."""

_MAGIC_BYTES = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"Obj\x01", "Avro container files"),
    (b"PAR1", "Parquet files"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectedEncoding:
    """The encoding, or None if it is not supported, and a description for operators."""

    encoding: Literal["json", "msgpack", "float32"] | None
    description: str


def detect_encoding(values: Sequence[bytes | None]) -> DetectedEncoding:
    """Detect the encoding of records, by the majority of the first ones."""
    seen = [value for value in values if value][:_MAX_RECORDS]
    if not seen:
        return DetectedEncoding(encoding=None, description="records without a value (tombstones)")
    kinds = Counter(_payload_kind(value) for value in seen)
    widths = Counter(len(value) for value in seen if _is_float32(value))
    for encoding in ("json", "msgpack"):
        if kinds[encoding] >= _MIN_SHARE * len(seen):
            return DetectedEncoding(encoding=encoding, description={"json": "JSON", "msgpack": "MessagePack"}[encoding])
    if widths and max(widths.values()) >= _MIN_SHARE * len(seen):
        width = widths.most_common(1)[0][0]
        return DetectedEncoding(
            encoding="float32", description=f"packed float32, {width // 4} numbers of {width} bytes"
        )
    most = kinds.most_common(1)[0][0]
    return DetectedEncoding(
        encoding=None, description=_describe_kind(most, next(value for value in seen if _payload_kind(value) == most))
    )


def _payload_kind(value: bytes) -> str:
    framed = value[0] == 0 and len(value) > 5 and not _is_float32(value)
    packed = "framed" if framed else next((name for magic, name in _MAGIC_BYTES if value.startswith(magic)), None)
    if packed is not None:
        return packed
    message = _try_parse(value, "json")
    if message is not None:
        return _json_kind(message)
    if _is_event(_try_parse(value, "msgpack")):
        return "msgpack"
    try:
        return "text" if value.decode().isprintable() else "binary"
    except UnicodeDecodeError:
        return "binary"


def _json_kind(message: object) -> str:
    if isinstance(message, list) and message and all(isinstance(each, dict) for each in message):
        return "objects"
    return "json" if isinstance(message, dict | list) else "scalar"


def _try_parse(value: bytes, encoding: str) -> Any:
    try:
        return parse_message(value, encoding)
    except (RejectedRecord, *DECODE_ERRORS):
        return None


def _is_event(message: object) -> bool:
    if isinstance(message, dict):
        return all(isinstance(name, str) for name in message)
    return isinstance(message, list) and all(isinstance(cell, int | float | None) for cell in message)


def _is_float32(value: bytes) -> bool:
    if len(value) % 4:
        return False
    numbers = np.frombuffer(value, "<f4")
    sizes = np.abs(numbers[numbers != 0]).astype(np.float64)
    return bool(
        np.isfinite(numbers).all() and ((sizes > _PLAUSIBLE_MAGNITUDES[0]) & (sizes < _PLAUSIBLE_MAGNITUDES[1])).all()
    )


def _describe_kind(kind: str, value: bytes) -> str:
    if kind == "framed":
        schema_id = int.from_bytes(value[1:5], "big")
        return f"framed for a schema registry (0x00, then schema id {schema_id}), so Avro, Protobuf or JSON Schema"
    if kind == "scalar":
        return f"JSON, but neither objects nor lists of numbers: {describe_value(value[:60])}"
    if kind == "objects":
        return f"JSON lists of objects: {describe_value(value[:60])}"
    if kind == "text":
        return f"text that is not JSON: {describe_value(value[:60])}"
    if kind == "binary":
        return f"an unknown binary format (possibly Protobuf or Avro), beginning {value[:8].hex(' ')}"
    return kind
