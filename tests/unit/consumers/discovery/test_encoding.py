"""Detection of the encoding of records."""

import gzip
import struct

import msgspec
import numpy as np
import pytest

from consumers.discovery.encoding import detect_encoding


def test_json_objects_and_lists_are_json() -> None:
    assert detect_encoding([b'{"x": 1}', b"[1, 2]", None, b"{}"]).encoding == "json"


def test_few_broken_records_do_not_change_the_detected_encoding() -> None:
    assert detect_encoding([*[b'{"x": 1}'] * 19, b"\xff?"]).encoding == "json"


def test_messagepack_is_detected_by_its_maps() -> None:
    assert detect_encoding([msgspec.msgpack.encode({"x": i, "y": 0.5}) for i in range(20)]).encoding == "msgpack"


def test_packed_float32_is_detected_with_its_width() -> None:
    rows = np.random.default_rng(1).normal(size=(20, 8)).astype("<f4")
    rows[:, 0] = 1.0  # starts with 0x00, like schema-registry framing
    detected = detect_encoding([row.tobytes() for row in rows])
    assert (detected.encoding, detected.description) == ("float32", "packed float32, 8 numbers of 32 bytes")


@pytest.mark.parametrize(
    ("value", "description"),
    [
        (b"\x00" + struct.pack(">I", 42) + b"\x06abc\x12\x34", "framed for a schema registry .* schema id 42"),
        (gzip.compress(b"{}", mtime=0), "gzip"),
        (b"Obj\x01\x04", "Avro container"),
        (b"2026-01-01;12.5;ok", "text that is not JSON: b'2026-01-01;12.5;ok'"),
        (b'"hello"', "neither objects nor lists"),
        (b'[{"amount": 1.5}, {"amount": 2.5}]', "JSON lists of objects: "),
        (b"\x0a\x03\xff\xfe\xfd\x01\x02", "binary .* beginning 0a 03 ff fe"),
    ],
)
def test_unsupported_encoding_is_described(value: bytes, description: str) -> None:
    import re

    detected = detect_encoding([value] * 5)
    assert detected.encoding is None
    assert re.search(description, detected.description), detected.description


def test_tombstones_alone_have_no_encoding() -> None:
    assert detect_encoding([None, None]).encoding is None
