"""When a refit is due, what it leaves out, and how far a stream may be sealed meanwhile."""

from dataclasses import replace

import pytest

from config.stream_rules import ALWAYS_US, RefitRules, RuleSchedule
from config.time_format import DAY_US, HOUR_US, MINUTE_US
from consumers.window_schedule import make_window_schedule
from monitor.models.refit import (
    decide_start,
    find_due,
    find_gate_time,
    find_seal_limit,
    find_shadow_start,
)
from storage.control.refits import IncidentSpan, RefitRow
from tests.rules import make_rules

RULES = make_rules(size_us=5 * MINUTE_US, refit=RefitRules(every_us=DAY_US, over_us=14 * DAY_US))
SCHEDULE = RuleSchedule.constant(RULES)
WINDOWS = make_window_schedule(RULES.windows)
T = 100 * DAY_US


def _row(state: str = "promoted", *, due_us: int = T, gate_us: int | None = None) -> RefitRow:
    return RefitRow(due_us=due_us, state=state, gate_us=gate_us)  # type: ignore[arg-type]


def _span(since_us: int, until_us: int | None, kind: str = "spike") -> IncidentSpan:
    return IncidentSpan(kind=kind, since_us=since_us, until_us=until_us)


def test_a_refit_is_due_at_multiples_of_every() -> None:
    assert find_due(SCHEDULE, None, T - 7) == T
    assert find_due(SCHEDULE, None, T) == T
    assert find_due(SCHEDULE, _row(), T) == T + DAY_US
    assert find_due(SCHEDULE, _row(), T + 9 * DAY_US + 1) == T + 10 * DAY_US, "quiet days have no refit"
    assert find_due(SCHEDULE, None, None) is None


def test_a_postponed_refit_is_tried_again_within_the_day() -> None:
    assert find_due(SCHEDULE, _row("postponed"), T) == T + HOUR_US
    long = replace(RULES, size_us=6 * HOUR_US)
    assert find_due(RuleSchedule.constant(long), _row("postponed"), T) == T + 6 * HOUR_US


def test_no_refit_is_due_before_the_gate_has_decided() -> None:
    assert find_due(SCHEDULE, _row("shadow", gate_us=T + 3 * DAY_US), T + 5) == T + 3 * DAY_US


def test_refits_begin_with_the_rules_that_ask_for_them() -> None:
    without = replace(RULES, refit=None)
    later = RuleSchedule(revision=1, rows=((ALWAYS_US, without), (T + HOUR_US, RULES)))
    assert find_due(later, None, T - 5 * DAY_US) == T + DAY_US
    ended = RuleSchedule(revision=1, rows=((ALWAYS_US, RULES), (T + HOUR_US, without)))
    assert find_due(ended, None, T) == T
    assert find_due(ended, _row(), T) is None


def test_the_seal_waits_for_each_step_of_a_refit() -> None:
    assert find_seal_limit(SCHEDULE, WINDOWS, None, T - 7) == T
    assert find_seal_limit(SCHEDULE, WINDOWS, _row("fitting"), T + MINUTE_US) == T + HOUR_US
    assert find_seal_limit(SCHEDULE, WINDOWS, _row("shadow", gate_us=T + DAY_US), T + 1) == T + DAY_US
    assert find_seal_limit(SCHEDULE, WINDOWS, _row("shadow", gate_us=T + DAY_US), None) == T + DAY_US
    assert find_seal_limit(SCHEDULE, WINDOWS, _row(), T + 1) == T + DAY_US
    assert find_seal_limit(RuleSchedule.constant(replace(RULES, refit=None)), WINDOWS, None, T) is None


def test_a_shadow_begins_after_every_event_that_is_stored_by_the_end_of_the_fit() -> None:
    lead_us = 7 * MINUTE_US
    since_us = find_shadow_start(T, lead_us, WINDOWS)
    limit_us = find_seal_limit(SCHEDULE, WINDOWS, _row("fitting"), T)
    assert limit_us is not None
    assert since_us >= limit_us + lead_us
    assert since_us % RULES.size_us == 0
    assert find_gate_time(T, since_us, RULES) == T + DAY_US
    short = replace(RULES, refit=RefitRules(every_us=HOUR_US, over_us=DAY_US))
    assert find_gate_time(T, since_us, short) == since_us + 10 * RULES.size_us, "a gate needs windows"


def test_a_refit_waits_for_the_end_of_an_incident() -> None:
    start = decide_start(T, RULES, [_span(T - HOUR_US, None, "drift")], 0)
    assert (start.state, start.reason) == ("postponed", "an incident is open (drift)")


def test_windows_of_incidents_are_left_out() -> None:
    spans = [_span(T - 3 * DAY_US, T - 3 * DAY_US + HOUR_US), _span(T - DAY_US, T - DAY_US + MINUTE_US)]
    start = decide_start(T, RULES, spans, 0)
    assert (start.state, start.from_us) == ("fitting", T - 14 * DAY_US)
    assert start.excluded == tuple((span.since_us, span.until_us) for span in spans)


@pytest.mark.parametrize("first_us", [0, T - 12 * DAY_US])
def test_the_samples_cover_ten_times_the_longest_incident(first_us: int) -> None:
    long = _span(T - 5 * DAY_US, T - 5 * DAY_US + 31 * HOUR_US)
    start = decide_start(T, RULES, [long], first_us)
    assert start.state == ("fitting" if not first_us else "skipped")
    assert decide_start(T, RULES, [_span(T - 5 * DAY_US, T - 3 * DAY_US)], 0).state == "skipped"


def test_without_samples_there_is_no_refit() -> None:
    assert decide_start(T, RULES, [], None).state == "skipped"
