"""Silence by a stream's own pauses: what it calls silence, and how often it is wrong on streams that are well."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from monitor.incidents.lifecycle import Finding, Kind, LifecyclePolicy, Severity
from monitor.incidents.rows import IncidentPolicy
from monitor.incidents.silence import (
    AllowedSilence,
    SilenceRule,
    estimate_allowed_silence,
    explained_until_us,
    find_silence,
    update_silence_incident,
    usual_allowed_silence_us,
)
from storage.control.records import StoredIncident
from storage.control.silence import ArrivalFacts, Pause, PauseHistory

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z

AUTO = SilenceRule(after_us=None, idle_timeout_us=MINUTE, size_us=MINUTE, max_event_age_us=HOUR)
POLICY = IncidentPolicy(
    size_us=MINUTE,
    lifecycle=LifecyclePolicy(resolve_after=3, repeat_interval_us=4 * HOUR),
    channels=lambda _kind, _severity: ("ops",),
    max_age_us=HOUR,
)

Times = NDArray[np.int64]


def history_of(times_us: Times, until_us: int | None = None, look_back_us: int = 15 * DAY) -> PauseHistory:
    """What the store says of events at these times, up to one of them."""
    starts = np.unique(times_us // MINUTE) * MINUTE
    until_us = int(starts[-1]) if until_us is None else until_us
    starts = starts[(starts <= until_us) & (starts >= until_us - look_back_us)]
    skips = np.flatnonzero(np.diff(starts) > MINUTE)
    pauses = [
        Pause(start_us=int(starts[i]) + MINUTE - MINUTE // 2, end_us=int(starts[i + 1]) + MINUTE // 2) for i in skips
    ]
    return PauseHistory(start_us=int(starts[0]), end_us=int(starts[-1]) + MINUTE, windows=len(starts), pauses=pauses)


def false_alarms(times_us: Times) -> list[float]:
    """The days on which a stream that is well would have been called silent, were it watched from its first event."""
    wrong, known = [], (-1, 0)
    for before, after in itertools.pairwise(times_us):
        gap_us, part = int(after - before), int(before) // (DAY // 4)
        # A limit hardly moves within six hours: far below it nothing has to be looked up.
        if gap_us <= MINUTE or (known[0] == part and gap_us < 0.8 * known[1]):
            continue
        limit = estimate_allowed_silence(history_of(times_us[times_us <= before]), int(before), AUTO)
        if limit is None:
            continue
        known = (part, limit.usual_us)
        if after > max(before + limit.usual_us, limit.allowed_until_us):
            wrong.append((int(before) - T0) / DAY)
    return wrong


def poisson(per_minute: float, days: int, seed: int = 1) -> Times:
    rng = np.random.default_rng(seed)
    count = rng.poisson(per_minute * 1440 * days)
    return T0 + np.sort(rng.uniform(0, days * DAY, count)).astype(np.int64)


def with_nights(times_us: Times, *, jitter_min: float = 0, weekends: bool = False, seed: int = 2) -> Times:
    """Take out what comes from 22:00 to 06:00, give or take, and from Friday evening to Monday."""
    rng = np.random.default_rng(seed)
    kept = np.ones(len(times_us), bool)
    for day in range(-1, int((times_us[-1] - T0) // DAY) + 1):
        begin = T0 + day * DAY + 22 * HOUR + rng.normal(0, jitter_min) * MINUTE
        end = T0 + (day + 1) * DAY + 6 * HOUR + rng.normal(0, jitter_min) * MINUTE
        kept &= ~((times_us > begin) & (times_us < end + 2 * DAY * (weekends and day % 7 == 4)))
    return times_us[kept]


@pytest.mark.parametrize("per_minute", [20, 5, 2, 0.5, 0.1])
def test_events_that_come_by_chance_are_not_called_silent_in_a_month(per_minute: float) -> None:
    assert false_alarms(poisson(per_minute, 30)) == []


@pytest.mark.parametrize("per_minute", [5, 0.3])
@pytest.mark.parametrize("jitter_min", [0, 10])
def test_a_stream_that_sleeps_at_night_is_called_silent_in_its_first_night_and_in_no_other(
    per_minute: float, jitter_min: float
) -> None:
    wrong = false_alarms(with_nights(poisson(per_minute, 21), jitter_min=jitter_min))
    assert len(wrong) == 1
    assert wrong[0] < 1


def test_a_stream_that_rests_at_weekends_is_called_silent_at_its_first_weekend_and_at_no_other() -> None:
    wrong = false_alarms(with_nights(poisson(2, 35), jitter_min=10, weekends=True))
    assert [int(day) for day in wrong] == [0, 4]


def test_bursts_with_pauses_of_all_lengths_are_called_silent_a_few_times_at_first_and_then_rarely() -> None:
    rng = np.random.default_rng(3)
    times, at_min = [], 0.0
    while at_min < 40 * 1440:
        length = rng.exponential(60)
        times.append(at_min + np.sort(rng.uniform(0, length, rng.poisson(20 * length))))
        at_min += length + rng.exponential(10)
    wrong = false_alarms(T0 + (np.concatenate(times) * MINUTE).astype(np.int64))
    assert len(wrong) < 10
    assert len([day for day in wrong if day > 14]) <= 2


def test_a_batch_each_hour_is_silent_when_two_of_them_are_missing() -> None:
    times = T0 + np.arange(72, dtype=np.int64) * HOUR
    limit = usual_allowed_silence_us(history_of(times), AUTO)
    assert limit is not None
    assert 2 * HOUR < limit <= 3 * HOUR + 3 * MINUTE


def test_a_busy_stream_is_silent_after_three_windows_and_never_before_it_is_idle() -> None:
    history = history_of(poisson(600, 1))
    assert usual_allowed_silence_us(history, AUTO) == 3 * MINUTE
    assert usual_allowed_silence_us(history, replace(AUTO, idle_timeout_us=HOUR)) == HOUR


def test_by_day_a_stream_that_sleeps_at_night_is_called_silent_as_soon_as_any_other() -> None:
    times = with_nights(poisson(20, 10))
    history = history_of(times)
    noon = T0 + 9 * DAY + 12 * HOUR
    limit = estimate_allowed_silence(history, noon, AUTO)
    assert limit is not None
    assert limit.allowed_until_us - noon == limit.usual_us == 3 * MINUTE


def test_one_outage_explains_no_silence_at_another_time_of_the_day() -> None:
    times = poisson(20, 10)
    outage = T0 + 8 * DAY + 14 * HOUR
    history = history_of(times[(times < outage) | (times > outage + 3 * HOUR)])
    limit = estimate_allowed_silence(history, T0 + 9 * DAY + 9 * HOUR, AUTO)
    assert limit is not None
    assert limit.allowed_until_us - (T0 + 9 * DAY + 9 * HOUR) == limit.usual_us == 3 * MINUTE


def test_a_silence_is_explained_by_the_same_time_of_yesterday_and_an_eighth_more() -> None:
    night = Pause(start_us=T0 + 22 * HOUR, end_us=T0 + 30 * HOUR)
    assert explained_until_us(T0 + DAY + 22 * HOUR, MINUTE, [night]) == T0 + DAY + 31 * HOUR
    assert explained_until_us(T0 + 7 * DAY + 23 * HOUR, MINUTE, [night]) == T0 + 7 * DAY + 31 * HOUR
    assert explained_until_us(T0 + DAY + 20 * HOUR, MINUTE, [night]) == T0 + DAY + 20 * HOUR + MINUTE
    assert explained_until_us(T0 + 3 * DAY + 22 * HOUR, MINUTE, [night]) == T0 + 3 * DAY + 22 * HOUR + MINUTE


def test_few_pauses_say_nothing() -> None:
    assert usual_allowed_silence_us(history_of(T0 + np.arange(20, dtype=np.int64) * MINUTE), AUTO) is None
    assert usual_allowed_silence_us(history_of(T0 + np.arange(21, dtype=np.int64) * MINUTE), AUTO) is not None


NOW = T0 + DAY
ALLOWED = AllowedSilence(usual_us=10 * MINUTE, allowed_until_us=0)


def facts(silent_us: int, **changes: object) -> ArrivalFacts:
    last = NOW - silent_us
    fields = {
        "now_us": NOW,
        "last_arrival_us": last,
        "last_event_us": last - SECOND,
        "at_end": True,
        "ended": False,
        "last_window_us": last,
    }
    return ArrivalFacts(**(fields | changes))  # type: ignore[arg-type]


def find_silence_after(
    facts: ArrivalFacts, rule: SilenceRule = AUTO, limit: AllowedSilence | None = ALLOWED, watched_us: int = DAY
) -> Finding | None:
    return find_silence(facts, limit, rule, watched_since_us=NOW - watched_us)


def test_silence_is_found_when_it_is_longer_than_the_limit_and_says_all_numbers() -> None:
    assert find_silence_after(facts(10 * MINUTE)) is None
    finding = find_silence_after(facts(11 * MINUTE))
    assert finding is not None
    assert (finding.kind, finding.severity) == (Kind.SILENCE, Severity.WARNING)
    assert finding.summary == (
        "no event has come for 11.0 min, the last one of 2026-01-01T23:48:59Z; more than 10.0 min is silence, as its "
        "own pauses have it; the input was read to its end"
    )
    assert finding.details == {
        "last_event": "2026-01-01T23:48:59Z",
        "last_arrival": "2026-01-01T23:49:00Z",
        "silent_s": 660.0,
        "allowed_s": 600.0,
        "usual_s": 600.0,
        "silence_after": "auto",
        "at_end": True,
    }


def test_a_silence_that_the_night_before_explains_is_none() -> None:
    assert (
        find_silence_after(facts(11 * MINUTE), limit=AllowedSilence(usual_us=10 * MINUTE, allowed_until_us=NOW + HOUR))
        is None
    )


def test_a_duration_needs_no_history_and_no_live_events() -> None:
    rule = replace(AUTO, after_us=30 * SECOND)
    assert find_silence_after(facts(29 * SECOND), rule, None) is None
    finding = find_silence_after(facts(31 * SECOND, last_event_us=T0 - 300 * DAY), rule, None)
    assert finding is not None
    assert "as silence_after says" in finding.summary


@pytest.mark.parametrize(
    "changes",
    [
        {"ended": True},
        {"last_arrival_us": None, "last_event_us": None},
        {"last_event_us": NOW - 3 * HOUR},
    ],
    ids=["an ended stream", "a stream that warms up", "the end of a backlog"],
)
def test_it_is_not_silence(changes: dict[str, object]) -> None:
    assert find_silence_after(facts(HOUR, **changes)) is None


def test_where_the_source_cannot_be_asked_the_text_says_so_and_a_new_process_waits() -> None:
    unheard = facts(HOUR, at_end=False)
    assert find_silence_after(unheard, watched_us=9 * MINUTE) is None
    finding = find_silence_after(unheard, watched_us=11 * MINUTE)
    assert finding is not None
    assert finding.severity == Severity.CRITICAL
    assert "nothing could be read for 60.0 min" in finding.summary
    assert "look whether the broker can be reached" in finding.summary


def open_incident() -> tuple[ArrivalFacts, Finding, StoredIncident]:
    silent = facts(11 * MINUTE)
    finding = find_silence_after(silent)
    assert finding is not None
    (row,) = update_silence_incident(finding, [], silent, POLICY)
    assert row.transition is not None
    assert (row.transition.transition, row.transition.channels, row.transition.skipped_channels) == (
        "opened",
        ["log", "ops"],
        [],
    )
    assert (row.window_start_us, row.opened_at_us) == (silent.last_event_us, NOW)
    return silent, finding, row.with_id(1)


def test_as_long_as_it_lasts_it_is_only_repeated_and_no_row_is_written_in_between() -> None:
    silent, finding, incident = open_incident()
    for hours, change in ((1, None), (3.9, None), (4, "repeated")):
        later = replace(silent, now_us=NOW + int(hours * HOUR))
        rows = update_silence_incident(finding, [incident], later, POLICY)
        assert [row.transition.transition for row in rows if row.transition] == ([change] if change else [])
        assert len(rows) == (change is not None)


def test_when_the_broker_is_lost_during_a_silence_it_escalates() -> None:
    silent, _, incident = open_incident()
    unheard = replace(silent, at_end=False)
    finding = find_silence_after(unheard)
    (row,) = update_silence_incident(finding, [incident], unheard, POLICY)
    assert row.transition is not None
    assert (row.transition.transition, row.severity) == ("escalated", "critical")


def test_it_is_resolved_by_the_first_arrival_after_it_opened_and_by_nothing_else() -> None:
    silent, _, incident = open_incident()
    assert update_silence_incident(None, [incident], silent, POLICY) == []
    again = replace(silent, now_us=NOW + HOUR + SECOND, last_arrival_us=NOW + HOUR)
    (row,) = update_silence_incident(None, [incident], again, POLICY)
    assert row.transition is not None
    assert (row.status, row.transition.transition, row.resolved_at_us) == ("resolved", "resolved", again.now_us)
    assert row.transition.summary == "events come again, 60.0 min after this was opened"


def test_without_silence_and_without_an_incident_there_is_nothing_to_write() -> None:
    assert update_silence_incident(None, [], facts(SECOND), POLICY) == []
