"""The incident of kind `stopped`: a stream has failed and starts again after a back-off. Pure functions.

It follows the wall clock. It opens at the first failure, and resolves once the stream has run for long enough, in this
process or in another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from config.stream_rules import StreamRules
from config.time_format import MINUTE_US, format_rough_duration
from monitor.incidents.lifecycle import Finding, Interval, Kind, Severity, escalates, is_repeat_due
from monitor.incidents.rows import update_incident
from storage.control.records import Incident

RUNNING_STATES = frozenset({"running", "warming_up", "ended"})
"""States of a stream in another process that make the failure of this process no failure of the stream."""

_CRITICAL_AFTER_US = MINUTE_US
"""A stream that fails once and runs again within this time is a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStop:
    """A stream that cannot go on in this process.

    Attributes:
        reason: The error in words.
        since_us: Time of the first failure since the stream last ran, on the database's clock.
        failures: The number of failures since then; 0 if the stream has not failed and its topic is missing.
    """

    reason: str
    since_us: int
    failures: int


def update_stopped_incident(
    stop: StreamStop | None,
    open_incidents: Sequence[Incident],
    other_states: frozenset[str],
    rules: StreamRules,
    *,
    now_us: int,
    has_recovered: bool,
) -> list[Incident]:
    """Return the rows that open, repeat or resolve the stream's incident of kind `stopped`; empty without a change.

    Args:
        stop: The failure in this process; None if the stream goes on.
        open_incidents: The open incidents of the stream, of all kinds.
        other_states: The states of the stream in other processes.
        rules: The rules of the stream.
        now_us: The time on the database's clock.
        has_recovered: Whether the stream has run in this process long enough to be considered well.
    """
    stored = next((incident for incident in open_incidents if incident.kind == Kind.STOPPED), None)
    runs_elsewhere = bool(other_states & RUNNING_STATES)
    moment = Interval(start_us=now_us, end_us=now_us)
    if stop is not None and not runs_elsewhere:
        finding = _build_finding(stop, now_us)
        is_due = stored is None or escalates(finding, stored) or is_repeat_due(stored, now_us, rules.repeat_interval_us)
        if not is_due:
            return []
        interval = moment if stored is not None else Interval(start_us=min(stop.since_us, now_us), end_us=now_us)
        return update_incident(Kind.STOPPED, finding, open_incidents, interval, rules, now_us=now_us, resolve_after=1)
    if stored is None or not (runs_elsewhere or has_recovered):
        return []
    rows = update_incident(Kind.STOPPED, None, open_incidents, moment, rules, now_us=now_us, resolve_after=1)
    return [_describe_recovery(row) for row in rows]


def _build_finding(stop: StreamStop, now_us: int) -> Finding:
    retried = "it is started again after a back-off" if stop.failures else "the stream waits for it"
    return Finding(
        kind=Kind.STOPPED,
        severity=Severity.CRITICAL if now_us - stop.since_us >= _CRITICAL_AFTER_US else Severity.WARNING,
        summary=f"the stream is stopped: {stop.reason}; {retried}",
        details={"reason": stop.reason, "failures": stop.failures},
    )


def _describe_recovery(row: Incident) -> Incident:
    if row.transition is None:
        return row
    open_us = row.transition.at_us - row.opened_at_us
    summary = f"the stream runs again, {format_rough_duration(open_us / 1e6)} after the incident was opened"
    return replace(row, transition=replace(row.transition, summary=summary, details={"open_s": open_us / 1e6}))
