"""Numbers, times and probabilities on the pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.time_format import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from monitor.server.pages.formats import (
    age,
    clock,
    duration,
    join_words,
    number,
    plural,
    probability,
    share,
    significant,
    time_tag,
    together,
)

NOON_US = 1_796_040_000_000_000  # 2026-11-30T12:00:00Z


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 s"),
        (250_000, "250 ms"),
        (40 * SECOND_US, "40 s"),
        (119 * SECOND_US, "119 s"),
        (16 * MINUTE_US, "16 min"),
        (8 * HOUR_US + 51 * MINUTE_US, "8 h 51 min"),
        (36 * HOUR_US + 20 * MINUTE_US, "36 h"),
        (76 * HOUR_US, "3 d 4 h"),
        (40 * DAY_US, "40 d"),
        (-MINUTE_US, "−60 s"),
        (None, "–"),
    ],
)
def test_a_duration_has_one_or_two_units(us: int | None, text: str) -> None:
    assert duration(us) == text


def test_an_age_ahead_of_the_clock_says_so() -> None:
    assert age(5 * SECOND_US) == "5 s ago"
    assert age(-5 * SECOND_US) == "5 s ahead of the clock"


def test_a_time_has_its_date_only_where_the_day_is_another() -> None:
    assert clock(NOON_US, beside_us=NOON_US) == "12:00"
    assert clock(NOON_US - DAY_US, beside_us=NOON_US) == "29 Nov 12:00"
    assert clock(NOON_US - 365 * DAY_US, beside_us=NOON_US) == "30 Nov 2025 12:00"
    assert time_tag(NOON_US) == '<time datetime="2026-11-30T12:00:00Z">12:00</time>'


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.25, "0.25"),
        (3.5e-46, '<span class="nowrap">3.5 × 10<sup>−46</sup></span>'),
        (0.0, '<span class="nowrap">&lt; 10<sup>−300</sup></span>'),
        (None, "–"),
    ],
)
def test_a_small_probability_is_a_power_of_ten(p: float | None, text: str) -> None:
    assert probability(p) == text


def test_numbers_have_separators_and_a_minus_sign() -> None:
    assert number(-1234.5, 1) == "−1,234.5"
    assert significant(0.012345) == "0.0123"
    assert significant(123456.0) == "123,456"
    assert significant(1.5e12) == "1.5e+12"
    assert share(0.5) == "50%"
    assert share(0.0123) == "1.2%"
    assert number(float("nan")) == significant(None) == share(float("inf")) == "–"


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=5))
def test_numbers_that_stand_together_have_equal_decimals(values: list[float]) -> None:
    texts = [text for text in together(list(values)) if "e" not in text and text != "0"]
    assert len({len(text.partition(".")[2]) for text in texts}) <= 1


def test_numbers_that_stand_together_can_be_told_apart() -> None:
    assert len(set(together([1000000.25, 1000000.5]))) == 2


def test_words_agree_in_number() -> None:
    assert plural(1, "window") == "1 window"
    assert plural(1200, "window") == "1,200 windows"
    assert join_words(["a", "b", "c"]) == "a, b and c"
    assert join_words([]) == ""
