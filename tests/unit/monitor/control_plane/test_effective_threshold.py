"""A window is tested at the rate of its hour, and with the expected outliers of its habitual keys."""

from dataclasses import replace

import pytest

from config.time_format import DAY_US, HOUR_US
from monitor.incidents.effective_threshold import apply_to_window
from monitor.incidents.window import ThresholdInForce
from monitor.statistics.season import Season
from tests.unit.monitor.judged_windows import EVENTS, MINUTE, RULES, T0, Stream, learned_threshold

RULES_WITHOUT_WAIT = replace(RULES, adopt_after_us=0)
SEASON = Season(
    kind="hour_of_day",
    timezone="UTC",
    coefficients=(-0.9, 0.0, 0.0, 0.0),
    level=0.0,
    exposure=4e6,
    parameters=1.9,
    since_us=T0,
)


def seasonal_threshold() -> ThresholdInForce:
    return replace(learned_threshold(), season=SEASON)


def test_rate_and_clean_rate_are_those_of_the_hour() -> None:
    threshold = seasonal_threshold()
    for hour in (0, 6, 12):
        start_us = T0 + hour * HOUR_US - MINUTE // 2
        at_hour = apply_to_window(threshold, start_us, start_us + MINUTE, {})
        factor = at_hour.season_factor
        assert at_hour.count_model.rate == pytest.approx(0.005 * factor)
        assert at_hour.clean_rate == pytest.approx(threshold.clean_rate * factor)
        variance = 1 + EVENTS * factor * (1 / 1_440_000 + 1.9 / 4e6)
        assert at_hour.count_model.variance_ratio(EVENTS) == pytest.approx(variance, rel=1e-6)
    assert apply_to_window(learned_threshold(), T0, T0 + MINUTE, {}) == learned_threshold()


def test_count_that_is_usual_at_noon_is_a_spike_at_midnight_early_and_at_the_end() -> None:
    midnight, noon = Stream(threshold=seasonal_threshold()), Stream(threshold=seasonal_threshold(), window=720)
    for stream, expected in ((midnight, {"spike"}), (noon, set())):
        assert {row.kind for row in stream.judge_early(20)} == expected
        assert {row.kind for row in stream.judge(14).incidents} == expected
    assert noon.judge(14).window.expected == pytest.approx(5 * 2.46, rel=0.01)


def test_slow_rise_is_compared_with_the_rate_of_the_hour() -> None:
    stream = Stream(threshold=seasonal_threshold(), window=660)
    stream.run([12] * 120)
    assert stream.kinds == set()
    stream = Stream(threshold=seasonal_threshold(), window=0)
    stream.run([5] * 120)
    assert stream.kinds == {"slow_rise"}


def test_accepted_rate_holds_at_every_hour() -> None:
    state = {"accepted": {"until_us": T0 + DAY_US, "model_id": 1, "rate": 0.01}}
    at_midnight = apply_to_window(seasonal_threshold(), T0, T0 + MINUTE, state)
    assert at_midnight.count_model.rate == 0.01


def test_outliers_of_a_habitual_key_are_expected_and_named() -> None:
    stream = Stream(rules=RULES_WITHOUT_WAIT)
    for _ in range(31):
        assert not stream.judge(6, keys={"HA": (2, 2)}).incidents
    usual = {"HA": (40, 40)}
    assert stream.judge_early(40, keys=usual) == []
    assert stream.judge_early(40, keys={"other": (40, 40)}) != []
    stream.open_incidents.clear()
    judged = stream.judge(40, keys=usual)
    assert not judged.incidents
    assert judged.window.expected == pytest.approx(0.005 * 960 + 40, rel=0.02)
    (spike,) = [row for row in stream.judge(120, keys=usual).incidents if row.kind == "spike"]
    assert "40 of them are of keys whose events usually are outliers (39.6 expected): HA" in spike.summary
    assert spike.details["opened"]["habitual"]["keys"] == ["HA"]


def test_key_that_becomes_habitual_is_a_row() -> None:
    stream = Stream(rules=RULES_WITHOUT_WAIT)
    rows = [row for _ in range(31) for row in stream.judge(6, keys={"HA": (2, 2)}).habitual_keys]
    assert [(row.key, row.since_us) for row in rows] == [("HA", T0 + 30 * MINUTE)]
