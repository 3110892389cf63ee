"""The false-alarm probability of one window."""

import pytest

from config.budget import false_alarm_probability

MINUTE = 60_000_000


def test_one_false_alarm_a_week_of_minutes_is_one_in_ten_thousand() -> None:
    assert false_alarm_probability(1, MINUTE, share=1) == pytest.approx(9.92e-5, rel=1e-3)
    assert false_alarm_probability(1, MINUTE) == pytest.approx(4.96e-5, rel=1e-3)


@pytest.mark.parametrize(
    ("per_week", "window_us", "share"), [(0, MINUTE, 1), (1, 0, 1), (1, MINUTE, 0), (1, MINUTE, 2)]
)
def test_empty_false_alarm_budget_is_rejected(per_week: float, window_us: int, share: float) -> None:
    with pytest.raises(ValueError, match="must be positive and share in"):
        false_alarm_probability(per_week, window_us, share=share)


def test_false_alarm_probability_is_at_most_a_half() -> None:
    assert false_alarm_probability(1000, 7 * 24 * 60 * MINUTE) == 0.5
