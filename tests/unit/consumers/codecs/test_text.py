"""Cleaning and description of text from events."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.codecs.text import (
    MAX_DETAIL_CHARS,
    MAX_KEY_CHARS,
    clean_text,
    describe_value,
    key_column,
    scalar_text,
    text_column,
)


@given(st.text(st.characters(codec=None), max_size=600), st.integers(1, 300))
def test_clean_text_is_bounded_and_can_be_stored(text, limit):
    cleaned = clean_text(text, limit)
    assert len(cleaned) <= limit
    assert "\0" not in cleaned
    assert cleaned.encode().decode() == cleaned


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=MAX_KEY_CHARS))
def test_valid_text_is_unchanged(text):
    assert text_column([text]) == [text]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"), (7, "7"), (1.5, "1.5"), (True, "true"), (False, "false"), (b"k\xff", "k�"),
        (datetime(2024, 5, 1, tzinfo=UTC), "2024-05-01T00:00:00+00:00"), (None, None), ([1], None), ({}, None),
        (1 << 5_000, "an integer of 5001 bits"),
    ],
)  # fmt: skip
def test_only_scalars_are_converted_to_text(value, text):
    assert scalar_text(value) == text


def test_invalid_utf_8_in_keys_is_replaced_and_absent_keys_stay_absent():
    assert key_column([b"a", None, b"\xc3"]) == ["a", None, "�"]
    assert key_column([None, None]) is None


@pytest.mark.parametrize("value", ["x" * 10_000, b"x" * 10_000, list(range(10_000)), {"a": 1}, 1e300, None])
def test_description_of_a_value_is_short(value):
    assert 0 < len(describe_value(value)) <= MAX_DETAIL_CHARS


def test_huge_integer_is_described_by_its_size():
    assert describe_value(10**10_000) == "an integer of 33220 bits"
