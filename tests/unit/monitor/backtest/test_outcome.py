"""Outcome of a cell: incidents matched with bursts, budgeted and realised false alarms."""

from collections.abc import Sequence

import pytest

from config.stream_rules import WindowRules
from config.units import Rate
from consumers.window_schedule import make_window_schedule
from monitor.backtest.labels import Burst
from monitor.backtest.memory_store import IncidentLifetime, MemoryStore
from monitor.backtest.outcome import LabelledBursts, Outcome, compute_outcome
from storage.control.records import Incident, WindowRow

MINUTE = 60_000_000
DAY = 1440


def window(minute: int) -> WindowRow:
    return WindowRow(
        window_start_us=minute * MINUTE,
        window_end_us=(minute + 1) * MINUTE,
        threshold_id=1,
        events=100,
        outliers=1,
        late=0,
        dead=0,
        judged=True,
    )


def lifetime(*minutes: int, kind: str = "spike") -> IncidentLifetime:
    row = Incident(
        id=None,
        kind=kind,
        severity="warning",
        status="open",
        window_start_us=minutes[0] * MINUTE,
        opened_at_us=(minutes[0] + 1) * MINUTE,
        last_told_us=0,
        clean_windows=0,
        windows_fired=len(minutes),
        summary="",
        details={},
    )
    return IncidentLifetime(row=row, fired_windows=[(minute * MINUTE, (minute + 1) * MINUTE) for minute in minutes])


def burst(start_s: int, end_s: int, events: int | None = 20) -> Burst:
    return Burst(start_us=start_s * 1_000_000, end_us=end_s * 1_000_000, events=events)


def outcome(lifetimes: Sequence[IncidentLifetime], bursts: Sequence[Burst] | None = None) -> Outcome:
    memory = MemoryStore(
        [], windows=make_window_schedule((WindowRules(size_us=MINUTE, grace_us=0, ahead_us=0),)), lead_us=0
    )
    memory.windows = [window(minute) for minute in range(DAY)]
    memory.incidents = list(lifetimes)
    labelled = None if bursts is None else LabelledBursts(bursts=bursts, events=40)
    return compute_outcome(
        memory,
        99.5,
        Rate(count=1, unit="day"),
        labelled,
        size_us=MINUTE,
        slack_us=3 * MINUTE,
        min_outliers=5,
        found_events=None if bursts is None else 30,
    )


def test_every_incident_under_the_budget_counts_as_realised_without_labels() -> None:
    result = outcome([lifetime(10), lifetime(700), lifetime(900, kind="drift"), lifetime(30, kind="dead_letters")])
    assert result.alerts_per_day == 4
    assert (result.promised_per_week, result.realised_per_week) == (7, 21)
    assert result.incidents == {"spike": 2, "drift": 1, "dead_letters": 1}
    assert (result.windows, result.events, result.outliers) == (DAY, 100 * DAY, DAY)
    assert (result.recall, result.delay_s, result.precision) == (None, None, None)


def test_incident_matches_a_burst_during_or_shortly_before_it_fires() -> None:
    bursts = [burst(610, 640), burst(3610, 3640), burst(7210, 7240)]
    result = outcome([lifetime(10, 11), lifetime(62), lifetime(700)], bursts)
    assert (result.bursts, result.recall) == (3, pytest.approx(2 / 3))
    assert (result.false_incidents, result.precision) == (1, pytest.approx(2 / 3))
    assert result.realised_per_week == 7
    assert result.delay_s == pytest.approx(((660 - 610) + (3780 - 3610)) / 2)
    assert result.delay_windows == pytest.approx(110 / 60)
    assert result.events_found == 0.75


def test_one_incident_may_match_several_bursts() -> None:
    result = outcome([lifetime(10, 11, 14)], [burst(610, 640), burst(850, 880)])
    assert (result.recall, result.false_incidents) == (1.0, 0)


def test_bursts_of_too_few_events_are_ignored() -> None:
    result = outcome([lifetime(10)], [burst(610, 640, events=2)])
    assert (result.bursts, result.recall, result.false_incidents) == (0, None, 1)


def test_incident_open_long_before_a_burst_does_not_match_it() -> None:
    result = outcome([lifetime(*range(5, 20))], [burst(610, 640)])
    assert (result.recall, result.false_incidents, result.precision) == (0.0, 1, 0.0)
    opened_just_before = outcome([lifetime(*range(8, 20))], [burst(610, 640)])
    assert (opened_just_before.recall, opened_just_before.false_incidents) == (1.0, 0)


def test_incident_before_a_burst_is_false() -> None:
    result = outcome([lifetime(9)], [burst(610, 640)])
    assert (result.recall, result.false_incidents, result.precision) == (0.0, 1, 0.0)
