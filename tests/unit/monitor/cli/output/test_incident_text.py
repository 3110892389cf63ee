"""Each kind of incident is explained from the numbers stored with it."""

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


def test_drift_lists_statistics_with_values_before_and_after() -> None:
    statistic = {"statistic": "rank", "feature": "amount", "before": 0.5, "after": 0.7, "before_value": 12.0}
    horizon = {
        "horizon": "10m",
        "window": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:10:00Z"},
        "events": 9_000,
        "drifted": [statistic | {"after_value": 19.0, "effect": 0.7, "z": 9.0}],
        "n_drifted": 1,
        "statistics": 40,
        "limit": 5.1,
        "alpha": 1e-5,
    }
    text = format_text("drift", {"advice": "drift: refit", "horizons": [horizon]})
    assert "1 of 40 statistics of 9,000 events drifted" in text
    assert "amount rank: 12 before, 19 now (+0.70 deviations, z +9.0)" in text
    assert "Advice: drift: refit." in text


def test_silence_shows_its_duration_and_the_allowed_one() -> None:
    numbers = {"silent_s": 900.0, "allowed_s": 300.0, "usual_s": 300.0, "silence_after": "auto", "at_end": True}
    assert "No event for 900 s; the allowed silence is 300 s." in format_text("silence", numbers)


def test_kind_without_explanation_shows_its_numbers() -> None:
    assert "anything 7" in format_text("another", {"anything": 7})
