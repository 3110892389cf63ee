"""The incident of a stream that has failed: one incident, whatever the number of failures and processes."""

from dataclasses import replace

from monitor.incidents.stopped import StreamStop, update_stopped_incident
from storage.control.records import Incident
from tests.rules import make_rules

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
T0 = 1_767_225_600_000_000
RULES = make_rules(repeat_interval_us=4 * HOUR, channels=lambda _kind, _severity: ("ops",), max_age_us=HOUR)
NOBODY: frozenset[str] = frozenset()


def stop_at(since_us: int = T0, failures: int = 1) -> StreamStop:
    return StreamStop(reason="there is no topic 'orders'", since_us=since_us, failures=failures)


def update(
    stop: StreamStop | None,
    incidents: list[Incident],
    now_us: int,
    *,
    others: frozenset[str] = NOBODY,
    recovered: bool = False,
) -> list[Incident]:
    return update_stopped_incident(stop, incidents, others, RULES, now_us=now_us, has_recovered=recovered)


def stored(now_us: int = T0 + SECOND) -> Incident:
    return replace(update(stop_at(), [], now_us)[0], id=7, transition=None)


def test_the_first_failure_opens_a_warning_that_names_the_reason_on_every_channel() -> None:
    (row,) = update(stop_at(), [], T0 + SECOND)
    assert (row.kind, row.severity, row.status) == ("stopped", "warning", "open")
    assert (row.window_start_us, row.opened_at_us) == (T0, T0 + SECOND)
    assert "there is no topic 'orders'" in row.summary
    assert row.transition is not None
    assert list(row.transition.channels) == ["log", "ops"]


def test_further_failures_change_nothing_until_the_stream_was_stopped_for_a_minute() -> None:
    assert update(stop_at(failures=2), [stored()], T0 + 59 * SECOND) == []
    (row,) = update(stop_at(failures=9), [stored()], T0 + MINUTE)
    assert (row.id, row.severity) == (7, "critical")
    assert row.transition is not None
    assert row.transition.type == "escalated"
    told = replace(row, transition=None)
    assert update(stop_at(failures=99), [told], T0 + HOUR) == []
    (repeated,) = update(stop_at(failures=999), [told], T0 + 5 * HOUR)
    assert repeated.transition is not None
    assert repeated.transition.type == "repeated"


def test_a_stream_that_runs_in_another_process_is_not_stopped() -> None:
    assert update(stop_at(), [], T0 + SECOND, others=frozenset({"running"})) == []
    assert len(update(stop_at(), [], T0 + SECOND, others=frozenset({"stopped"}))) == 1
    (row,) = update(stop_at(), [stored()], T0 + MINUTE, others=frozenset({"running"}))
    assert row.status == "resolved"


def test_the_incident_resolves_when_the_stream_has_recovered_and_not_when_it_has_just_started() -> None:
    assert update(None, [stored()], T0 + MINUTE) == []
    (row,) = update(None, [stored()], T0 + 11 * MINUTE, recovered=True)
    assert row.status == "resolved"
    assert row.transition is not None
    assert row.transition.summary.startswith("the stream runs again, 11 min after")
    assert update(None, [], T0, recovered=True) == []
