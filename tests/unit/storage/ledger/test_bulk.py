"""The conversion of float32 values to decimals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.ledger.bulk import shortest_decimals


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_shortest_decimal_round_trips_as_float32(value: float) -> None:
    (text,) = shortest_decimals(np.array([value], np.float32))
    assert np.float32(text) == np.float32(value)
    assert len(repr(text)) <= len(repr(float(np.float32(value)))) + 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinities_become_none(value: float) -> None:
    assert shortest_decimals(np.array([value], np.float32)) == [None]
