"""Numbers on their way into a database."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.ledger.bulk import shortest_decimals


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_decimal_gives_the_float32_back(value: float) -> None:
    (text,) = shortest_decimals(np.array([value], np.float32))
    assert np.float32(text) == np.float32(value)
    assert len(repr(text)) <= len(repr(float(np.float32(value)))) + 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_in_json_is_none(value: float) -> None:
    assert shortest_decimals(np.array([value], np.float32)) == [None]
