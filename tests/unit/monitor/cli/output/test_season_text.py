"""The season is described with its start, or with the reason why none is active."""

from dataclasses import replace

import pytest

from config.time_format import DAY_US
from monitor.cli.output.season_text import describe_season
from monitor.statistics.season import Season, SeasonState, SeasonTest
from storage.control.thresholds import ThresholdRow
from tests.unit.monitor.judged_windows import T0, learned_threshold

NONE = SeasonState(setting="auto", timezone="UTC", day=T0 // DAY_US, season=None, tests=())


def threshold_with(state: SeasonState) -> ThresholdRow:
    row = learned_threshold().row
    return replace(row, details={**row.details, "season": state.to_json()})


def test_active_season_has_its_start_and_range() -> None:
    season = Season(
        kind="hour_of_day",
        timezone="Europe/Berlin",
        coefficients=(0.7, 0.0, 0.0, 0.0),
        level=0.0,
        exposure=1e6,
        parameters=2.0,
        since_us=T0,
    )
    assert describe_season(threshold_with(replace(NONE, season=season, timezone="Europe/Berlin")), "auto") == (
        "hour_of_day since 2026-01-01T00:00:00Z: 0.5 to 2 times the mean rate (hours of Europe/Berlin)"
    )


@pytest.mark.parametrize(
    ("test", "text"),
    [
        (SeasonTest(kind="hour_of_day", cycles=2), "hour_of_day has 2 of 3 days"),
        (SeasonTest(kind="hour_of_week", cycles=3), "hour_of_week after 3 weeks: there are no outliers"),
        (
            SeasonTest(kind="hour_of_day", cycles=9, p_value=0.3, gain=0.0),
            "hour_of_day after 9 days: p 0.3, 0.01 is needed",
        ),
        (
            SeasonTest(kind="hour_of_day", cycles=9, p_value=0.001, gain=0.25),
            "hour_of_day after 9 days: it predicts later days by 0.25 nats, 1 is needed",
        ),
    ],
)
def test_reason_without_an_active_season(test: SeasonTest, text: str) -> None:
    assert describe_season(threshold_with(replace(NONE, tests=(test,))), "auto") == f"none is active (auto): {text}"


def test_other_states() -> None:
    assert describe_season(threshold_with(NONE), "none") is None
    assert describe_season(None, "auto") == "auto: not tested yet, the next threshold tests it"
    assert describe_season(learned_threshold().row, "hour_of_day") is not None
    assert describe_season(threshold_with(NONE), "auto") == "auto: not possible, the windows are too long for it"
