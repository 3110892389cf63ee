"""When a refit is due, what it leaves out, and how far a stream may be sealed meanwhile. Pure functions.

A refit is due at an event time T, a multiple of `model.refit.every`, and uses samples of windows that end at or before
T. Its model scores as shadow model from the first window at or after T + an hour + lead, and the stream is not sealed
beyond T + an hour before the result is stored: no event that the shadow model has to score is stored earlier. At
T + every the gate decides. So a replay and a back-test fit and decide at the same event times, whatever a fit takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from config.stream_rules import RuleSchedule, StreamRules
from config.time_format import HOUR_US, format_rounded_duration
from consumers.window_schedule import WindowSchedule
from monitor.incidents.lifecycle import Kind
from storage.control.refits import IncidentSpan, RefitRow, RefitState

BLOCKING_KINDS = (Kind.SPIKE.value, Kind.SLOW_RISE.value, Kind.DRIFT.value)
"""Incidents whose windows may be anomalous: no refit starts while one is open, and none uses their windows."""

FIT_TIME_US = HOUR_US
"""Event time after T that a fit may take before the seal of the stream waits for it."""

RETRIES = 24
"""Times in `model.refit.every` at which a refit that waits for the end of an incident is tried."""

MIN_HORIZONS = 10
"""The samples of a refit cover at least this multiple of the longest incident: with less, it would dominate them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitStart:
    """Whether a refit starts, and what it leaves out: `state` is `fitting`, `postponed` or `skipped`."""

    state: RefitState
    reason: str | None = None
    from_us: int = 0
    excluded: tuple[tuple[int, int], ...] = ()


def find_due(schedule: RuleSchedule, last: RefitRow | None, ended_us: int | None) -> int | None:
    """Return the event time of the next refit: the first at or after the end of a window, and after the last refit.

    A refit does not begin before the gate has decided on the model of the last one.

    Args:
        schedule: The rules over event time.
        last: The last refit.
        ended_us: The end of the last judged window if it is after the last refit, otherwise of the first window that is
            not judged; None without one.
    """
    if ended_us is None:
        return None
    first_us = ended_us if last is None else max(ended_us, last.due_us + 1)
    if last is not None and last.state == "shadow" and last.gate_us is not None:
        first_us = max(first_us, last.gate_us)
    for row, (start_us, rules) in enumerate(schedule.rows):
        end_us = schedule.rows[row + 1][0] if row + 1 < len(schedule.rows) else None
        if rules.refit is None or (end_us is not None and first_us >= end_us):
            continue
        step_us = _find_step(rules, last)
        due_us = -(-max(first_us, start_us) // step_us) * step_us
        if end_us is None or due_us < end_us:
            return due_us
    return None


def _find_step(rules: StreamRules, last: RefitRow | None) -> int:
    """Return the distance of the times at which a refit may be due."""
    assert rules.refit is not None, "only rules with refits have a step"
    every_us = rules.refit.every_us
    if last is None or last.state != "postponed":
        return every_us
    return min(max(every_us // RETRIES, rules.size_us), every_us)


def find_seal_limit(
    schedule: RuleSchedule, windows: WindowSchedule, last: RefitRow | None, ended_us: int | None
) -> int | None:
    """Return the time that a stream may not be sealed beyond before the next step of a refit; None without one.

    The arguments are those of `find_due`; a running fit and an undecided gate come first.
    """
    limits = []
    if last is not None and last.state == "fitting":
        limits.append(last.due_us + FIT_TIME_US)
    if last is not None and last.state == "shadow" and last.gate_us is not None:
        limits.append(last.gate_us)
    due_us = find_due(schedule, last, ended_us)
    if due_us is not None:
        limits.append(due_us)
    return windows.floor_us(min(limits)) if limits else None


def decide_start(
    due_us: int, rules: StreamRules, incidents: Sequence[IncidentSpan], first_sample_us: int | None
) -> RefitStart:
    """Decide whether the refit that is due starts.

    Args:
        due_us: The event time T.
        rules: The rules at T, with refits.
        incidents: The incidents of `BLOCKING_KINDS` in the period of the samples.
        first_sample_us: The start of the first window with a sample in the period; None without samples.
    """
    assert rules.refit is not None, "only rules with refits have a due time"
    if first_sample_us is None:
        return RefitStart(state="skipped", reason="no window has a sample")
    open_kinds = sorted({each.kind for each in incidents if each.until_us is None})
    if open_kinds:
        return RefitStart(state="postponed", reason=f"an incident is open ({', '.join(open_kinds)})")
    spans = [(each.since_us, each.until_us) for each in incidents if each.until_us is not None]
    longest_us = max((until_us - since_us for since_us, until_us in spans), default=0)
    covered_us = due_us - max(first_sample_us, due_us - rules.refit.over_us)
    if covered_us < MIN_HORIZONS * longest_us:
        return RefitStart(
            state="skipped",
            reason=f"the samples cover {format_rounded_duration(covered_us)}, less than ten times the longest incident "
            f"({format_rounded_duration(longest_us)})",
        )
    return RefitStart(state="fitting", from_us=due_us - rules.refit.over_us, excluded=tuple(spans))


def find_shadow_start(due_us: int, lead_us: int, windows: WindowSchedule) -> int:
    """Return the start of the first window that the shadow model of a refit scores."""
    return windows.ceil_us(due_us + FIT_TIME_US + lead_us)


def find_gate_time(due_us: int, since_us: int, rules: StreamRules) -> int:
    """Return the event time at which the gate decides: when the next refit is due, but after some windows."""
    assert rules.refit is not None, "only rules with refits have a gate"
    return max(due_us + rules.refit.every_us, since_us + MIN_HORIZONS * rules.size_us)
