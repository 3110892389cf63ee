"""A slow rise among the other incidents: what feeds it, when it opens, when it ends, what is kept of it."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.monitor.judged_windows import MINUTE, T0, Stream, learned_threshold, threshold_of_model

CLEAN = np.random.default_rng(3).poisson(5, 200).tolist()
RAISED = [9, 11, 10, 8, 12, 9, 11, 10, 10, 9, 12, 11, 10, 9, 10, 11, 10, 12, 9, 10]


def test_a_clean_stream_has_none() -> None:
    stream = Stream()
    stream.run(CLEAN)
    assert stream.transitions == []


def test_a_doubled_rate_that_no_window_shows_alone_opens_one_with_its_onset() -> None:
    stream = Stream()
    judgements = stream.run(CLEAN[:50] + RAISED)
    opened = next(row for each in judgements for row in each.incidents if row.kind == "slow_rise")
    assert [said[1:] for said in stream.transitions] == [("slow_rise", "opened")]
    details = opened.details["opened"]
    onset = T0 + 50 * MINUTE
    assert abs(int(np.datetime64(details["since"][:19], "us").astype(np.int64)) - onset) <= 5 * MINUTE
    assert details["ratio"] == pytest.approx(2, abs=0.4)
    assert details["windows"] == pytest.approx(stream.transitions[0][0] - 50, abs=6)
    assert "more outliers than usual since about 2026-01-01T00:" in opened.summary


def test_the_windows_of_a_rise_teach_the_law_nothing() -> None:
    stream = Stream()
    judgements = stream.run(CLEAN[:50] + RAISED)
    fired = [each.window.details for each in judgements if each.window.details is not None]
    assert {each["fired"] for each in fired} == {"slow_rise"}
    assert {each["since_us"] for each in fired} == {fired[0]["since_us"]}
    assert fired[0]["since_us"] < T0 + stream.transitions[0][0] * MINUTE


def test_it_stays_open_while_the_rate_is_up_and_ends_when_it_is_down() -> None:
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED * 6)
    assert stream.kinds == {"slow_rise"}
    stream.run(CLEAN[:40])
    assert [said[1:] for said in stream.transitions] == [("slow_rise", "opened"), ("slow_rise", "resolved")]
    assert stream.transitions[1][0] <= 50 + 120 + 20


def test_it_ends_also_when_it_has_outlasted_the_windows_that_the_law_is_learned_from() -> None:
    """All windows of the look-back are the rise's own then: the law has none, and the rise must not keep it so."""
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED * 2)
    stream.threshold = learned_threshold(windows=0)
    stream.run(RAISED)
    assert stream.kinds == {"slow_rise"}
    stream.run(CLEAN[:40])
    assert stream.kinds == set()


def test_the_windows_of_a_spike_do_not_open_a_rise_beside_it() -> None:
    stream = Stream()
    stream.run(CLEAN[:50] + [16] + [300] * 60 + [16] + CLEAN[50:100])
    assert [said[1:] for said in stream.transitions] == [("spike", "opened"), ("spike", "resolved")]


def test_windows_within_an_open_spike_do_not_feed_it() -> None:
    stream = Stream()
    stream.run([300, 12, 12, 300] * 10)
    assert stream.kinds == {"spike"}


def test_what_lasts_after_a_spike_is_found() -> None:
    stream = Stream()
    stream.run(CLEAN[:20] + [300] * 3 + RAISED * 2)
    assert stream.kinds == {"slow_rise"}


def test_what_is_handed_on_belongs_to_one_model() -> None:
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED[:4])
    assert stream.state["slow_rise"]["statistic"]["evidence"] > 1
    stream.threshold = threshold_of_model(2)
    stream.judge(5)
    assert stream.state["slow_rise"]["model_id"] == 2
    assert stream.state["slow_rise"]["statistic"]["evidence"] < 1


def test_another_threshold_of_the_model_loses_nothing() -> None:
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED[:4])
    before = stream.state["slow_rise"]["statistic"]["evidence"]
    stream.threshold = replace(stream.threshold, row=replace(stream.threshold.row, id=8, threshold=51.0))
    stream.judge(10)
    assert stream.state["slow_rise"]["statistic"]["evidence"] > before


def test_it_begins_anew_when_somebody_has_accepted_it() -> None:
    stream = Stream()
    stream.run(CLEAN[:50] + RAISED)
    stream.open_incidents.clear()
    judgement = stream.judge(5)
    assert judgement.window.details is None
    assert stream.state["slow_rise"]["alarm"] is None


def test_an_accepted_rate_is_no_rise_until_a_look_back_has_passed() -> None:
    stream = Stream(state={"accepted": {"rate": 0.0105, "until_us": T0 + 100 * MINUTE, "model_id": 1}})
    stream.run(RAISED * 5)
    assert stream.transitions == []
    stream.run(RAISED * 2)
    assert stream.kinds == {"slow_rise"}


def test_it_waits_until_the_law_is_learned() -> None:
    stream = Stream(threshold=learned_threshold(windows=99))
    stream.run(RAISED * 3)
    assert stream.transitions == []


def test_other_detectors_keep_what_they_hand_on() -> None:
    stream = Stream(state={"drift": {"anything": 1}})
    stream.run(CLEAN[:2])
    assert stream.state["drift"] == {"anything": 1}
