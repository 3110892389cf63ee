"""Encoded parts of windows: round trips and rejected bytes."""

import zlib
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from monitor.statistics.part import Part, Scale, merge_parts
from monitor.statistics.part_codec import DamagedPart, decode_part, encode_part
from tests.unit.monitor.statistics.test_part import part_of, with_drift


def encode_changed_body(version: int = 1, **changes: object) -> bytes:
    """Encode a part with changed sections and a valid checksum."""
    _, _, body = msgspec.msgpack.decode(encode_part(part_of(1, 2, 6)))
    sections = msgspec.msgpack.decode(body)
    energies = changes.pop("energies", {})
    sections["energies"] |= energies
    body = msgspec.msgpack.encode(sections | changes)
    return msgspec.msgpack.encode((version, zlib.crc32(body), body))


def test_large_counts_survive_the_encoding() -> None:
    part = part_of(*([1.0] * 300))
    for _ in range(30):
        part = merge_parts([part, part])
    assert part.events == 300 * 2**30
    assert decode_part(encode_part(part)).counts.tolist() == [300 * 2**30]


def test_part_of_a_newer_format_is_rejected_with_its_format() -> None:
    with pytest.raises(DamagedPart, match="has format 2, this version of Outrider reads 1"):
        decode_part(encode_changed_body(version=2))


def test_part_with_an_unknown_section_is_rejected() -> None:
    with pytest.raises(DamagedPart, match=r"occupancy.*run the newer version"):
        decode_part(encode_changed_body(occupancy=b"123"))


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": (4, 0, 0, 0)},
        {"counts": (3, 4, 0, 0)},
        {"counts": (3, 1, -1, 0)},
        {"energies": {"top": b"123"}},
        {"energies": {"top": np.array([1, 2, 6], "<f4").tobytes()}},
        {"energies": {"bins": np.array([7, 5, 6], "<i2").tobytes()}},
        {"energies": {"bins": np.array([5, 6, 700], "<i2").tobytes()}},
        {"energies": {"counts": b"12345"}},
        {"energies": {"counts": bytes([0, 1, 2])}},
    ],
)
def test_contradictory_part_is_rejected(changes: dict[str, object]) -> None:
    with pytest.raises(DamagedPart):
        decode_part(encode_changed_body(**changes))


def test_truncated_part_is_reported_as_damaged() -> None:
    with pytest.raises(DamagedPart, match="damaged; restore it"):
        decode_part(encode_part(part_of(1, 2))[:-1])


FIRST_FORMAT = bytes.fromhex(
    "9301ce76e9110fc45082a6636f756e74739405010000a8656e65726769657383a3746f70c414000020420000404000002040000000400000"
    "803fa462696e73c40ae0ff000010001f00c400a6636f756e7473c4050101010101"
)
"""A part of five energies in the bytes that the first version wrote."""


def test_part_without_drift_sums_keeps_the_bytes_of_the_first_format() -> None:
    part = decode_part(FIRST_FORMAT)
    assert part.top.tolist() == [40, 3, 2.5, 2, 1]
    assert part.drift is None
    assert encode_part(part) == FIRST_FORMAT == encode_part(part_of(1, 2, 2.5, 3, 40, scale=Scale(median=2.0, iqr=1.5)))


def test_drift_sums_are_encoded_and_merged() -> None:
    merged = decode_part(encode_part(merge_parts([with_drift(1, 2), with_drift(3), Part.without_events(late=2)])))
    assert merged.drift is not None
    assert merged.drift.ranks.tolist() == [3, 3]
    assert merged.drift.pairs is not None
    assert merged.drift.pairs.tolist() == [3]


def test_impossible_drift_sums_are_rejected() -> None:
    damaged = replace(part_of(1), drift=with_drift(*range(99)).drift)
    with pytest.raises(DamagedPart, match="is inconsistent"):
        decode_part(encode_part(damaged))
