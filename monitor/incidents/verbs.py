"""The verbs that a person applies to an incident, and the table of their effects in each state. Pure.

`VERB_TABLE` has one cell for each verb and state. A verb that the incident is in the effect of already is repeated: it
changes nothing. A verb without a cell is refused, and the error names the verbs that are allowed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from config.errors import ConfigError
from monitor.incidents.lifecycle import Kind, TransitionType
from storage.control.records import Incident


class Verb(StrEnum):
    """The verbs on an incident."""

    ACKNOWLEDGE = "acknowledge"
    ACCEPT = "accept"
    FALSE_ALARM = "false_alarm"
    CONFIRM = "confirm"
    RESOLVE = "resolve"
    REOPEN = "reopen"


class VerbState(StrEnum):
    """The states of an incident that the table of verbs distinguishes."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class AlarmVerdict(StrEnum):
    """The judgement of a person on an incident."""

    ACCEPTED = "accepted"
    FALSE_ALARM = "false_alarm"
    CONFIRMED = "confirmed"


class WindowEffect(StrEnum):
    """The effect of a verb on the windows of an incident from the next tick on.

    `count`: they are used by the calibration again. `leave_out`: they are not, also after `threshold.adopt_after`.
    `as_fired`: they are treated as without a verdict. `keep`: nothing changes.
    """

    COUNT = "count"
    LEAVE_OUT = "leave_out"
    AS_FIRED = "as_fired"
    KEEP = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbEffect:
    """One cell of the table.

    Attributes:
        state: State of the incident afterwards.
        repeats: Whether messages of a lasting incident are repeated afterwards.
        windows: Effect on the windows of the incident.
        message: Transition that is stored and told; None without a message.
    """

    state: VerbState
    repeats: bool
    windows: WindowEffect
    message: TransitionType | None


class VerbRefused(ConfigError):  # noqa: N818 - names the state, as its siblings do
    """The incident is in a state in which the verb is not allowed."""


VERDICTS: Mapping[Verb, AlarmVerdict | None] = {
    Verb.ACCEPT: AlarmVerdict.ACCEPTED,
    Verb.FALSE_ALARM: AlarmVerdict.FALSE_ALARM,
    Verb.CONFIRM: AlarmVerdict.CONFIRMED,
    Verb.REOPEN: None,
}
"""The verdict that a verb gives, or None if it takes the verdict back; other verbs leave it unchanged."""

ACCEPTABLE_KINDS = (Kind.SPIKE, Kind.SLOW_RISE, Kind.DRIFT, Kind.CALIBRATION)
"""Kinds that can become normal because they were found in the events.

Incidents of silence, stopped streams, stalled partitions, late events, gaps and dead letters cannot be accepted; they
resolve.
"""

WALL_CLOCK_KINDS = frozenset({Kind.SILENCE, Kind.STOPPED, Kind.STALLED})
"""Kinds whose incidents are timed by the wall clock instead of event time."""

_OPEN, _ACKNOWLEDGED, _RESOLVED = VerbState.OPEN, VerbState.ACKNOWLEDGED, VerbState.RESOLVED


def _ends(windows: WindowEffect) -> VerbEffect:
    return VerbEffect(state=_RESOLVED, repeats=False, windows=windows, message=TransitionType.RESOLVED)


def _confirms(state: VerbState) -> VerbEffect:
    return VerbEffect(state=state, repeats=state is _OPEN, windows=WindowEffect.LEAVE_OUT, message=None)


