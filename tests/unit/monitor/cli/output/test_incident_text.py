"""Each kind of incident is explained from the numbers stored with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from monitor.cli.output.incident_text import format_incident
from monitor.incidents.lifecycle import Kind
from monitor.incidents.slow_rise_test import MIN_WINDOWS
from storage.queries.incident_report import IncidentReport
from tests.unit.monitor.incidents.test_calibration import TICK, find_problem
from tests.unit.monitor.judged_windows import T0, Stream

HOUR = 3_600_000_000


def format_text(kind: str, numbers: dict[str, Any], summary: str = "a summary") -> str:
    return format_incident(
        IncidentReport(
            id=3,
            stream="payments",
            kind=kind,
            severity="warning",
            status="open",
            window_start_us=T0,
            opened_at_us=T0,
            resolved_at_us=None,
            windows_fired=1,
            summary=summary,
            details={"opened": numbers},
            transitions=[],
            top_outliers=[],
        )
    )


def test_slow_rise_shows_start_and_ratio() -> None:
    stream = Stream()
    rng = np.random.default_rng(1)
    judgements = stream.run([*rng.poisson(5, MIN_WINDOWS).tolist(), *rng.poisson(12, 30).tolist()])
    row = next(row for each in judgements for row in each.incidents if row.kind == Kind.SLOW_RISE)
    text = format_text("slow_rise", dict(row.details["opened"]), row.summary)
    assert "Incident 3: slow rise on payments" in text
    assert "Since about 2026-01-01T01:" in text
    assert "times as frequent as in the busiest clean hour" in text
    assert "once in 40,320 windows" in text


@pytest.mark.parametrize("since_us", [TICK - 6 * HOUR, None])
def test_calibration_shows_both_thresholds_or_the_rate(since_us: int | None) -> None:
    finding = find_problem(since_us=since_us, rate=0.005 if since_us else 0.02)
    assert finding is not None
    text = format_text("calibration", dict(finding.details), finding.summary)
    if since_us is None:
        assert "2.000% are above the threshold" in text
    else:
        assert "is 60. Mapped from the 10000 training energies it is 45, and clean events explain at most 50" in text
    assert "If this is normal now, run `outrider accept`" in text


def format_drift(*drifted: Mapping[str, Any]) -> str:
    horizon = {
        "horizon": "10m",
        "window": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:10:00Z"},
        "events": 9_000,
        "drifted": drifted,
        "n_drifted": len(drifted),
        "statistics": 40,
        "limit": 5.1,
        "alpha": 1e-5,
    }
    return format_text("drift", {"advice": "drift: refit", "horizons": [horizon]})


def drifted_statistic(statistic: str, feature: str | None, **values: Any) -> dict[str, Any]:
    return {"statistic": statistic, "feature": feature, "before": 0.12, "after": 0.35, "effect": 0.7, "z": 9.0} | values


def test_drift_lists_values_before_and_after_in_the_unit_of_the_feature() -> None:
    summary = {"mean": 12.5, "median": 12.0, "low": 5.0, "high": 20.0, "exceeded": []}
    values = {"values_before": summary, "values_after": summary | {"median": 19.0, "mean": 18.0, "exceeded": ["high"]}}
    text = format_drift(
        drifted_statistic("rank", "amount", **values),
        drifted_statistic("spread", "amount", **values),
        drifted_statistic("occupancy", "near amount 20, hour 3"),
        drifted_statistic("pair", "amount * hour"),
    )
    assert "4 of 40 statistics of 9,000 events drifted" in text
    assert (
        "amount: median about 12 before, 19 now; mean about 12.5 before, above 18 now; "
        "90% of the events 5 to 20 before, 5 to above 20 now "
        "(rank +0.70 deviations, z +9.0, spread +0.70 deviations, z +9.0)"
    ) in text
    assert "events near amount 20, hour 3 are 35.0% of all, were 12.0% (occupancy" in text
    assert "the mean product of amount and hour, as deviations from their training means, is 0.35, was 0.12" in text
    assert "Advice: drift: refit." in text


def test_drift_of_older_versions_has_typical_values_and_component_numbers() -> None:
    text = format_drift(
        drifted_statistic("rank", "amount", before_value=12.0, after_value=19.0),
        drifted_statistic("occupancy", "component 3", before_value=None, after_value=None),
    )
    assert "amount: 12 before, 19 now (rank +0.70 deviations, z +9.0)" in text
    assert "events of component 3 are 35.0% of all, were 12.0%" in text


def test_silence_shows_its_duration_and_the_allowed_one() -> None:
    numbers = {"silent_s": 900.0, "allowed_s": 300.0, "usual_s": 300.0, "silence_after": "auto", "at_end": True}
    assert "No event for 900 s; the allowed silence is 300 s." in format_text("silence", numbers)


def test_kind_without_explanation_shows_its_numbers() -> None:
    assert "anything 7" in format_text("another", {"anything": 7})


def strange_event(reasons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an event as it is stored with an incident."""
    place = {"topic": "payments", "partition": 0, "offset": 7, "time": "2026-01-31T08:00:00.000000Z"}
    return {**place, "energy": 853.2, "key": "alice", "id": None, "reasons": reasons}


