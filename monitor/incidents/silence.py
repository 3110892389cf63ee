"""Silence: when it is that no events come. Pure: the stream's own pauses and a clock in, a finding out.

`silence_after: auto` goes by the pauses between the stream's windows with events:

* A usual pause is the k-th longest of the look-back, k being one more than two for each day: so many may be special,
  a night and a break. Silence is three times a usual pause, at least `idle_timeout`.
* A longer pause at the same time of the day before, or of the week before, explains a silence until it is over and an
  eighth of its length has passed: a stream that sleeps at night is called silent once, and never again for it.
* Where three pauses of the look-back were a surprise all the same, they are the stream's way, and silence is three
  times the third longest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.time_format import format_utc
from monitor.incidents.lifecycle import Finding, Interval, Kind, Severity
from monitor.incidents.rows import IncidentPolicy, update_incident
from storage.control.records import IncidentRow, StoredIncident
from storage.control.silence import ArrivalFacts, Pause, PauseHistory

_DAY_US = 86_400_000_000
_WEEK_US = 7 * _DAY_US
_MIN_PAUSES = 20
_FACTOR = 3
_MIN_UNEXPLAINED = 3
_SEVERITY_RANK = {Severity.WARNING: 0, Severity.CRITICAL: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceRule:
    """What a stream's silence is judged by; `after_us` is None for `auto`.

    `live_us` is how much older than its arrival an event may be for `auto` to take the stream as live.
    """

    after_us: int | None
    idle_timeout_us: int
    size_us: int
    max_event_age_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedSilence:
    """How long a stream may be silent: `usual_us` at any time, and until `alarm_us`, event time, this time."""

    usual_us: int
    allowed_until_us: int


def estimate_allowed_silence(history: PauseHistory, since_us: int, rule: SilenceRule) -> AllowedSilence | None:
    """Return how long a silence that began at `since_us` (event time) may last; None when too little is known."""
    usual_us = usual_allowed_silence_us(history, rule)
    if usual_us is None:
        return None
    return AllowedSilence(usual_us=usual_us, allowed_until_us=explained_until_us(since_us, usual_us, history.pauses))


def usual_allowed_silence_us(history: PauseHistory, rule: SilenceRule) -> int | None:
    """Return the silence that is too long at any time of the day, or None when too few pauses are known."""
    known = history.windows - 1
    if known < _MIN_PAUSES:
        return None
    length_us = history.end_us - history.start_us
    days = -(-length_us // _DAY_US)
    special = min(1 + 2 * days, known // 10)
    longest = sorted((pause.end_us - pause.start_us for pause in history.pauses), reverse=True)
    # Windows that follow each other leave a pause of a window's length at most.
    usual_us = longest[special - 1] if special <= len(longest) else rule.size_us
    limit_us = max(rule.idle_timeout_us, _FACTOR * usual_us)
    surprises = _unexplained_pauses_us(history, limit_us)
    if len(surprises) >= _MIN_UNEXPLAINED:
        limit_us = max(limit_us, _FACTOR * surprises[_MIN_UNEXPLAINED - 1])
    return limit_us


def _unexplained_pauses_us(history: PauseHistory, limit_us: int) -> list[int]:
    """Return the lengths of the pauses that the rule would have taken for silence, the longest first.

    Those of the first week, or of the first half of a shorter look-back, have nothing before them that could explain
    them, and are left out.
    """
    from_us = history.start_us + min(_WEEK_US, (history.end_us - history.start_us) // 2)
    long = [pause for pause in history.pauses if pause.end_us - pause.start_us > limit_us]
    return sorted(
        (
            pause.end_us - pause.start_us
            for number, pause in enumerate(long)
            if pause.start_us >= from_us and pause.end_us > explained_until_us(pause.start_us, limit_us, long[:number])
        ),
        reverse=True,
    )


def explained_until_us(since_us: int, limit_us: int, pauses: Sequence[Pause]) -> int:
    """Return until when a silence is explained: by the limit, or by a pause a day or a week before."""
    until_us = since_us + limit_us
    for pause in pauses:
        length_us = pause.end_us - pause.start_us
        margin_us = max(limit_us, length_us // 8)
        for later_us in (_DAY_US, _WEEK_US):
            begin_us, end_us = pause.start_us + later_us, pause.end_us + later_us
            if length_us > limit_us and begin_us - margin_us <= since_us < end_us:
                until_us = max(until_us, end_us + margin_us)
    return until_us


def find_silence(
    facts: ArrivalFacts, limit: AllowedSilence | None, rule: SilenceRule, *, watched_since_us: int
) -> Finding | None:
    """Return the finding that no events come, or that nobody can tell whether they do.

    Where every source has just been seen at its end, the silence is the producers'. Where none of them could be asked
    it is ours: then it counts from when this process began to look, since one that has just started has not read yet.

    Args:
        facts: What has arrived, on the database's clock.
        limit: What `auto` says; None where it says nothing.
        rule: The settings.
        watched_since_us: When this process began to look.
    """
    if facts.ended or facts.last_arrival_us is None or facts.last_event_us is None:
        return None
    # An event that came late began the silence late: by event time it is no longer than by the clock.
    silent_us = facts.now_us - facts.last_arrival_us
    allowed_us = rule.after_us
    if allowed_us is None:
        if limit is None or facts.last_arrival_us - facts.last_event_us > rule.max_event_age_us:
            return None
        allowed_us = max(limit.usual_us, limit.allowed_until_us - facts.last_event_us)
    if silent_us <= allowed_us:
        return None
    if facts.at_end:
        return _silence_finding(facts, silent_us, allowed_us, rule, limit)
    if facts.now_us - watched_since_us <= allowed_us:
        return None
    return _unreadable_finding(facts, silent_us, allowed_us, rule, limit)


def _silence_finding(
    facts: ArrivalFacts, silent_us: int, allowed_us: int, rule: SilenceRule, limit: AllowedSilence | None
) -> Finding:
    auto = "as its own pauses have it" if rule.after_us is None else "as silence_after says"
    summary = (
        f"no event has come for {_format_duration(silent_us)}, the last one of {_format_last_event(facts)}; more than {_format_duration(allowed_us)} is "
        f"silence, {auto}; the input was read to its end"
    )
    details = _details(facts, silent_us, allowed_us, rule, limit)
    return Finding(kind=Kind.SILENCE, severity=Severity.WARNING, summary=summary, details=details)


def _unreadable_finding(
    facts: ArrivalFacts, silent_us: int, allowed_us: int, rule: SilenceRule, limit: AllowedSilence | None
) -> Finding:
    summary = (
        f"nothing could be read for {_format_duration(silent_us)}, the last event being of {_format_last_event(facts)}: the source has not "
        f"said that it has no more, so that events may be waiting; look whether the broker can be reached"
    )
    details = _details(facts, silent_us, allowed_us, rule, limit)
    return Finding(kind=Kind.SILENCE, severity=Severity.CRITICAL, summary=summary, details=details)


def _format_last_event(facts: ArrivalFacts) -> str:
    return format_utc((facts.last_event_us or 0) // 1_000_000 * 1_000_000)


def _details(
    facts: ArrivalFacts, silent_us: int, allowed_us: int, rule: SilenceRule, limit: AllowedSilence | None
) -> dict[str, Any]:
    assert facts.last_event_us is not None, "there is no silence before the first event"
    assert facts.last_arrival_us is not None, "there is no silence before the first event"
    return {
        "last_event": format_utc(facts.last_event_us),
        "last_arrival": format_utc(facts.last_arrival_us),
        "silent_s": silent_us / 1e6,
        "allowed_s": allowed_us / 1e6,
        "usual_s": None if limit is None else limit.usual_us / 1e6,
        "silence_after": "auto" if rule.after_us is None else rule.after_us / 1e6,
        "at_end": facts.at_end,
    }


def update_silence_incident(
    finding: Finding | None,
    open_incidents: Sequence[StoredIncident],
    facts: ArrivalFacts,
    rule: IncidentPolicy,
) -> list[IncidentRow]:
    """Return what becomes of the stream's incident of silence; nothing while there is nothing to tell.

    It lives on the wall clock, and ends with the first arrival after it opened.
    """
    stored = next((incident for incident in open_incidents if incident.kind == Kind.SILENCE), None)
    at_once = replace(rule, lifecycle=replace(rule.lifecycle, resolve_after=1))
    now_us = facts.now_us
    moment = Interval(start_us=now_us, end_us=now_us)
    if stored is None:
        since_us = now_us if facts.last_event_us is None else facts.last_event_us
        opened = Interval(start_us=since_us, end_us=now_us)
        return update_incident(Kind.SILENCE, finding, open_incidents, opened, at_once, now_us=now_us)
    if finding is None:
        if facts.last_arrival_us is None or facts.last_arrival_us <= stored.opened_at_us:
            return []
        rows = update_incident(Kind.SILENCE, None, open_incidents, moment, at_once, now_us=now_us)
        return [_describe_arrival(row, facts) for row in rows]
    louder = _SEVERITY_RANK[finding.severity] > _SEVERITY_RANK[Severity(stored.severity)]
    if louder or now_us - stored.last_told_us >= rule.lifecycle.repeat_interval_us:
        return update_incident(Kind.SILENCE, finding, open_incidents, moment, at_once, now_us=now_us)
    return []


def _describe_arrival(row: IncidentRow, facts: ArrivalFacts) -> IncidentRow:
    if row.transition is None:
        return row
    silent_us = (facts.last_arrival_us or 0) - row.opened_at_us
    summary = f"events come again, {_format_duration(silent_us)} after this was opened"
    return replace(row, transition=replace(row.transition, summary=summary, details={"open_s": silent_us / 1e6}))


def _format_duration(span_us: int) -> str:
    """Return a length of time for reading."""
    seconds = span_us / 1e6
    for unit_s, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {name}"
    return f"{seconds:.0f} s"