VERB_TABLE: Mapping[tuple[Verb, VerbState], VerbEffect] = {
    (Verb.ACKNOWLEDGE, _OPEN): VerbEffect(
        state=_ACKNOWLEDGED, repeats=False, windows=WindowEffect.KEEP, message=TransitionType.ACKNOWLEDGED
    ),
    (Verb.ACCEPT, _OPEN): _ends(WindowEffect.COUNT),
    (Verb.ACCEPT, _ACKNOWLEDGED): _ends(WindowEffect.COUNT),
    (Verb.FALSE_ALARM, _OPEN): _ends(WindowEffect.COUNT),
    (Verb.FALSE_ALARM, _ACKNOWLEDGED): _ends(WindowEffect.COUNT),
    (Verb.FALSE_ALARM, _RESOLVED): VerbEffect(state=_RESOLVED, repeats=False, windows=WindowEffect.COUNT, message=None),
    (Verb.CONFIRM, _OPEN): _confirms(_OPEN),
    (Verb.CONFIRM, _ACKNOWLEDGED): _confirms(_ACKNOWLEDGED),
    (Verb.CONFIRM, _RESOLVED): _confirms(_RESOLVED),
    (Verb.RESOLVE, _OPEN): _ends(WindowEffect.KEEP),
    (Verb.RESOLVE, _ACKNOWLEDGED): _ends(WindowEffect.KEEP),
    (Verb.REOPEN, _RESOLVED): VerbEffect(
        state=_OPEN, repeats=True, windows=WindowEffect.AS_FIRED, message=TransitionType.REOPENED
    ),
}
"""The effect of each verb in each state in which it is allowed, for an incident that it has not been applied to."""


def state_of(incident: Incident) -> VerbState:
    """Return the state of an incident in the table of verbs."""
    if incident.status != "open":
        return _RESOLVED
    return _OPEN if incident.acknowledged_until_us is None else _ACKNOWLEDGED


def find_effect(
    verb: Verb, incident: Incident, *, verdict: str | None, last_verb: str | None, later_id: int | None
) -> VerbEffect | None:
    """Return the effect of a verb on an incident; None if the verb is repeated and changes nothing.

    Args:
        verb: The verb.
        incident: The incident.
        verdict: The verdict on the incident.
        last_verb: The last verb that was applied to the incident.
        later_id: A later incident of the kind in the stream, or None.

    Raises:
        VerbRefused: The verb is not allowed in this state, or for this kind.
    """
    state = state_of(incident)
    if _is_repeated(verb, state, verdict, last_verb):
        return None
    effect = VERB_TABLE.get((verb, state))
    if effect is None:
        raise VerbRefused(
            f"incident {incident.id} is {state} and cannot be {_PARTICIPLES[verb]}; "
            f"possible are {', '.join(allowed_verbs(incident.kind, state))}"
        )
    if verb is Verb.ACCEPT and Kind(incident.kind) not in ACCEPTABLE_KINDS:
        kinds = ", ".join(kind.value for kind in ACCEPTABLE_KINDS)
        raise VerbRefused(
            f"incident {incident.id} is of kind {incident.kind} and cannot be accepted: it resolves without it; "
            f"incidents of kind {kinds} can be accepted"
        )
    if verb is Verb.REOPEN and later_id is not None:
        raise VerbRefused(
            f"incident {incident.id} cannot be reopened: incident {later_id} of kind {incident.kind} has followed in "
            f"its stream; act on incident {later_id}"
        )
    return effect


def allowed_verbs(kind: str, state: VerbState) -> list[str]:
    """Return the names of the verbs that are allowed in a state, as the command line writes them."""
    return [
        verb.value.replace("_", "-")
        for verb in Verb
        if (verb, state) in VERB_TABLE and (verb is not Verb.ACCEPT or Kind(kind) in ACCEPTABLE_KINDS)
    ]


def _is_repeated(verb: Verb, state: VerbState, verdict: str | None, last_verb: str | None) -> bool:
    if verb is Verb.ACKNOWLEDGE:
        return state is _ACKNOWLEDGED
    if verb is Verb.REOPEN:
        return state is not _RESOLVED and last_verb == verb
    if verb is Verb.RESOLVE:
        return state is _RESOLVED and last_verb == verb
    return verdict == VERDICTS[verb]


_PARTICIPLES: Mapping[Verb, str] = {
    Verb.ACKNOWLEDGE: "acknowledged",
    Verb.ACCEPT: "accepted",
    Verb.FALSE_ALARM: "marked as a false alarm",
    Verb.CONFIRM: "confirmed",
    Verb.RESOLVE: "resolved",
    Verb.REOPEN: "reopened",
}