def reason(feature: str, value: float, contribution: float, **line: Any) -> dict[str, Any]:
    """Return one feature of an event as it is stored with an incident."""
    usual = {"z": 2.0, "cost": 8.0, "expected": 12.5, "low": -15.0, "high": 64.0}
    return {"feature": feature, "value": value, **usual, "contribution": contribution} | line


def test_features_that_move_together_are_on_one_line() -> None:
    together = {"line": 0, "line_contribution": 820.0, "line_share": 0.97, "line_features": 2}
    alone = {"line": 1, "line_contribution": 25.0, "line_share": 0.03, "line_features": 1}
    reasons = [
        reason("delays.dep_min", 853.0, 420.0, **together),
        reason("delays.arr_min", 851.0, 400.0, **together),
        reason("air_time_min", 300.0, 25.0, **alone),
    ]
    text = format_text("other", {"strangest": [strange_event(reasons)], "keys": []})
    assert (
        "delays.dep_min and delays.arr_min: 853, 851; usually -15 to 64 and -15 to 64; 97% of the excess energy"
    ) in text
    assert (
        "air_time_min: 300; usually -15 to 64, 12.5 expected from the other features; 3% of the excess energy"
    ) in text


def test_a_feature_that_departs_from_those_of_its_line_has_its_expected_value() -> None:
    line = {"line": 0, "line_contribution": 820.0, "line_share": 0.97, "line_features": 2}
    reasons = [reason("arrival", 84.0, 9.0, **{**line, "z": 6.6}), reason("departure", 5.0, 5.0, **line)]
    text = format_text("other", {"strangest": [strange_event(reasons)], "keys": []})
    assert "usually -15 to 64 and -15 to 64, 12.5 expected for arrival from the other features; 97%" in text


def test_an_expected_value_far_outside_of_the_usual_range_is_not_shown() -> None:
    line = {"line": 0, "line_contribution": 9.0, "line_share": 0.02, "line_features": 1}
    event = strange_event([reason("age", 0.5, 9.0, **{**line, "expected": -3446.8})])
    text = format_text("other", {"strangest": [event], "keys": []})
    assert "age: 0.5; usually -15 to 64; 2% of the excess energy" in text


def test_a_negative_contribution_makes_the_event_likelier() -> None:
    line = {"line": 0, "line_contribution": -40.0, "line_share": -0.05, "line_features": 7}
    text = format_text("other", {"strangest": [strange_event([reason("amount", 3.0, -40.0, **line)])], "keys": []})
    assert "amount and 6 more: 3; usually -15 to 64; makes the event likelier by 5% of the excess energy" in text


def test_a_contribution_that_is_not_finite_is_said() -> None:
    line = {"line": 0, "line_contribution": None, "line_share": None, "line_features": 1}
    text = format_text("other", {"strangest": [strange_event([reason("amount", 1e300, 1.0, **line)])], "keys": []})
    assert "no finite contribution" in text


def test_events_of_older_versions_have_costs() -> None:
    old = {"feature": "amount", "value": 99.5, "z": 9.0, "cost": 17.5, "expected": 12.5, "low": 10.0, "high": 15.0}
    text = format_text("other", {"strangest": [strange_event([old])], "keys": []})
    assert "amount 99.5 where 12.5 is expected (10 to 15): 17.5 nats of the energy" in text
