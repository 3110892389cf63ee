"""Detection of silence: no events arrive for longer than a stream's pauses explain. Pure functions.

`silence_after: auto` derives the allowed silence from the pauses between the stream's windows with events:

* The usual pause is the k-th longest pause of the look-back, where k is one more than two per day: two pauses per day,
  such as a night and a break, may be exceptional. The allowed silence is three times the usual pause, and at least
  `idle_timeout`.
* A longer pause at the same local time one day or one week earlier explains a silence until the end of that pause plus
  an eighth of its length. A stream that pauses every night therefore opens one incident in its first night only, also
  when the clocks of its time zone change.
* If at least three pauses of the look-back were longer than allowed and unexplained, such pauses are regular for the
  stream. The allowed silence is then at least three times the third longest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from config.local_time import shift_local_days
from config.stream_rules import StreamRules
from config.time_format import DAY_US, WEEK_US, format_utc
from monitor.incidents.lifecycle import Finding, Interval, Kind, Severity, escalates, is_repeat_due
from monitor.incidents.rows import update_incident
from storage.control.records import Incident
from storage.control.silence import ArrivalFacts, Pause, PauseHistory

_MIN_PAUSES = 20
_FACTOR = 3
_MIN_UNEXPLAINED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceRule:
    """Parameters of the detection of silence for one stream.

    Attributes:
        after_us: The configured allowed silence; None for `auto`.
        idle_timeout_us: Lower bound of the allowed silence under `auto`.
        size_us: Window size.
        max_event_age_us: Under `auto`, silence is detected only if the last event was at most this much older than its
            arrival. A backlog of older events is not tested.
        timezone: IANA name of the time zone whose times of day are compared.
    """

    after_us: int | None
    idle_timeout_us: int
    size_us: int
    max_event_age_us: int
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedSilence:
    """Allowed silence under `auto`.

    `usual_us` is the length allowed at any time of the day. `allowed_until_us` is the event time until which the
    current silence is explained.
    """

    usual_us: int
    allowed_until_us: int


def estimate_allowed_silence(history: PauseHistory, since_us: int, rule: SilenceRule) -> AllowedSilence | None:
    """Return the allowed length of a silence that began at event time `since_us`; None with too few pauses."""
    usual_us = usual_allowed_silence_us(history, rule)
    if usual_us is None:
        return None
    allowed_until_us = explained_until_us(since_us, usual_us, history.pauses, rule.timezone)
    return AllowedSilence(usual_us=usual_us, allowed_until_us=allowed_until_us)


def usual_allowed_silence_us(history: PauseHistory, rule: SilenceRule) -> int | None:
    """Return the silence that is allowed at any time of the day; None with fewer than `_MIN_PAUSES` pauses."""
    n_pauses = history.windows - 1
    if n_pauses < _MIN_PAUSES:
        return None
    length_us = history.end_us - history.start_us
    days = -(-length_us // DAY_US)
    rank = min(1 + 2 * days, n_pauses // 10)
    longest = sorted((pause.end_us - pause.start_us for pause in history.pauses), reverse=True)
    # Between adjacent windows the pause is at most one window long.
    usual_us = longest[rank - 1] if rank <= len(longest) else rule.size_us
    allowed_us = max(rule.idle_timeout_us, _FACTOR * usual_us)
    unexplained_us = _unexplained_pauses_us(history, allowed_us, rule.timezone)
    if len(unexplained_us) >= _MIN_UNEXPLAINED:
        allowed_us = max(allowed_us, _FACTOR * unexplained_us[_MIN_UNEXPLAINED - 1])
    return allowed_us


def _unexplained_pauses_us(history: PauseHistory, allowed_us: int, timezone: str) -> list[int]:
    """Return the lengths of the pauses that were longer than allowed and unexplained, in descending order.

    Pauses of the first week, or of the first half of a shorter look-back, are left out: no earlier pauses are known
    that could explain them.
    """
    from_us = history.start_us + min(WEEK_US, (history.end_us - history.start_us) // 2)
    long = [pause for pause in history.pauses if pause.end_us - pause.start_us > allowed_us]
    return sorted(
        (
            pause.end_us - pause.start_us
            for number, pause in enumerate(long)
            if pause.start_us >= from_us
            and pause.end_us > explained_until_us(pause.start_us, allowed_us, long[:number], timezone)
        ),
        reverse=True,
    )


def explained_until_us(since_us: int, allowed_us: int, pauses: Sequence[Pause], timezone: str = "UTC") -> int:
    """Return the event time until which a silence since `since_us` is explained.

    It is explained for `allowed_us`, and longer if a pause one day or one week earlier, by the local time of
    `timezone`, contains its start.
    """
    until_us = since_us + allowed_us
    for pause in pauses:
        length_us = pause.end_us - pause.start_us
        if length_us <= allowed_us:
            continue
        margin_us = max(allowed_us, length_us // 8)
        for days in (1, 7):
            start_us, _ = shift_local_days(pause.start_us, days, timezone)
            _, end_us = shift_local_days(pause.end_us, days, timezone)
            if start_us - margin_us <= since_us < end_us:
                until_us = max(until_us, end_us + margin_us)
    return until_us


def find_silence(
    facts: ArrivalFacts, allowed: AllowedSilence | None, rule: SilenceRule, *, watched_since_us: int
) -> Finding | None:
    """Return the finding that a stream is silent or cannot be read; None if it is neither.

    If every source was recently read to its end, the producers are silent. Otherwise the input could not be read.
    That silence counts from the start of the watch at the earliest: a process that has just started has not read yet.

    Args:
        facts: Arrival of the stream's events, on the database's clock.
        allowed: Allowed silence under `auto`; None if it cannot be estimated.
        rule: Parameters of the detection.
        watched_since_us: Time at which this process started to watch the stream.
    """
    if facts.ended or facts.last_arrival_us is None or facts.last_event_us is None:
        return None
    # The arrival counts, not the event time: the silence after a delayed event starts when the event arrives.
    silent_us = facts.now_us - facts.last_arrival_us
    allowed_us = rule.after_us
    if allowed_us is None:
        if allowed is None or facts.last_arrival_us - facts.last_event_us > rule.max_event_age_us:
            return None
        allowed_us = max(allowed.usual_us, allowed.allowed_until_us - facts.last_event_us)
    if silent_us <= allowed_us:
        return None
    if facts.at_end:
        return _silence_finding(facts, silent_us, allowed_us, rule, allowed)
    if facts.now_us - watched_since_us <= allowed_us:
        return None
    return _unreadable_finding(facts, silent_us, allowed_us, rule, allowed)


def _silence_finding(
    facts: ArrivalFacts, silent_us: int, allowed_us: int, rule: SilenceRule, allowed: AllowedSilence | None
) -> Finding:
    basis = "from the usual pauses of the stream" if rule.after_us is None else "alerts.silence_after"
    summary = (
        f"no event for {_format_duration(silent_us)}, the last one at {_format_last_event(facts)}; "
        f"the allowed silence is {_format_duration(allowed_us)} ({basis}); the source was read to its end"
    )
    details = _details(facts, silent_us, allowed_us, rule, allowed)
    return Finding(kind=Kind.SILENCE, severity=Severity.WARNING, summary=summary, details=details)


def _unreadable_finding(
    facts: ArrivalFacts, silent_us: int, allowed_us: int, rule: SilenceRule, allowed: AllowedSilence | None
) -> Finding:
    summary = (
        f"no record could be read for {_format_duration(silent_us)}, the last event at {_format_last_event(facts)}; "
        f"the end of the source was not reached, so events may be waiting: check that the broker can be reached"
    )
    details = _details(facts, silent_us, allowed_us, rule, allowed)
    return Finding(kind=Kind.SILENCE, severity=Severity.CRITICAL, summary=summary, details=details)


def _format_last_event(facts: ArrivalFacts) -> str:
    return format_utc((facts.last_event_us or 0) // 1_000_000 * 1_000_000)


def _details(
    facts: ArrivalFacts, silent_us: int, allowed_us: int, rule: SilenceRule, allowed: AllowedSilence | None
) -> dict[str, Any]:
    assert facts.last_event_us is not None, "silence is only found after the first event"
    assert facts.last_arrival_us is not None, "silence is only found after the first event"
    return {
        "last_event": format_utc(facts.last_event_us),
        "last_arrival": format_utc(facts.last_arrival_us),
        "silent_s": silent_us / 1e6,
        "allowed_s": allowed_us / 1e6,
        "usual_s": None if allowed is None else allowed.usual_us / 1e6,
        "silence_after": "auto" if rule.after_us is None else rule.after_us / 1e6,
        "at_end": facts.at_end,
    }


def update_silence_incident(
    finding: Finding | None,
    open_incidents: Sequence[Incident],
    facts: ArrivalFacts,
    rules: StreamRules,
) -> list[Incident]:
    """Return the rows that open, escalate, repeat or resolve the stream's silence incident; empty without a change.

    The incident follows the wall clock. It is resolved by the first arrival after its opening.
    """
    stored = next((incident for incident in open_incidents if incident.kind == Kind.SILENCE), None)
    now_us = facts.now_us
    moment = Interval(start_us=now_us, end_us=now_us)
    if stored is None:
        since_us = now_us if facts.last_event_us is None else facts.last_event_us
        opened = Interval(start_us=since_us, end_us=now_us)
        return update_incident(Kind.SILENCE, finding, open_incidents, opened, rules, now_us=now_us, resolve_after=1)
    if finding is None:
        if facts.last_arrival_us is None or facts.last_arrival_us <= stored.opened_at_us:
            return []
        rows = update_incident(Kind.SILENCE, None, open_incidents, moment, rules, now_us=now_us, resolve_after=1)
        return [_describe_arrival(row, facts) for row in rows]
    if escalates(finding, stored) or is_repeat_due(stored, now_us, rules.repeat_interval_us):
        return update_incident(Kind.SILENCE, finding, open_incidents, moment, rules, now_us=now_us, resolve_after=1)
    return []


def _describe_arrival(row: Incident, facts: ArrivalFacts) -> Incident:
    if row.transition is None:
        return row
    silent_us = (facts.last_arrival_us or 0) - row.opened_at_us
    summary = f"events arrive again, {_format_duration(silent_us)} after the incident was opened"
    return replace(row, transition=replace(row.transition, summary=summary, details={"open_s": silent_us / 1e6}))


def _format_duration(span_us: int) -> str:
    """Format a duration in its largest unit of which it has at least two, such as `2.5 h`."""
    seconds = span_us / 1e6
    for unit_s, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.1f} {name}"
    return f"{seconds:.0f} s"
