"""Detection of silence by a stream's pauses, and its false alarms on healthy streams."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from numpy.typing import NDArray

from config.time_format import format_utc
from monitor.incidents.lifecycle import Finding, Kind, Severity
from monitor.incidents.silence import (
    AllowedSilence,
    SilenceRule,
    estimate_allowed_silence,
    explained_until_us,
    find_silence,
    update_silence_incident,
    usual_allowed_silence_us,
)
from storage.control.records import Incident
from storage.control.silence import ArrivalFacts, Pause, PauseHistory
from tests.rules import make_rules

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
T0 = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z

AUTO = SilenceRule(after_us=None, idle_timeout_us=MINUTE, size_us=MINUTE, max_event_age_us=HOUR)
RULES = make_rules(
    size_us=MINUTE,
    resolve_after=3,
    repeat_interval_us=4 * HOUR,
    channels=lambda _kind, _severity: ("ops",),
    max_age_us=HOUR,
)

Times = NDArray[np.int64]


def history_of(times_us: Times, until_us: int | None = None, look_back_us: int = 15 * DAY) -> PauseHistory:
    """Return the pause history that the store returns for events at these times, up to `until_us`."""
    starts = np.unique(times_us // MINUTE) * MINUTE
    until_us = int(starts[-1]) if until_us is None else until_us
    starts = starts[(starts <= until_us) & (starts >= until_us - look_back_us)]
    skips = np.flatnonzero(np.diff(starts) > MINUTE)
    pauses = [
        Pause(start_us=int(starts[i]) + MINUTE - MINUTE // 2, end_us=int(starts[i + 1]) + MINUTE // 2) for i in skips
    ]
    return PauseHistory(start_us=int(starts[0]), end_us=int(starts[-1]) + MINUTE, windows=len(starts), pauses=pauses)


def false_alarms(times_us: Times) -> list[float]:
    """Return the days on which a healthy stream, watched from its first event, would be called silent."""
    days, last_estimate = [], (-1, 0)
    for before, after in itertools.pairwise(times_us):
        gap_us, quarter = int(after - before), int(before) // (DAY // 4)
        # The allowed silence hardly changes within six hours: a much shorter gap needs no new estimate.
        if gap_us <= MINUTE or (last_estimate[0] == quarter and gap_us < 0.8 * last_estimate[1]):
            continue
        allowed = estimate_allowed_silence(history_of(times_us[times_us <= before]), int(before), AUTO)
        if allowed is None:
            continue
        last_estimate = (quarter, allowed.usual_us)
        if after > max(before + allowed.usual_us, allowed.allowed_until_us):
            days.append((int(before) - T0) / DAY)
    return days


def poisson_times(per_minute: float, days: int, seed: int = 1) -> Times:
    rng = np.random.default_rng(seed)
    count = rng.poisson(per_minute * 1440 * days)
    return T0 + np.sort(rng.uniform(0, days * DAY, count)).astype(np.int64)


def with_nights(times_us: Times, *, jitter_min: float = 0, weekends: bool = False, seed: int = 2) -> Times:
    """Remove the events from 22:00 to 06:00, with jitter, and optionally from Friday evening to Monday."""
    rng = np.random.default_rng(seed)
    remaining = np.ones(len(times_us), bool)
    for day in range(-1, int((times_us[-1] - T0) // DAY) + 1):
        begin = T0 + day * DAY + 22 * HOUR + rng.normal(0, jitter_min) * MINUTE
        end = T0 + (day + 1) * DAY + 6 * HOUR + rng.normal(0, jitter_min) * MINUTE
        remaining &= ~((times_us > begin) & (times_us < end + 2 * DAY * (weekends and day % 7 == 4)))
    return times_us[remaining]


@pytest.mark.slow
@pytest.mark.parametrize("per_minute", [20, 5, 2, 0.5, 0.1])
def test_poisson_events_cause_no_false_alarm_in_a_month(per_minute: float) -> None:
    assert false_alarms(poisson_times(per_minute, 30)) == []


@pytest.mark.slow
@pytest.mark.parametrize("per_minute", [5, 0.3])
@pytest.mark.parametrize("jitter_min", [0, 10])
def test_nightly_pause_is_silence_only_in_the_first_night(per_minute: float, jitter_min: float) -> None:
    days = false_alarms(with_nights(poisson_times(per_minute, 21), jitter_min=jitter_min))
    assert len(days) == 1
    assert days[0] < 1


@pytest.mark.slow
def test_weekend_pause_is_silence_only_at_the_first_weekend() -> None:
    days = false_alarms(with_nights(poisson_times(2, 35), jitter_min=10, weekends=True))
    assert [int(day) for day in days] == [0, 4]


@pytest.mark.slow
def test_bursty_stream_has_few_false_alarms_at_first_and_then_hardly_any() -> None:
    rng = np.random.default_rng(3)
    times, at_min = [], 0.0
    while at_min < 40 * 1440:
        length = rng.exponential(60)
        times.append(at_min + np.sort(rng.uniform(0, length, rng.poisson(20 * length))))
        at_min += length + rng.exponential(10)
    days = false_alarms(T0 + (np.concatenate(times) * MINUTE).astype(np.int64))
    assert len(days) < 10
    assert len([day for day in days if day > 14]) <= 2


def test_hourly_batches_are_silent_after_two_missing_batches() -> None:
    times = T0 + np.arange(72, dtype=np.int64) * HOUR
    allowed = usual_allowed_silence_us(history_of(times), AUTO)
    assert allowed is not None
    assert 2 * HOUR < allowed <= 3 * HOUR + 3 * MINUTE


def test_busy_stream_is_silent_after_three_windows_but_not_before_the_idle_timeout() -> None:
    history = history_of(poisson_times(600, 1))
    assert usual_allowed_silence_us(history, AUTO) == 3 * MINUTE
    assert usual_allowed_silence_us(history, replace(AUTO, idle_timeout_us=HOUR)) == HOUR


def test_nightly_pause_does_not_extend_the_allowed_silence_by_day() -> None:
    times = with_nights(poisson_times(20, 10))
    history = history_of(times)
    noon = T0 + 9 * DAY + 12 * HOUR
    allowed = estimate_allowed_silence(history, noon, AUTO)
    assert allowed is not None
    assert allowed.allowed_until_us - noon == allowed.usual_us == 3 * MINUTE


def test_one_outage_explains_no_silence_at_another_time_of_the_day() -> None:
    times = poisson_times(20, 10)
    outage = T0 + 8 * DAY + 14 * HOUR
    history = history_of(times[(times < outage) | (times > outage + 3 * HOUR)])
    allowed = estimate_allowed_silence(history, T0 + 9 * DAY + 9 * HOUR, AUTO)
    assert allowed is not None
    assert allowed.allowed_until_us - (T0 + 9 * DAY + 9 * HOUR) == allowed.usual_us == 3 * MINUTE


def test_pause_explains_silence_a_day_or_a_week_later_plus_an_eighth_of_its_length() -> None:
    night = Pause(start_us=T0 + 22 * HOUR, end_us=T0 + 30 * HOUR)
    assert explained_until_us(T0 + DAY + 22 * HOUR, MINUTE, [night]) == T0 + DAY + 31 * HOUR
    assert explained_until_us(T0 + 7 * DAY + 23 * HOUR, MINUTE, [night]) == T0 + 7 * DAY + 31 * HOUR
    assert explained_until_us(T0 + DAY + 20 * HOUR, MINUTE, [night]) == T0 + DAY + 20 * HOUR + MINUTE
    assert explained_until_us(T0 + 3 * DAY + 22 * HOUR, MINUTE, [night]) == T0 + 3 * DAY + 22 * HOUR + MINUTE


def test_allowed_silence_is_unknown_with_fewer_than_20_pauses() -> None:
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
    facts: ArrivalFacts, rule: SilenceRule = AUTO, allowed: AllowedSilence | None = ALLOWED, watched_us: int = DAY
) -> Finding | None:
    return find_silence(facts, allowed, rule, watched_since_us=NOW - watched_us)


def test_silence_longer_than_allowed_is_found_with_all_numbers() -> None:
    assert find_silence_after(facts(10 * MINUTE)) is None
    finding = find_silence_after(facts(11 * MINUTE))
    assert finding is not None
    assert (finding.kind, finding.severity) == (Kind.SILENCE, Severity.WARNING)
    assert finding.summary == (
        "no event for 11.0 min, the last one at 2026-01-01T23:48:59Z; the allowed silence is 10.0 min (from the usual "
        "pauses of the stream); the source was read to its end"
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


def test_silence_explained_by_the_night_before_is_not_found() -> None:
    assert (
        find_silence_after(
            facts(11 * MINUTE), allowed=AllowedSilence(usual_us=10 * MINUTE, allowed_until_us=NOW + HOUR)
        )
        is None
    )


def test_configured_duration_needs_no_history_and_no_live_events() -> None:
    rule = replace(AUTO, after_us=30 * SECOND)
    assert find_silence_after(facts(29 * SECOND), rule, None) is None
    finding = find_silence_after(facts(31 * SECOND, last_event_us=T0 - 300 * DAY), rule, None)
    assert finding is not None
    assert "(alerts.silence_after)" in finding.summary


@pytest.mark.parametrize(
    "changes",
    [
        {"ended": True},
        {"last_arrival_us": None, "last_event_us": None},
        {"last_event_us": NOW - 3 * HOUR},
    ],
    ids=["an ended stream", "a stream that warms up", "the end of a backlog"],
)
def test_no_silence_is_found_for(changes: dict[str, object]) -> None:
    assert find_silence_after(facts(HOUR, **changes)) is None


def test_unreadable_source_is_critical_and_counts_from_the_start_of_the_watch() -> None:
    unreadable = facts(HOUR, at_end=False)
    assert find_silence_after(unreadable, watched_us=9 * MINUTE) is None
    finding = find_silence_after(unreadable, watched_us=11 * MINUTE)
    assert finding is not None
    assert finding.severity == Severity.CRITICAL
    assert "no record could be read for 60.0 min" in finding.summary
    assert "check that the broker can be reached" in finding.summary


def open_incident() -> tuple[ArrivalFacts, Finding, Incident]:
    silent = facts(11 * MINUTE)
    finding = find_silence_after(silent)
    assert finding is not None
    (row,) = update_silence_incident(finding, [], silent, RULES)
    assert row.transition is not None
    assert (row.transition.type, row.transition.channels, row.transition.skipped_channels) == (
        "opened",
        ["log", "ops"],
        [],
    )
    assert (row.window_start_us, row.opened_at_us) == (silent.last_event_us, NOW)
    return silent, finding, row.with_id(1)


def test_lasting_silence_is_repeated_and_writes_no_row_in_between() -> None:
    silent, finding, incident = open_incident()
    for hours, change in ((1, None), (3.9, None), (4, "repeated")):
        later = replace(silent, now_us=NOW + int(hours * HOUR))
        rows = update_silence_incident(finding, [incident], later, RULES)
        assert [row.transition.type for row in rows if row.transition] == ([change] if change else [])
        assert len(rows) == (change is not None)


def test_silence_escalates_when_the_source_becomes_unreadable() -> None:
    silent, _, incident = open_incident()
    unreadable = replace(silent, at_end=False)
    finding = find_silence_after(unreadable)
    (row,) = update_silence_incident(finding, [incident], unreadable, RULES)
    assert row.transition is not None
    assert (row.transition.type, row.severity) == ("escalated", "critical")


def test_only_an_arrival_after_the_opening_resolves_the_incident() -> None:
    silent, _, incident = open_incident()
    assert update_silence_incident(None, [incident], silent, RULES) == []
    again = replace(silent, now_us=NOW + HOUR + SECOND, last_arrival_us=NOW + HOUR)
    (row,) = update_silence_incident(None, [incident], again, RULES)
    assert row.transition is not None
    assert (row.status, row.transition.type, row.resolved_at_us) == ("resolved", "resolved", again.now_us)
    assert row.transition.summary == "events arrive again, 60.0 min after the incident was opened"


def test_no_row_is_written_without_silence_and_without_an_incident() -> None:
    assert update_silence_incident(None, [], facts(SECOND), RULES) == []


CLOCK_CHANGES = {"spring": datetime(2026, 3, 29, tzinfo=UTC), "autumn": datetime(2026, 10, 25, tzinfo=UTC)}


def times_with_local_nights(change: str, night: tuple[float, float], timezone: str) -> Times:
    """Return an event each 2 minutes from 16 days before a clock change to 9 days after, but none at night."""
    begin = CLOCK_CHANGES[change] - timedelta(days=16)
    times = [begin + timedelta(minutes=2 * number) for number in range(25 * 720)]
    local = [time.astimezone(ZoneInfo(timezone)) for time in times]
    open_at = [not night[0] <= each.hour + each.minute / 60 < night[1] for each in local]
    return np.array([int(time.timestamp()) * SECOND for time, is_open in zip(times, open_at, strict=True) if is_open])


def false_alarms_after_a_week(times_us: Times, rule: SilenceRule) -> list[str]:
    """Return the starts of the nights after the first week that are called silent."""
    found = []
    for before in times_us[:-1][np.diff(times_us) > HOUR // 2].tolist():
        allowed = estimate_allowed_silence(history_of(times_us[times_us <= before]), before, rule)
        assert allowed is not None
        after = int(times_us[times_us > before][0])
        if before > times_us[0] + 7 * DAY and after > max(before + allowed.usual_us, allowed.allowed_until_us):
            found.append(format_utc(before))
    return found


@pytest.mark.parametrize("change", CLOCK_CHANGES)
@pytest.mark.parametrize("night", [(1, 3), (1, 4), (2, 3), (2, 5), (0, 2.5), (3, 6), (4, 6)], ids=str)
def test_short_night_is_no_silence_at_a_clock_change(change: str, night: tuple[float, float]) -> None:
    times = times_with_local_nights(change, night, "Europe/Berlin")
    assert false_alarms_after_a_week(times, replace(AUTO, timezone="Europe/Berlin")) == []


def test_clock_change_of_another_time_zone_is_silence_once() -> None:
    times = times_with_local_nights("spring", (3, 6), "Europe/Berlin")
    # 03:00 to 06:00 in Berlin is an hour earlier in UTC from this day on: the night begins before the learned one.
    assert false_alarms_after_a_week(times, AUTO) == ["2026-03-29T00:58:00Z"]


def test_outage_longer_than_the_night_of_a_clock_change_is_still_silence() -> None:
    times = times_with_local_nights("autumn", (2, 5), "Europe/Berlin")
    begin = int(datetime(2026, 10, 25, 0, tzinfo=UTC).timestamp()) * SECOND  # 02:00 in summer time
    allowed = estimate_allowed_silence(history_of(times[times < begin]), begin, replace(AUTO, timezone="Europe/Berlin"))
    assert allowed is not None
    margin = int(3 * HOUR / 8)
    assert begin + 4 * HOUR < allowed.allowed_until_us <= begin + 4 * HOUR + margin + 3 * MINUTE
