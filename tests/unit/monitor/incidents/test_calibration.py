"""Calibration incidents: a lasting disagreement, and a rate that does not fit the threshold."""

from typing import Any

import numpy as np
import pytest

from monitor.incidents.calibration import find_calibration_problem
from monitor.incidents.lifecycle import Finding
from monitor.thresholds.percentile import ThresholdEstimate
from monitor.thresholds.tick import count_disagreements, find_disagreement_start
from storage.control.thresholds import ThresholdRow
from tests.rules import make_rules

HOUR = 3_600_000_000
RULES = make_rules(percentile=99.5, look_back_us=24 * HOUR, adopt_after_us=24 * HOUR, size_us=60_000_000, per_week=1.0)
TICK = 1_767_225_600_000_000


def find_problem(
    *,
    method: str = "anchored",
    since_us: int | None = None,
    rate: float = 0.005,
    windows: int = 1440,
    disagreements: int | None = 3,
) -> Finding | None:
    estimate: dict[str, Any] = {"t_plain": 60.0, "t_high": 50.0, "t_anchored": 45.0, "eps": 0.02, "reference_n": 10_000}
    count_model = {"rate": rate, "calibration_n": 1_000_000, "dispersion": 2.0, "windows": windows, "state": "learned"}
    row = ThresholdRow(
        model_id=1,
        computed_at_us=TICK,
        valid_from_us=TICK,
        percentile=99.5,
        threshold=45.0,
        lower=44.0,
        upper=46.0,
        n=10_000,
        method=method,
        details={"limit": estimate, "law": count_model, "disagrees_since_us": since_us}
        | ({} if disagreements is None else {"disagreements": disagreements}),
    )
    return find_calibration_problem(row, RULES, TICK, model_version=3)


def test_disagreement_for_a_quarter_of_the_look_back_is_a_finding() -> None:
    finding = find_problem(since_us=TICK - 6 * HOUR)
    assert finding is not None
    assert (finding.details["reason"], finding.details["t_plain"], finding.details["t_anchored"]) == (
        "disagreement",
        60.0,
        45.0,
    )
    assert (finding.details["eps"], finding.details["n"], finding.details["model_version"]) == (0.02, 10_000, 3)
    assert "about 2.00% outliers, or a heavier tail" in finding.summary


def test_short_or_past_disagreement_is_no_finding() -> None:
    assert find_problem(since_us=TICK - 6 * HOUR + 1) is None
    assert find_problem(since_us=None) is None
    assert find_problem(method="plain", since_us=TICK - 6 * HOUR) is None


@pytest.mark.parametrize("rate", [0.005 * 3.5, 0.005 / 3.5])
def test_rate_outside_a_third_to_three_times_is_a_finding(rate: float) -> None:
    finding = find_problem(rate=rate)
    assert finding is not None
    assert finding.details["reason"] == "rate"
    assert finding.details["rate_lower"] < rate < finding.details["rate_upper"]


def test_rate_within_the_range_or_of_few_windows_is_no_finding() -> None:
    assert find_problem(rate=0.012) is None
    assert find_problem(rate=0.002) is None
    assert find_problem(rate=0.005 * 3.5, windows=299) is None


def test_ties_at_the_percentile_are_no_finding() -> None:
    assert find_problem(method="plain", rate=0.0005) is None


@pytest.mark.parametrize(("ticks", "found"), [(2, False), (3, True), (None, True)])
def test_disagreement_needs_several_ticks(ticks: int | None, found: bool) -> None:
    assert (find_problem(since_us=TICK - 6 * HOUR, disagreements=ticks) is not None) == found


def test_disagreements_are_counted_by_tick() -> None:
    n = 0
    for method, held, expected in [
        ("anchored", False, 1),
        ("anchored", False, 2),
        ("anchored", True, 2),
        ("pooled", False, 0),
    ]:
        n = count_disagreements(n, estimate(method, **({"held": "few events"} if held else {})))
        assert n == expected


def estimate(method: str, **details: Any) -> ThresholdEstimate:
    return ThresholdEstimate(value=1.0, lower=0.0, upper=2.0, n=9, method=method, percentile=99.5, details=details)


def test_disagreement_counts_from_the_first_tick_of_an_unbroken_run() -> None:
    since = None
    for tick, method in enumerate(["plain", "anchored", "anchored", "plain", "anchored", "anchored"]):
        since = find_disagreement_start(since, estimate(method), tick)
        assert since == [None, 1, 1, None, 4, 4][tick]


def test_held_threshold_neither_starts_nor_ends_a_disagreement() -> None:
    assert find_disagreement_start(3, estimate("plain", held="few events"), 9) == 3
    assert find_disagreement_start(None, estimate("anchored", held="few events"), 9) is None


def test_details_are_finite() -> None:
    finding = find_problem(since_us=TICK - 6 * HOUR)
    assert finding is not None
    assert np.isfinite([value for value in finding.details.values() if isinstance(value, float)]).all()
