"""Cron expressions are checked for their five fields without a scheduler."""

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
def test_a_well_formed_expression_is_kept(text: str) -> None:
    assert check_cron(text) == text


def test_spaces_are_evened_out() -> None:
    assert check_cron("  0   3 * *\t* ") == "0 3 * * *"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("* * * *", "has 4 fields; a cron expression has five"),
        ("* * * * * *", "has 6 fields"),
        ("60 * * * *", "'60' is no minute .* from 0 to 59"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of month"),
        ("* * * 13 *", "'13' is no month .* or jan to dec"),
        ("* * * * 8", "'8' is no day of week"),
        ("* * * * funday", "'funday' is no day of week"),
        ("10-5 * * * *", "runs backwards"),
        ("*/0 * * * *", "step outside"),
        ("*/99 * * * *", "step outside"),
        ("1,,2 * * * *", "'' is no minute"),
        ("@ * * * *", "'@' is no minute"),
        ("0 0 30 2 *", "30 2 as day of month and month .* never comes"),
        ("0 0 31 apr,jun-jun,9/2 *", "never comes: the longest month in it has 30 days"),
        ("0 0 30-31 feb 1", "never comes"),
    ],
)
def test_a_malformed_expression_is_refused_by_its_field(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_cron(text)
