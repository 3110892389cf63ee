"""An open window that is a spike already: it opens early, and the full window says the last word."""

from dataclasses import replace

from tests.unit.monitor.judged_windows import MINUTE, T0, Stream, learned_threshold


def test_it_opens_at_the_limit_of_the_full_window_and_bears_its_times() -> None:
    stream = Stream()
    (row,) = stream.judge_early(60, events=300)
    assert (row.window_start_us, row.opened_at_us) == (T0, T0 + MINUTE)
    assert row.transition is not None
    assert (row.transition.transition, row.transition.at_us) == ("opened", T0 + MINUTE)
    assert row.summary.startswith("60 outliers among 300 events of the open window from 2026-01-01T00:00:00Z")


def test_counts_that_only_the_limit_for_the_events_so_far_would_call_a_spike_open_nothing() -> None:
    stream = Stream()
    assert stream.judge_early(15, events=300) == []
    assert {row.kind for row in Stream().judge(15, events=300).incidents} == {"spike"}


def test_nothing_opens_before_the_usual_number_of_events_is_known() -> None:
    assert Stream(threshold=learned_threshold(most_events=None)).judge_early(60, events=300) == []


def test_the_full_window_opens_no_second_one_and_gives_its_own_numbers() -> None:
    stream, other = Stream(), Stream()
    stream.judge_early(60, events=300)
    late, once = stream.judge(200), other.judge(200)
    assert [row.id for row in late.incidents] == [1]
    assert [replace(row, id=None) for row in late.incidents] == list(once.incidents)
    assert late.window == once.window
    assert stream.open_incidents == other.open_incidents


def test_looking_again_opens_nothing_more() -> None:
    stream = Stream()
    stream.judge_early(60, events=300)
    assert stream.judge_early(80, events=500) == []


def test_while_a_spike_is_open_nothing_opens_early() -> None:
    stream = Stream()
    stream.judge(200)
    assert stream.judge_early(200) == []


def test_a_window_with_far_more_events_than_ever_may_take_it_back() -> None:
    stream = Stream()
    stream.judge_early(40, events=500)
    judgement = stream.judge(60, events=12_000)
    assert [(row.status, row.resolved_at_us) for row in judgement.incidents] == [("resolved", T0 + MINUTE)]
    assert judgement.incidents[0].transition is not None
    assert judgement.incidents[0].transition.summary.startswith("withdrawn: the full window has 12,000 events")
    assert judgement.window.details is None
    assert stream.open_incidents == {}


def test_what_was_accepted_does_not_open_early() -> None:
    accepted = {"rate": 0.2, "until_us": T0 + 100 * MINUTE, "model_id": 1}
    assert Stream(state={"accepted": accepted}).judge_early(200) == []
    assert Stream(state={"accepted": accepted | {"model_id": 2}}).judge_early(200) != []
