"""The magnitude test: one event that opens a spike by itself, early and at the judgement, within the spikes' budget."""

from dataclasses import replace

import numpy as np
import pytest

from monitor.incidents.key_energies import EnergiesUnderTest
from monitor.incidents.magnitude import describe_least_energy, judge_magnitude
from monitor.incidents.spike import false_alarm_probability, judge_spike
from monitor.incidents.window import ThresholdInForce
from monitor.statistics.part import summarise
from monitor.statistics.part_codec import encode_part
from monitor.thresholds.tail_law import fit_tail_law
from monitor.thresholds.tail_sample import sample_reference
from storage.control.records import WindowFacts
from tests.unit.monitor.judged_windows import EVENTS, MINUTE, RULES, SCALE, Stream, learned_threshold

ALPHA = false_alarm_probability(RULES.per_week, MINUTE)
REFERENCE = np.sort(np.random.default_rng(1).gamma(4, 2, 20_000).astype(np.float32))


def threshold(usual_events: int | None = EVENTS, n: int = 20_000) -> ThresholdInForce:
    """Return a threshold of 24 nats with the tail law of a gamma distribution, median 7.3."""
    law = fit_tail_law(sample_reference(REFERENCE[:n]), dispersion=1.0)
    in_force = learned_threshold()
    return replace(in_force, row=replace(in_force.row, threshold=24.0), tail=law, usual_events=usual_events)


class OneEventStream(Stream):
    """A stream whose windows have one large energy besides the usual ones."""

    largest = 8.0

    def facts(self, outliers: int, events: int = EVENTS) -> WindowFacts:
        known = super().facts(0, events)
        energies = np.full(events, 8.0, np.float32)
        energies[: max(outliers, 1)] = self.largest
        part = summarise(energies, energies > 24, SCALE)
        stored = replace(known.parts[0], outliers=part.outliers, payload=encode_part(part))
        return replace(known, parts=[stored])


def stream(largest: float) -> OneEventStream:
    found = OneEventStream(threshold=threshold())
    found.largest = largest
    return found


def test_one_certain_event_is_a_spike_without_any_minimum() -> None:
    assert RULES.min_outliers == 5
    judgement = stream(300.0).judge(1)
    (incident,) = judgement.incidents
    assert (incident.kind, judgement.window.details) == (
        "spike",
        {"fired": "spike", "limit": judgement.incidents[0].details["opened"]["outliers_limit"], "test": "magnitude"},
    )
    details = incident.details["opened"]
    assert details["test"] == "magnitude"
    assert details["p_value"] > 0.5, "the p-value of the window stays that of the count"
    assert details["magnitude"]["energy"] == 300.0
    assert 24 < details["magnitude"]["limit"] < 300
    assert details["magnitude"]["p_value"] <= details["magnitude"]["alpha"] / EVENTS
    assert "an event with an energy of 300 nats in the window" in incident.summary


def test_usual_outliers_are_no_spike() -> None:
    assert stream(26.0).judge(1).incidents == []


def test_the_event_opens_the_incident_before_the_end_of_the_window() -> None:
    found = stream(300.0)
    (opened,) = found.judge_early(1, events=10)
    assert (opened.kind, opened.status) == ("spike", "open")
    assert "of the open window" in opened.summary
    found.judge(1)
    assert [each[2] for each in found.transitions] == ["opened", "opened"], "confirmed by the full window"
    assert len(found.open_incidents) == 1


def test_an_incident_of_a_much_fuller_window_is_withdrawn() -> None:
    law = threshold()
    assert law.tail is not None
    found = stream(law.tail.energy_at(ALPHA / (20 * EVENTS)))
    assert found.judge_early(1, events=10)
    found.judge(1, events=100 * EVENTS)
    assert not found.open_incidents


def test_both_tests_spend_no_more_than_the_budget() -> None:
    in_force = threshold()
    tests = judge_spike(in_force, EVENTS, 0, EnergiesUnderTest(others=90.0), RULES)
    assert tests.magnitude is not None
    assert tests.count.attainable + tests.magnitude.alpha == pytest.approx(ALPHA)
    assert tests.magnitude.alpha > 0


def test_a_short_window_is_tested_as_a_usual_one() -> None:
    in_force = threshold()
    few, usual, many = (judge_magnitude(in_force, n, 90.0, RULES, attainable=0.0) for n in (3, EVENTS, 7 * EVENTS))
    assert few is not None
    assert usual is not None
    assert many is not None
    assert (few.events, usual.events, many.events) == (EVENTS, EVENTS, 7 * EVENTS)
    assert few.limit == usual.limit < many.limit


def test_an_event_below_the_threshold_never_fires() -> None:
    in_force = threshold()
    high = replace(in_force, row=replace(in_force.row, threshold=500.0))
    verdict = judge_magnitude(high, EVENTS, 400.0, RULES, attainable=0.0)
    assert verdict is not None
    assert (verdict.fires, verdict.limit) == (False, 500.0)


def test_rows_without_a_law_have_no_verdict() -> None:
    assert judge_spike(learned_threshold(), EVENTS, 0, EnergiesUnderTest(others=1e9), RULES).magnitude is None
    assert judge_spike(threshold(n=499), EVENTS, 0, EnergiesUnderTest(others=1e9), RULES).magnitude is None
    assert judge_spike(threshold(), 0, 0, EnergiesUnderTest(others=None), RULES).magnitude is None


def test_the_least_energy_is_told() -> None:
    assert describe_least_energy(31.25) == "a single event opens an incident from 31.25 nats on; nothing below can"
    assert "500 energies" in describe_least_energy(None)
    assert "too heavy" in describe_least_energy(float("inf"))
