"""What records look like, told from their bytes."""

import gzip
import struct

import msgspec
import numpy as np
import pytest

from consumers.discovery.encoding import detect_encoding


def test_json_objects_and_lists_are_json() -> None:
    assert detect_encoding([b'{"x": 1}', b"[1, 2]", None, b"{}"]).encoding == "json"


def test_a_few_broken_records_do_not_change_the_look() -> None:
    assert detect_encoding([*[b'{"x": 1}'] * 19, b"\xff?"]).encoding == "json"


def test_messagepack_is_told_by_its_maps() -> None:
    assert detect_encoding([msgspec.msgpack.encode({"x": i, "y": 0.5}) for i in range(20)]).encoding == "msgpack"


def test_packed_float32_is_told_with_its_width() -> None:
    rows = np.random.default_rng(1).normal(size=(20, 8)).astype("<f4")
    rows[:, 0] = 1.0  # begins with 0x00, as framing does
    look = detect_encoding([row.tobytes() for row in rows])
    assert (look.encoding, look.description) == ("float32", "packed float32, 8 numbers of 32 bytes")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"\x00" + struct.pack(">I", 42) + b"\x06abc\x12\x34", "framed for a schema registry .* schema id 42"),
        (gzip.compress(b"{}", mtime=0), "gzip"),
        (b"Obj\x01\x04", "Avro container"),
        (b"2026-01-01;12.5;ok", "text that is no JSON: b'2026-01-01;12.5;ok'"),
        (b'"hello"', "neither objects nor lists"),
        (b'[{"amount": 1.5}, {"amount": 2.5}]', "JSON lists of objects: "),
        (b"\x0a\x03\xff\xfe\xfd\x01\x02", "binary .* beginning 0a 03 ff fe"),
    ],
)
def test_what_cannot_be_read_is_named_by_what_it_looks_like(value: bytes, said: str) -> None:
    import re

    look = detect_encoding([value] * 5)
    assert look.encoding is None
    assert re.search(said, look.description), look.description


def test_tombstones_alone_look_like_nothing() -> None:
    assert detect_encoding([None, None]).encoding is None
