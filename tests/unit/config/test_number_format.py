"""Numbers that are shown together have enough digits to tell them apart."""

import math

import pytest

from config.number_format import format_together


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((99.5, 12.5, 10.0, 15.0), ["99.5", "12.5", "10", "15"]),
        ((1e9 + 100, 1e9, 1e9 - 2), ["1000000100", "1000000000", "999999998"]),
        ((1e9, 1e9), ["1e+09", "1e+09"]),
        ((1e12 + 0.25, 1e12 - 0.25), ["1000000000000.25", "999999999999.75"]),
        ((math.inf, 1.0), ["inf", "1"]),
        ((0.0, 0.0), ["0", "0"]),
    ],
)
def test_numbers_are_told_apart(values: tuple[float, ...], expected: list[str]) -> None:
    assert format_together(values, 5) == expected
