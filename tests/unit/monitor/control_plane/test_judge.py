"""Judging a window: its row, incidents, transitions and channels, all of which can be stored."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from config.stream_rules import StreamRules
from config.time_format import format_utc
from monitor.control_plane.judge import judge_window
from monitor.incidents.window import ThresholdInForce
from monitor.statistics.part import Part, Scale, summarise
from monitor.statistics.part_codec import encode_part
from monitor.thresholds.tick import build_first_threshold, load_count_model, load_scale
from storage.control.models import Activation
from storage.control.records import Judgement, StoredGap, StoredPart, WindowFacts
from storage.control.thresholds import ThresholdRow
from tests.rules import make_rules

MINUTE = 60_000_000
T0 = 1_767_225_600_000_000
HOUR = 60 * MINUTE
REFERENCE = np.sort(np.random.default_rng(0).gamma(4, 2, 4000)).astype(np.float32)
RULES = make_rules(
    config_hash="hash",
    size_us=MINUTE,
    per_week=1.0,
    min_outliers=5,
    min_ratio=0.0,
    max_dead_letter_ratio=0.05,
    resolve_after=3,
    repeat_interval_us=4 * HOUR,
    channels=lambda kind, severity: ["ops", "log", severity],
    max_age_us=HOUR,
)


def load_threshold(threshold_id: int) -> ThresholdInForce:
    new = build_first_threshold(REFERENCE, 1, Activation(valid_from_us=0, computed_at_us=0), 99.0)
    details: Any = json.loads(json.dumps(new.details))
    row = ThresholdRow(
        id=threshold_id,
        model_id=1,
        computed_at_us=0,
        valid_from_us=0,
        percentile=new.percentile,
        threshold=new.threshold,
        lower=new.lower,
        upper=new.upper,
        n=new.n,
        method=new.method,
        details=details,
    )
    return ThresholdInForce.from_row(row, model_version=2)


def part(events: int = 100, outliers: int = 0, *, late: int = 0, dead: int = 0, outlier_energy: float = 90.0) -> Part:
    energies = np.full(events, 8.0, np.float32)
    energies[:outliers] = outlier_energy
    part = summarise(energies, energies > 25, Scale.from_energies(REFERENCE)) if events else Part.without_events()
    return replace(part, late=late, dead=dead)


def facts(*parts: Part, window: int = 0, last: int | None = None, **known: Any) -> WindowFacts:
    return WindowFacts(
        window_start_us=T0 + window * MINUTE,
        window_end_us=T0 + (window + 1) * MINUTE,
        parts=[
            StoredPart(
                threshold_id=7,
                events=each.events,
                outliers=each.outliers,
                late=each.late,
                dead=each.dead,
                payload=encode_part(each),
            )
            for each in parts
        ],
        last_judged_end_us=None if last is None else T0 + last * MINUTE,
        open_incidents=known.get("open_incidents", []),
        gaps=known.get("gaps", []),
    )


def judged(window_facts: WindowFacts, rules: StreamRules = RULES, now_us: int = T0) -> Judgement:
    return judge_window(window_facts, load_threshold, rules, now_us)


def transitions_of(result: Judgement) -> list[tuple[str, str]]:
    return [(row.kind, row.transition.type) for row in result.incidents if row.transition]


def test_a_clean_window_row_has_its_energies_and_the_expected_outliers() -> None:
    row = judged(facts(part(60), part(40))).window
    assert (row.events, row.outliers, row.judged, row.threshold_id, row.details) == (100, 0, True, 7, None)
    assert row.energy_max == 8.0
    assert row.energy_p50 == pytest.approx(8.0, abs=0.1)
    assert row.expected == pytest.approx(1.0, rel=0.2)
    assert row.p_value == 1.0


def test_a_window_of_late_events_alone_is_stored_without_a_judgement() -> None:
    result = judged(facts(part(0, late=9)))
    assert (result.window.late, result.window.judged, result.window.payload, result.incidents) == (9, False, None, ())


def test_many_outliers_open_a_spike_with_all_numbers_of_the_decision() -> None:
    result = judged(facts(part(100, 30)))
    assert transitions_of(result) == [("spike", "opened")]
    details = json.loads(json.dumps(result.incidents[0].details))["opened"]
    assert (details["outliers"], details["events"], details["config_hash"]) == (30, 100, "hash")
    assert details["threshold"]["method"] == "reference"
    assert details["largest_energies"] == [90.0] * 10
    assert details["law"]["windows"] == 0
    assert result.window.details == {"fired": "spike", "limit": details["outliers_limit"]}
    assert result.incidents[0].severity == "critical"


def test_outliers_below_the_minimum_open_no_incident() -> None:
    # Energies of 30 nats are outliers, but no single one of them is significant.
    outliers = facts(part(100, 30, outlier_energy=30.0))
    assert transitions_of(judged(outliers)) == [("spike", "opened")]
    assert judged(outliers, replace(RULES, min_outliers=31)).incidents == []
    assert judged(outliers, replace(RULES, min_ratio=0.31)).incidents == []


def test_too_many_dead_letters_open_a_dead_letter_incident() -> None:
    result = judged(facts(part(88, dead=12)))
    assert transitions_of(result) == [("dead_letters", "opened")]
    assert result.incidents[0].severity == "warning"
    assert judged(facts(part(95, dead=5))).incidents == []
    assert judged(facts(part(0, dead=6))).incidents[0].severity == "critical"


def test_a_window_of_dead_letters_alone_is_judged_without_a_p_value() -> None:
    row = judged(facts(part(0, dead=6))).window
    assert (row.judged, row.p_value, row.energy_max) == (True, None, None)


def test_gaps_belong_to_one_critical_incident() -> None:
    gaps = [
        StoredGap(id=4, topic="t", partition=0, from_offset=10, to_offset=60, reason="retention"),
        StoredGap(id=9, topic="t", partition=1, from_offset=5, to_offset=6, reason="retention"),
    ]
    result = judged(facts(part(10), gaps=gaps))
    assert transitions_of(result) == [("gap", "opened")]
    assert result.gap_ids == [4, 9]
    assert result.incidents[0].summary.startswith("51 offsets could not be read")


def test_a_continued_spike_updates_its_row_without_a_transition() -> None:
    first = judged(facts(part(100, 30))).incidents[0]
    result = judged(facts(part(100, 30), window=1, last=1, open_incidents=[first.with_id(1)]))
    assert transitions_of(result) == []
    assert [(row.id, row.windows_fired, row.clean_windows) for row in result.incidents] == [(1, 2, 0)]


def test_a_spike_after_enough_quiet_windows_resolves_one_incident_and_opens_another() -> None:
    first = judged(facts(part(100, 30))).incidents[0]
    result = judged(facts(part(100, 30), window=9, last=1, open_incidents=[first.with_id(1)]))
    assert transitions_of(result) == [("spike", "resolved"), ("spike", "opened")]
    resolved, opened = result.incidents
    assert (resolved.id, resolved.status, resolved.resolved_at_us) == (1, "resolved", T0 + 4 * MINUTE)
    assert (opened.id, opened.status, opened.window_start_us) == (None, "open", T0 + 9 * MINUTE)
    assert set(resolved.details) == {"opened", "resolved"}


def test_quiet_and_clean_windows_together_resolve_an_incident() -> None:
    first = judged(facts(part(100, 30))).incidents[0]
    result = judged(facts(part(100), window=3, last=1, open_incidents=[first.with_id(1)]))
    assert transitions_of(result) == [("spike", "resolved")]
    assert result.incidents[0].resolved_at_us == T0 + 4 * MINUTE


def test_the_log_is_the_first_channel_and_each_channel_is_listed_once() -> None:
    transition = judged(facts(part(100, 30))).incidents[0].transition
    assert transition is not None
    assert transition.channels == ["log", "ops", "critical"]
    assert transition.skipped_channels == []


@pytest.mark.parametrize(("age_us", "skipped"), [(HOUR, []), (HOUR + 1, ["ops", "critical"])])
def test_an_old_incident_is_sent_to_the_log_alone(age_us: int, skipped: list[str]) -> None:
    transition = judged(facts(part(100, 30)), now_us=T0 + MINUTE + age_us).incidents[0].transition
    assert transition is not None
    assert transition.skipped_channels == skipped


def test_the_clock_affects_the_transition_alone() -> None:
    one, other = judged(facts(part(100, 30)), now_us=0), judged(facts(part(100, 30)), now_us=2**60)
    assert one.window == other.window
    assert replace(one.incidents[0], transition=None) == replace(other.incidents[0], transition=None)


def test_times_are_formatted_in_utc() -> None:
    assert format_utc(T0) == "2026-01-01T00:00:00Z"
    assert format_utc(T0 + 1) == "2026-01-01T00:00:00.000001Z"


def test_the_first_threshold_is_the_percentile_of_the_reference_energies() -> None:
    new = build_first_threshold(REFERENCE, 3, Activation(valid_from_us=5, computed_at_us=4), 99.0)
    assert (new.model_id, new.valid_from_us, new.computed_at_us, new.n) == (3, 5, 4, len(REFERENCE))
    assert np.count_nonzero(new.threshold < REFERENCE) == pytest.approx(40, abs=1)
    assert new.lower < new.threshold < new.upper
    assert load_count_model(new.details).rate == pytest.approx(0.01, abs=0.001)
    assert load_scale(new.details) == Scale.from_energies(REFERENCE)
