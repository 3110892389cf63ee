"""Parsing of cron expressions."""

import pytest

from config.cron import check_cron


@pytest.mark.parametrize(
    "text",
    [
        "* * * * *",
        "*/5 * * * *",
        "0 3 * * mon-fri",
        "15,45 0-6/2 1 jan,JUL *",
        "0 0 31 12 7",
        "0 0 29 2 *",
        "0 0 31 feb/2 *",
        "0 0 30-31,5 2 *",
    ],
)
def test_valid_expression_is_unchanged(text: str) -> None:
    assert check_cron(text) == text


def test_spaces_are_normalized() -> None:
    assert check_cron("  0   3 * *\t* ") == "0 3 * * *"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("* * * *", "has 4 fields; a cron expression has five"),
        ("* * * * * *", "has 6 fields"),
        ("60 * * * *", "'60' is not a valid minute .* 0 to 59"),
        ("* 24 * * *", "'24' is not a valid hour"),
        ("* * 0 * *", "'0' is not a valid day of month"),
        ("* * * 13 *", "'13' is not a valid month .* or jan to dec"),
        ("* * * * 8", "'8' is not a valid day of week"),
        ("* * * * funday", "'funday' is not a valid day of week"),
        ("10-5 * * * *", "reversed range"),
        ("*/0 * * * *", "step outside"),
        ("*/99 * * * *", "step outside"),
        ("1,,2 * * * *", "'' is not a valid minute"),
        ("@ * * * *", "'@' is not a valid minute"),
        ("0 0 30 2 *", "30 2 as day of month and month .* does not exist"),
        ("0 0 31 apr,jun-jun,9/2 *", "does not exist: the longest month in it has 30 days"),
        ("0 0 30-31 feb 1", "does not exist"),
    ],
)
def test_invalid_expression_is_an_error_that_names_the_field(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_cron(text)
