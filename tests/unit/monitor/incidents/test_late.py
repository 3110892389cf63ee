"""The incident `late`: the share of late events among the arrivals of a window, and its probable cause."""

from dataclasses import replace

import pytest

from monitor.control_plane.judge import judge_window
from monitor.incidents.late import find_late
from monitor.incidents.lifecycle import Finding, Severity
from monitor.statistics.part import Part
from monitor.statistics.part_codec import decode_part, encode_part
from storage.control.records import StoredPart, WindowFacts
from tests.unit.monitor.judged_windows import RULES, Stream, learned_threshold


def facts_with(late: int, *, mean_s: int = 30, max_s: int = 300, events: int = 100) -> WindowFacts:
    facts = Stream().facts(0, events)
    counted = StoredPart(
        threshold_id=7,
        events=0,
        outliers=0,
        late=late,
        dead=0,
        payload=encode_part(Part.without_events(late=late)),
        late_sum_s=late * mean_s,
        late_max_s=max_s,
    )
    return replace(facts, parts=[*facts.parts, counted])


def find(facts: WindowFacts, **rules: float) -> Finding | None:
    part = replace(decode_part(facts.parts[0].payload), late=facts.parts[1].late)
    return find_late(facts, part, replace(RULES, **{"max_late_ratio": 0.05, **rules}))  # type: ignore[arg-type]


def test_a_share_up_to_the_limit_is_no_finding() -> None:
    assert find(facts_with(6), max_late_ratio=6 / 106) is None
    assert find(facts_with(7), max_late_ratio=6 / 106) is None, "7 of 107 are no significant excess"
    assert find(facts_with(16), max_late_ratio=6 / 106) is not None


def test_fewer_late_events_than_min_outliers_are_no_finding() -> None:
    assert find(facts_with(4, events=1)) is None


@pytest.mark.parametrize(
    ("late", "mean_s", "max_s", "cause"),
    [
        (200, 3_000, 3_020, "clocks that are ahead have moved it"),
        (20, 3_600, 3_640, "one clock or time zone is wrong"),
        (20, 30, 300, "a window.grace longer than the 10 s of now"),
    ],
)
def test_the_summary_names_share_lateness_and_probable_cause(late: int, mean_s: int, max_s: int, cause: str) -> None:
    finding = find(facts_with(late, mean_s=mean_s, max_s=max_s))
    assert finding is not None
    assert cause in finding.summary
    assert f"{late} of {late + 100} events" in finding.summary
    assert finding.details["mean_lag_s"] == mean_s
    assert finding.severity is (Severity.CRITICAL if late > 100 else Severity.WARNING)


def test_a_window_opens_the_incident_and_clean_windows_resolve_it() -> None:
    stream = Stream()
    rules = replace(RULES, max_late_ratio=0.05)
    judgement = judge_window(facts_with(50), lambda _: learned_threshold(), rules, now_us=0)
    opened = [row for row in judgement.incidents if row.kind == "late"]
    assert [row.transition.type for row in opened if row.transition] == ["opened"]
    stream.open_incidents = {1: opened[0].with_id(1)}
    for _ in range(rules.resolve_after):
        stream.window += 1
        judgement = judge_window(stream.facts(0), lambda _: learned_threshold(), rules, now_us=0)
        [row] = [row for row in judgement.incidents if row.kind == "late"]
        stream.open_incidents[1] = row.with_id(1)
    assert row.status == "resolved"
