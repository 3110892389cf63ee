"""Late events have no influence on any judgement but the incident `late`."""

from collections.abc import Sequence

import numpy as np
import pytest

from monitor.control_plane.judge import judge_window
from monitor.incidents.window import ThresholdInForce
from monitor.statistics.part import Part, Scale, summarise
from monitor.statistics.part_codec import encode_part
from storage.control.records import Judgement, StoredPart, WindowFacts
from storage.control.thresholds import ThresholdRow
from tests.rules import make_rules

SCALE = Scale(median=0.0, iqr=1.0)
RULES = make_rules(
    config_hash="hash",
    size_us=10_000_000,
    per_week=1.0,
    min_outliers=5,
    min_ratio=0.0,
    max_dead_letter_ratio=0.5,
    max_late_ratio=1.0,
    resolve_after=3,
    repeat_interval_us=3_600_000_000,
    channels=lambda kind, severity: ["log"],
    max_age_us=3_600_000_000,
)


def load_threshold(threshold_id: int) -> ThresholdInForce:
    count_model = {"rate": 0.01, "calibration_n": 10_000, "dispersion": 1.0, "windows": 100, "state": "learned"}
    row = ThresholdRow(
        id=threshold_id,
        model_id=1,
        computed_at_us=0,
        valid_from_us=0,
        percentile=99.0,
        threshold=3.0,
        lower=2.9,
        upper=3.1,
        n=10_000,
        method="percentile",
        details={"law": count_model, "scale": {"median": SCALE.median, "iqr": SCALE.iqr}, "limit": {}},
    )
    return ThresholdInForce.from_row(row, model_version=1)


def judged(parts: Sequence[Part]) -> Judgement:
    stored = [
        StoredPart(
            threshold_id=1,
            events=part.events,
            outliers=part.outliers,
            late=part.late,
            dead=part.dead,
            payload=encode_part(part),
        )
        for part in parts
    ]
    facts = WindowFacts(
        window_start_us=0,
        window_end_us=RULES.size_us,
        parts=stored,
        last_judged_end_us=None,
        open_incidents=[],
        gaps=[],
    )
    return judge_window(facts, load_threshold, RULES, now_us=0)


def events_of(n: int, outliers: int) -> Part:
    energies = np.linspace(-1, 1, n, dtype=np.float32)
    energies[:outliers] = 10.0
    return summarise(energies, energies > 3.0, SCALE)


@pytest.mark.parametrize(
    "part",
    [events_of(100, 0), events_of(100, 40), Part.without_events(dead=60), events_of(10, 0)],
    ids=["clean", "a spike", "unreadable", "few events"],
)
def test_the_judgement_does_not_depend_on_late_events(part: Part) -> None:
    unreadable = Part.without_events(dead=12)
    before = judged([part, unreadable, Part.without_events(late=70)])
    after = judged([part, unreadable])
    assert before.window.late == 70
    assert before.incidents == after.incidents
    assert before.window.payload == after.window.payload
    assert before.window.details == after.window.details
