"""Slow rises in a stream: the windows that count, opening and resolving, and the stored state."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.monitor.judged_windows import MINUTE, RULES, T0, Stream, learned_threshold, threshold_of_model

CLEAN = np.random.default_rng(3).poisson(5, 200).tolist()
RAISED = [9, 11, 10, 8, 12, 9, 11, 10, 10, 9, 12, 11, 10, 9, 10, 11, 10, 12, 9, 10]


def test_clean_stream_has_no_slow_rise() -> None:
    stream = Stream()
    stream.run(CLEAN)
    assert stream.transitions == []


def test_doubled_rate_opens_a_slow_rise_with_its_onset() -> None:
    stream = Stream()
    judgements = stream.run(CLEAN[:50] + RAISED)
    opened = next(row for each in judgements for row in each.incidents if row.kind == "slow_rise")
    assert [transition[1:] for transition in stream.transitions] == [("slow_rise", "opened")]
    details = opened.details["opened"]
    onset = T0 + 50 * MINUTE
    assert abs(int(np.datetime64(details["since"][:19], "us").astype(np.int64)) - onset) <= 5 * MINUTE
    assert details["ratio"] == pytest.approx(2, abs=0.4)
    assert details["windows"] == pytest.approx(stream.transitions[0][0] - 50, abs=6)
    assert "more outliers than usual since about 2026-01-01T00:" in opened.summary


def test_windows_of_a_rise_are_marked_as_fired() -> None:
    stream = Stream()
    judgements = stream.run(CLEAN[:50] + RAISED)
    fired = [each.window.details for each in judgements if each.window.details is not None]
    assert {each["fired"] for each in fired} == {"slow_rise"}
    assert {each["since_us"] for each in fired} == {fired[0]["since_us"]}
    assert fired[0]["since_us"] < T0 + stream.transitions[0][0] * MINUTE


def test_slow_rise_resolves_when_the_rate_is_down_again() -> None:
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED * 6)
    assert stream.kinds == {"slow_rise"}
    stream.run(CLEAN[:40])
    assert [transition[1:] for transition in stream.transitions] == [("slow_rise", "opened"), ("slow_rise", "resolved")]
    assert stream.transitions[1][0] <= 50 + 120 + 20


def test_slow_rise_longer_than_the_look_back_still_resolves() -> None:
    """All windows of the look-back belong to the rise then: the count model has no windows, but the rise must end."""
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED * 2)
    stream.threshold = learned_threshold(windows=0)
    stream.run(RAISED)
    assert stream.kinds == {"slow_rise"}
    stream.run(CLEAN[:40])
    assert stream.kinds == set()


def test_spike_opens_no_slow_rise() -> None:
    stream = Stream()
    stream.run(CLEAN[:50] + [16] + [300] * 60 + [16] + CLEAN[50:100])
    assert [transition[1:] for transition in stream.transitions] == [("spike", "opened"), ("spike", "resolved")]


def test_windows_during_an_open_spike_do_not_count_for_a_slow_rise() -> None:
    stream = Stream()
    stream.run([300, 12, 12, 300] * 10)
    assert stream.kinds == {"spike"}


def test_raised_rate_after_a_spike_is_found() -> None:
    stream = Stream()
    stream.run(CLEAN[:20] + [300] * 3 + RAISED * 2)
    assert stream.kinds == {"slow_rise"}


def test_new_model_resets_the_state() -> None:
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED[:4])
    assert stream.state["slow_rise"]["statistic"]["evidence"] > 1
    stream.threshold = threshold_of_model(2)
    stream.judge(5)
    assert stream.state["slow_rise"]["model_id"] == 2
    assert stream.state["slow_rise"]["statistic"]["evidence"] < 1


def test_new_threshold_of_the_same_model_keeps_the_state() -> None:
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED[:4])
    before = stream.state["slow_rise"]["statistic"]["evidence"]
    stream.threshold = replace(stream.threshold, row=replace(stream.threshold.row, id=8, threshold=51.0))
    stream.judge(10)
    assert stream.state["slow_rise"]["statistic"]["evidence"] > before


def test_accepted_slow_rise_resets_the_state() -> None:
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED)
    stream.open_incidents.clear()
    judgement = stream.judge(5)
    assert judgement.window.details is None
    assert stream.state["slow_rise"]["alarm"] is None


def test_accepted_rate_is_no_slow_rise_for_one_look_back() -> None:
    stream = Stream(state={"accepted": {"rate": 0.0105, "until_us": T0 + 100 * MINUTE, "model_id": 1}})
    stream.run(RAISED * 5)
    assert stream.transitions == []
    stream.run(RAISED * 2)
    assert stream.kinds == {"slow_rise"}


def test_no_slow_rise_before_the_count_model_is_learned() -> None:
    stream = Stream(threshold=learned_threshold(windows=99))
    stream.run(RAISED * 3)
    assert stream.transitions == []


def test_state_of_other_tests_is_kept() -> None:
    stream = Stream(state={"drift": {"anything": 1}})
    stream.run(CLEAN[:2])
    assert stream.state["drift"] == {"anything": 1}


def test_rise_that_the_threshold_has_adopted_is_rebased() -> None:
    """The rate of an adopted rise is its own clean rate: no window tells that the rise is over."""
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED)
    (_incident,) = stream.open_incidents.values()
    since_us = stream.state["slow_rise"]["alarm"]["since_us"]
    for computed_at_us in (since_us + RULES.adopt_after_us - 1, since_us + RULES.adopt_after_us):
        assert stream.kinds == {"slow_rise"}
        row = replace(stream.threshold.row, id=8, computed_at_us=computed_at_us)
        stream.threshold = replace(stream.threshold, row=row)
        judgement = stream.judge(10)
    (ended,) = judgement.incidents
    assert (ended.status, ended.details["resolved"]["reason"]) == ("resolved", "rebased")
    assert ended.transition is not None
    assert ended.transition.summary.startswith("rebased: ")
    assert stream.state["slow_rise"]["alarm"] is None
    stream.run(RAISED)
    assert [kind for _, kind, transition in stream.transitions if transition == "opened"] == ["slow_rise"] * 2
