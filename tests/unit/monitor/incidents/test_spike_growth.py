"""A burst inside an open spike incident is told once per doubling, and other open incidents hide no spike."""

from dataclasses import replace

import pytest

from monitor.control_plane.judge import judge_window
from monitor.incidents.lifecycle import Kind
from storage.control.records import Incident
from tests.unit.monitor.judged_windows import EVENTS, RULES, T0, Stream, learned_threshold


def told(stream: Stream) -> list[tuple[int, str]]:
    return [(window, transition) for window, kind, transition in stream.transitions if kind == Kind.SPIKE]


def burst_stream(*counts: int) -> Stream:
    """Return a stream after windows with 5 outliers, a critical spike of 100, and these counts."""
    stream = Stream()
    stream.run([5, 5, 100, *counts])
    return stream


def test_burst_inside_an_open_incident_sends_a_message() -> None:
    stream = burst_stream(90, 60, 400)
    assert told(stream) == [(2, "opened"), (5, "escalated")]
    (incident,) = stream.open_incidents.values()
    assert incident.summary.startswith(
        "the rate of outliers has doubled since 2026-01-01T00:02:00Z: 400 of 1,000 events"
    )
    growth = incident.details["escalated"]["growth"]
    assert growth["told_rate"] == pytest.approx(0.1)
    assert (growth["rate_before"], growth["events_before"]) == (pytest.approx(0.25 / 3), 3 * EVENTS)
    assert (incident.severity, incident.last_told_us) == ("critical", T0 + 6 * RULES.size_us)


def test_each_doubling_is_told_once() -> None:
    stream = burst_stream(150, 250, 260, 400, 550, 600, 300)
    assert told(stream) == [(2, "opened"), (4, "escalated"), (7, "escalated")]


def test_same_rate_after_quiet_windows_is_no_growth() -> None:
    stream = burst_stream(5, 5, 110, 5, 5, 120)
    assert told(stream) == [(2, "opened")]


def test_few_outliers_more_in_a_small_window_are_chance() -> None:
    stream = burst_stream(40)
    stream.judge(7, events=30)
    assert told(stream) == [(2, "opened")]


def test_resolved_incident_leaves_no_level() -> None:
    stream = burst_stream(5, 5, 5)
    assert stream.state["spike"] is None
    stream.run([100, 300])
    assert told(stream) == [(2, "opened"), (5, "resolved"), (6, "opened"), (7, "escalated")]


def test_open_incident_of_a_former_version_gets_its_level_with_the_next_window() -> None:
    stream = burst_stream()
    del stream.state["spike"]
    stream.run([90, 400])
    assert told(stream) == [(2, "opened"), (4, "escalated")]


@pytest.mark.parametrize("kind", [Kind.DRIFT, Kind.SLOW_RISE, Kind.CALIBRATION, Kind.DEAD_LETTERS])
def test_other_open_incidents_hide_no_spike(kind: Kind) -> None:
    stream = Stream()
    stream.run([5, 5])
    other = Incident(
        id=90,
        kind=kind.value,
        severity="warning",
        window_start_us=T0,
        opened_at_us=T0,
        last_told_us=T0,
        clean_windows=0,
        windows_fired=1,
        summary="-",
        details={},
    )
    facts = replace(stream.facts(100), open_incidents=[other])
    opened = judge_window(facts, lambda _: learned_threshold(), RULES, T0).incidents
    (spike,) = [row for row in opened if row.kind == Kind.SPIKE]
    assert (spike.id, spike.transition is not None and spike.transition.type) == (None, "opened")


def test_dispersion_of_the_stream_bounds_the_growth_that_is_told() -> None:
    """With 40 times the variance of independent outliers, a doubled rate is within the usual variation."""
    loud = learned_threshold()
    loud = replace(loud, count_model=replace(loud.count_model, dispersion=40.0))
    grown = []
    for threshold in (learned_threshold(), loud):
        stream = Stream(threshold=threshold)
        stream.run([5, 5, 300, 300, 620])
        (incident,) = stream.open_incidents.values()
        grown.append("growth" in incident.details.get("escalated", {}))
    assert grown == [True, False]
