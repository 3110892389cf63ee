"""The rows that a verb of a person writes, from the facts of the incident. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from config.errors import ConfigError
from config.stream_rules import StreamRules
from config.time_format import DAY_US
from monitor.incidents.accept import plan_acceptance
from monitor.incidents.accepted_keys import accept_key, withdraw_keys
from monitor.incidents.lifecycle import Interval, Kind, TransitionType, end_incident
from monitor.incidents.rows import find_reopen_until, route_transition
from monitor.incidents.verbs import VERDICTS, WALL_CLOCK_KINDS, Verb, VerbRefused, WindowEffect, find_effect
from storage.control.acceptance import AcceptedReference
from storage.control.records import Incident, Transition
from storage.control.verbs import ACCEPT_KEY, VerbFacts, VerbPlan

ACKNOWLEDGED_FOR_US = DAY_US
"""Event time after which an acknowledgement expires, with a reminder."""

MAX_NOTE_CHARACTERS = 2_000
MAX_NAME_CHARACTERS = 200

_ENDING_TEXTS: Mapping[Verb, str] = {
    Verb.ACCEPT: "accepted: a person says that this is normal now",
    Verb.FALSE_ALARM: "false alarm: a person says that nothing was wrong",
    Verb.RESOLVE: "resolved by a person",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbRequest:
    """A verb, the name of the person, and an optional note. With `key`, `accept` is about the habit of that key."""

    verb: Verb
    who: str
    note: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if not self.who.strip() or len(self.who) > MAX_NAME_CHARACTERS:
            raise ConfigError(f"the name of a person must have 1 to {MAX_NAME_CHARACTERS} characters")
        if self.note is not None and len(self.note) > MAX_NOTE_CHARACTERS:
            raise ConfigError(f"a note may have at most {MAX_NOTE_CHARACTERS:,} characters")
        if self.key is not None and self.verb is not Verb.ACCEPT:
            raise ConfigError(f"a key can be accepted only; {self.verb.value} acts on the whole incident")


def plan_verb(
    facts: VerbFacts, request: VerbRequest, rules: StreamRules, reference: AcceptedReference | None, *, now_us: int
) -> VerbPlan | None:
    """Return the rows to write when a person applies a verb; None if the verb is repeated and changes nothing.

    Args:
        facts: The incident, and the state of its stream.
        request: The verb.
        rules: The rules of the stream.
        reference: The new reference of the threshold. Only for an accepted incident of kind calibration.
        now_us: Time on the database's clock.

    Raises:
        VerbRefused: The verb is not allowed in the state of the incident, or not yet.
    """
    incident, verb = facts.incident, request.verb
    if request.key is not None:
        return _plan_key(facts, request, request.key, now_us)
    effect = find_effect(verb, incident, verdict=facts.verdict, last_verb=facts.last_verb, later_id=facts.later_id)
    if effect is None:
        return None
    at = _find_moment(facts, now_us)
    acceptance = None
    if effect.message is TransitionType.RESOLVED:
        _require_ended_window(facts)
        row = _end(incident, request, at, rules)
        if verb is Verb.ACCEPT:
            acceptance = plan_acceptance(incident, at.end_us, rules, reference)
    elif effect.message is TransitionType.ACKNOWLEDGED:
        row = _acknowledge(incident, request, at)
    elif effect.message is TransitionType.REOPENED:
        row = _reopen(incident, request, at)
    else:
        row = replace(incident, transition=None, reopen_until_us=_reopen_until(incident, verb))
    if row.transition is not None:
        # Each verb is an own transition, also if several follow without a judged window between them.
        row = route_transition(replace(row, transition=replace(row.transition, window_start_us=now_us)), rules, now_us)
    return VerbPlan(
        verb=verb.value,
        who=request.who,
        note=request.note,
        now_us=now_us,
        incident_row=row,
        verdict=_verdict_after(facts, verb),
        windows=None if effect.windows is WindowEffect.KEEP else effect.windows is WindowEffect.COUNT,
        changes_calibration=effect.windows is not WindowEffect.KEEP,
        acceptance=acceptance,
        keys=withdraw_keys(facts) if effect.windows in (WindowEffect.LEAVE_OUT, WindowEffect.AS_FIRED) else None,
    )


def _plan_key(facts: VerbFacts, request: VerbRequest, key: str, now_us: int) -> VerbPlan | None:
    """Return the rows of an accepted key: the incident stays as it is."""
    change = accept_key(facts, key, request.who)
    if change is None:
        return None
    return VerbPlan(
        verb=ACCEPT_KEY,
        who=request.who,
        note=request.note,
        now_us=now_us,
        incident_row=replace(facts.incident, transition=None),
        verdict=facts.verdict,
        windows=None,
        changes_calibration=False,
        keys=change,
    )


def _find_moment(facts: VerbFacts, now_us: int) -> Interval:
    """Return the time of a verb: the last judged window, for kinds that follow the wall clock the present."""
    judged = facts.last_judged_window
    if Kind(facts.incident.kind) in WALL_CLOCK_KINDS:
        return Interval(start_us=now_us, end_us=now_us)
    opened_us = facts.incident.opened_at_us
    if judged is None or judged[1] < opened_us:
        return Interval(start_us=facts.incident.window_start_us, end_us=opened_us)
    return Interval(start_us=judged[0], end_us=judged[1])


def _require_ended_window(facts: VerbFacts) -> None:
    """Raise if the window that opened a spike early is not judged yet: its judgement would open the spike again."""
    incident, judged = facts.incident, facts.last_judged_window
    opened_us = incident.details.get("reopened", {}).get("reopened_at_us", incident.opened_at_us)
    if incident.kind == Kind.SPIKE and (judged is None or judged[1] < opened_us):
        raise VerbRefused(
            f"the window that opened incident {incident.id} is still open: try again when the window has ended"
        )


def _end(incident: Incident, request: VerbRequest, at: Interval, rules: StreamRules) -> Incident:
    ended = end_incident(
        incident,
        at,
        summary=_with_note(_ENDING_TEXTS[request.verb], request),
        details=_details(request, windows_fired=incident.windows_fired),
        clean_windows=incident.clean_windows,
    )
    reopens = request.verb is Verb.RESOLVE
    return replace(ended, reopen_until_us=find_reopen_until(at.end_us, rules) if reopens else None)


def _acknowledge(incident: Incident, request: VerbRequest, at: Interval) -> Incident:
    until_us = at.end_us + ACKNOWLEDGED_FOR_US
    transition = Transition(
        type=TransitionType.ACKNOWLEDGED.value,
        severity=incident.severity,
        window_start_us=at.start_us,
        at_us=at.end_us,
        summary=_with_note(f"acknowledged by {request.who}", request),
        details=_details(request, until_us=until_us),
    )
    return replace(incident, acknowledged_until_us=until_us, transition=transition)


def _reopen(incident: Incident, request: VerbRequest, at: Interval) -> Incident:
    times = incident.details.get("reopened", {}).get("times", 0) + 1
    details = _details(request, reopened_at_us=at.end_us, times=times)
    transition = Transition(
        type=TransitionType.REOPENED.value,
        severity=incident.severity,
        window_start_us=at.start_us,
        at_us=at.end_us,
        summary=_with_note(f"reopened by {request.who}: {incident.summary}", request),
        details=details,
    )
    return replace(
        incident,
        status="open",
        resolved_at_us=None,
        reopen_until_us=None,
        clean_windows=0,
        last_told_us=at.end_us,
        details={**incident.details, "reopened": details},
        transition=transition,
    )


def _reopen_until(incident: Incident, verb: Verb) -> int | None:
    """Return until when findings open the incident again: what is a false alarm is not continued."""
    return None if verb is Verb.FALSE_ALARM else incident.reopen_until_us


def _verdict_after(facts: VerbFacts, verb: Verb) -> str | None:
    if verb not in VERDICTS:
        return facts.verdict
    verdict = VERDICTS[verb]
    return None if verdict is None else verdict.value


def _details(request: VerbRequest, **values: Any) -> dict[str, Any]:
    reason = "accepted" if request.verb is Verb.ACCEPT else request.verb.value
    return {"reason": reason, "who": request.who, "note": request.note, **values}


def _with_note(text: str, request: VerbRequest) -> str:
    return text if request.note is None else f"{text}; {request.note}"
