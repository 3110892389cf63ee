"""The codec for packed float32 records."""

import numpy as np

from tests.unit.consumers.raw_batches import STAMP_US, decode, raw_batch, rejection_of


def packed(*numbers):
    return np.array(numbers, "<f4").tobytes()


def test_records_are_decoded_as_little_endian_float32():
    decoded = decode([packed(1, -2.5), b"\x00\x00\x80\x3f\x00\x00\x00\x40"], format="float32")
    assert decoded.events.features.tolist() == [[1, -2.5], [1, 2]]
    assert decoded.events.times_us.tolist() == [STAMP_US] * 2


def test_leading_zeros_are_not_schema_registry_framing():
    assert decode([packed(0, 0)], format="float32").events.features.tolist() == [[0, 0]]


def test_only_records_of_another_length_are_rejected():
    decoded = decode([packed(1), packed(1, 2), packed(1, 2) + b"\0", None, b"", packed(3, 4)], format="float32")
    assert decoded.events.features.tolist() == [[1, 2], [3, 4]]
    assert decoded.dead_letters.reasons == ["wrong_length", "wrong_length", "empty", "empty"]
    assert decoded.dead_letters.details[0] == "4 bytes, 2 float32 features take 8"


def test_non_finite_value_is_rejected_with_its_feature():
    assert rejection_of(packed(1, np.inf), format="float32") == ("not_finite", "b: inf")
    assert rejection_of(packed(np.nan, 1), format="float32", missing="mean") == ("not_finite", "a: nan")


def test_large_record_is_rejected_as_too_large():
    assert rejection_of(b"x" * 2000, format="float32", max_size="1KiB")[0] == "too_large"


def test_features_do_not_share_memory_with_the_records():
    value = bytearray(packed(1, 2))
    decoded = decode(None, batch=raw_batch([bytes(value)]), format="float32")
    value[:] = packed(3, 4)
    assert decoded.events.features.tolist() == [[1, 2]]
