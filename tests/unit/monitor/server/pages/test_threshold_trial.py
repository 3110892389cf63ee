import pytest

from config.time_format import HOUR_US, WEEK_US
from config.units import parse_rate
from monitor.backtest import Outcome
from monitor.server.pages.stream_view import StreamView
from monitor.server.pages.threshold_trial import build_request, describe_cell
from monitor.server.trials import Trial, TrialCell, TrialIncident
from monitor.statistics.poisson import poisson_interval
from storage.queries.rollups import IncidentMark
from storage.queries.stream_series import StreamExtent

EXTENT = StreamExtent(stream_id=1, window_us=1, first_us=0, last_us=WEEK_US, last_tick_us=7, revision=3)
OWN = (99.5, parse_rate("1/week"))
TRIAL = Trial(begin_us=0, end_us=WEEK_US)


def outcome(percentile=99.5, false_alarms="1/week"):
    return Outcome(
        percentile=percentile,
        false_alarms=false_alarms,
        windows=100,
        events=1_000,
        outliers=5,
        incidents={"spike": 2},
        alerts_per_day=2 / 7,
        promised_per_week=1.0,
        realised_per_week=2.0,
    )


def mark(id_, verdict, start_us, end_us, kind="spike"):
    return IncidentMark(
        id=id_,
        stream_id=1,
        kind=kind,
        severity="critical",
        status="resolved",
        verdict=verdict,
        start_us=start_us,
        end_us=end_us,
    )


def incident(start_us, end_us, kind="spike"):
    return TrialIncident(kind=kind, start_us=start_us, end_us=end_us)


def test_verdicts_split_the_incidents_of_a_cell_and_name_the_true_ones_it_misses():
    marks = [
        mark(1, "confirmed", 10 * HOUR_US, 11 * HOUR_US),
        mark(2, "confirmed", 20 * HOUR_US, 21 * HOUR_US),
        mark(3, "false_alarm", 30 * HOUR_US, 31 * HOUR_US),
        mark(4, None, 40 * HOUR_US, 41 * HOUR_US),
        mark(5, "confirmed", 50 * HOUR_US, None, kind="drift"),
    ]
    found = [incident(10 * HOUR_US, 10 * HOUR_US + 1), incident(30 * HOUR_US, 32 * HOUR_US)]
    cell = describe_cell(TrialCell(outcome=outcome(), incidents=found), marks, TRIAL, OWN, "s")
    assert (cell.found, cell.missed, cell.false, cell.incidents) == (1, 2, 1, 2)
    assert "2 true alarms missed, 1 known false alarm" in cell.says
    assert cell.is_in_force


def test_the_interval_is_that_of_a_count_in_the_time():
    cell = describe_cell(TrialCell(outcome=outcome(), incidents=[incident(1, 2)] * 2), [], TRIAL, OWN, "s")
    assert (cell.realised_low, cell.realised_high) == pytest.approx(poisson_interval(2))
    assert "no incident of this time has a verdict yet" in cell.says


def test_the_settings_of_a_cell_are_yaml_that_a_configuration_takes():
    yaml = pytest.importorskip("yaml")
    cell = describe_cell(TrialCell(outcome=outcome(99.9, "1/day"), incidents=[]), [], TRIAL, OWN, "s")
    assert yaml.safe_load(cell.yaml) == {
        "streams": {"s": {"threshold": {"percentile": 99.9}, "alerts": {"false_alarms": "1/day"}}}
    }
    assert not cell.is_in_force


def test_the_own_percentile_and_budget_are_always_tried_and_equal_budgets_once():
    view = StreamView(stream="s", range="1h", percentile=97.5)
    own = (99.2, parse_rate("7/week"))
    tried = build_request(own, EXTENT, view, grid=False)
    assert tried.percentiles == (97.5, 98.0, 99.0, 99.2, 99.3, 99.5, 99.7, 99.9)
    assert (tried.false_alarms, tried.since, tried.basis) == (("7/week",), "24h", (7, 3))
    grid = build_request(own, EXTENT, view, grid=True)
    assert grid.false_alarms == ("1/day", "1/week", "1/month")
    assert 97.5 not in grid.percentiles
