"""Open windows that already are a spike: an early incident, and the result of the full window."""

from dataclasses import replace

from tests.unit.monitor.judged_windows import MINUTE, T0, Stream, learned_threshold


def test_spike_opens_early_with_the_times_of_the_full_window() -> None:
    stream = Stream()
    (row,) = stream.judge_early(60, events=300)
    assert (row.window_start_us, row.opened_at_us) == (T0, T0 + MINUTE)
    assert row.transition is not None
    assert (row.transition.type, row.transition.at_us) == ("opened", T0 + MINUTE)
    assert row.summary.startswith("60 outliers among 300 events of the open window from 2026-01-01T00:00:00Z")


def test_open_window_is_not_tested_with_its_events_so_far() -> None:
    stream = Stream()
    assert stream.judge_early(15, events=300) == []
    assert {row.kind for row in Stream().judge(15, events=300).incidents} == {"spike"}


def test_nothing_opens_early_before_the_first_tick() -> None:
    assert Stream(threshold=learned_threshold(most_events=None)).judge_early(60, events=300) == []


def test_full_window_updates_the_early_incident_with_its_own_numbers() -> None:
    stream, other = Stream(), Stream()
    stream.judge_early(60, events=300)
    late, once = stream.judge(200), other.judge(200)
    assert [row.id for row in late.incidents] == [1]
    assert [replace(row, id=None) for row in late.incidents] == list(once.incidents)
    assert late.window == once.window
    assert stream.open_incidents == other.open_incidents


def test_second_early_test_opens_nothing() -> None:
    stream = Stream()
    stream.judge_early(60, events=300)
    assert stream.judge_early(80, events=500) == []


def test_nothing_opens_early_while_a_spike_is_open() -> None:
    stream = Stream()
    stream.judge(200)
    assert stream.judge_early(200) == []


def test_full_window_with_many_more_events_withdraws_the_early_incident() -> None:
    stream = Stream()
    stream.judge_early(40, events=500)
    judgement = stream.judge(60, events=12_000)
    assert [(row.status, row.resolved_at_us) for row in judgement.incidents] == [("resolved", T0 + MINUTE)]
    assert judgement.incidents[0].transition is not None
    assert judgement.incidents[0].transition.summary.startswith("withdrawn: the full window has 12,000 events")
    assert judgement.window.details is None
    assert stream.open_incidents == {}


def test_accepted_rate_does_not_open_early() -> None:
    accepted = {"rate": 0.2, "until_us": T0 + 100 * MINUTE, "model_id": 1}
    assert Stream(state={"accepted": accepted}).judge_early(200) == []
    assert Stream(state={"accepted": accepted | {"model_id": 2}}).judge_early(200) != []
