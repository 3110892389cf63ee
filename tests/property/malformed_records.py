"""A generator of valid, odd and malformed records from a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec

ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e39, -1e39, 1e308, 2**53 + 1, 2**63, 2**64, 10**30, 10**400,
    float("nan"), float("inf"), float("-inf"), "", "1.5", "NaN", "x\0y", "\ud800", "é" * 300, [], [1], {}, {"a": 1},
    1_700_000_000, 1_700_000_000_123, 1_700_000_000_123_456, "2024-05-01T12:34:56.123456Z", "2024-02-30T00:00:00Z",
    "2024-05-01T12:34:56+02:00", "0000-00-00T00:00:00Z", "9999-12-31T23:59:60Z", "1e400", "١٢٣", -(10**30),
]  # fmt: skip
FIELDS = ["ts", "id", "cust", "a", "b", "c", "c.d", "e", "f.g.h", "f", "", "x\0"]
ODD_BYTES = [
    None, b"", b" ", b"\n", b"null", b"true", b"3", b'"s"', b"[]", b"{}", b"[1,2,3]", b"[1,2,3",
    b"\x00\x00\x00\x00\x07{}", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b'{"a":1}{"a":2}',
    b'{"a":\xff}', b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":1' + b"0" * 5000 + b"}",
    b'{"id":1' + b"0" * 5000 + b',"a":1,"b":1,"c":{"d":1}}', b"[" * 3000, b'{"a":' * 2000,
    b"\x93\x01\x02\x03", b"\xc1", b"\x81\xa1a", b"\xdf\xff\xff\xff\xff",
    b"\xc7\x0c\xff" + b"\x7f" * 12, b"\x81\x90\x01",
]  # fmt: skip


def malformed_records(rng: random.Random, encoding: str, n: int) -> Iterator[bytes | None]:
    """Yield `n` records: valid, odd, truncated, and with changed bytes."""
    for _ in range(n):
        kind = rng.random()
        if kind < 0.05:
            yield rng.choice(ODD_BYTES)
            continue
        if kind < 0.1:
            yield rng.randbytes(rng.randrange(40))
            continue
        value = encode_message(draw_message(rng), encoding)
        if kind < 0.3 and value:
            changed = bytearray(value)
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            value = bytes(changed[: rng.randrange(len(changed)) if kind < 0.2 else None])
        yield value


def draw_message(rng: random.Random) -> Any:
    """Draw an event with mostly valid fields, or a list."""
    if rng.random() < 0.1:
        return [rng.choice(ODD_VALUES) if rng.random() < 0.1 else rng.gauss(0, 1) for _ in range(rng.randrange(5))]
    event: dict[str, Any] = {
        "ts": "2024-05-01T12:34:56.123456Z",
        "id": f"p{rng.randrange(1000)}",
        "cust": rng.randrange(1000),
        "a": rng.gauss(0, 1),
        "b": rng.randrange(10),
    }
    if rng.random() < 0.5:
        event["c"] = {"d": rng.gauss(0, 1)}
    else:
        event["c.d"] = rng.gauss(0, 1)
    for _ in range(rng.choice([0, 0, 1, 2])):
        event[rng.choice(FIELDS)] = rng.choice(ODD_VALUES)
    for _ in range(rng.choice([0, 0, 0, 1])):
        event.pop(rng.choice(FIELDS), None)
    return event


def encode_message(value: Any, encoding: str) -> bytes:
    """Encode a message as Python's json does (with NaN), or as MessagePack if it can represent the value."""
    if encoding == "msgpack":
        try:
            return msgspec.msgpack.encode(value)
        except (OverflowError, UnicodeEncodeError):
            return b"\xc0"
    return json.dumps(value).encode()
