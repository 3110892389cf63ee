"""The table of verbs: each verb in each state of an incident, repeated verbs, and refused ones."""

from itertools import product

import pytest

from monitor.incidents.lifecycle import Kind, TransitionType
from monitor.incidents.verbs import VERB_TABLE, VERDICTS, Verb, VerbRefused, VerbState, WindowEffect, find_effect
from storage.control.records import Incident

EXPECTED = {
    ("acknowledge", "open"): ("acknowledged", False, "keep", "acknowledged"),
    ("accept", "open"): ("resolved", False, "count", "resolved"),
    ("accept", "acknowledged"): ("resolved", False, "count", "resolved"),
    ("false_alarm", "open"): ("resolved", False, "count", "resolved"),
    ("false_alarm", "acknowledged"): ("resolved", False, "count", "resolved"),
    ("false_alarm", "resolved"): ("resolved", False, "count", None),
    ("confirm", "open"): ("open", True, "leave_out", None),
    ("confirm", "acknowledged"): ("acknowledged", False, "leave_out", None),
    ("confirm", "resolved"): ("resolved", False, "leave_out", None),
    ("resolve", "open"): ("resolved", False, "keep", "resolved"),
    ("resolve", "acknowledged"): ("resolved", False, "keep", "resolved"),
    ("reopen", "resolved"): ("open", True, "as_fired", "reopened"),
}
"""State afterwards, repeats, windows and message of each allowed cell."""

VERDICTS_BEFORE = (None, "accepted", "false_alarm", "confirmed")


def incident_in(state: VerbState, kind: Kind = Kind.SPIKE) -> Incident:
    return Incident(
        id=7,
        kind=kind.value,
        severity="warning",
        status="resolved" if state is VerbState.RESOLVED else "open",
        window_start_us=0,
        opened_at_us=60,
        last_told_us=60,
        clean_windows=0,
        windows_fired=1,
        summary="an incident",
        details={},
        acknowledged_until_us=1_000 if state is VerbState.ACKNOWLEDGED else None,
    )


def is_repeated(verb: Verb, state: VerbState, verdict: str | None, last_verb: str | None) -> bool:
    return (
        (verb is Verb.ACKNOWLEDGE and state is VerbState.ACKNOWLEDGED)
        or (verb is Verb.RESOLVE and state is VerbState.RESOLVED and last_verb == "resolve")
        or (verb is Verb.REOPEN and state is not VerbState.RESOLVED and last_verb == "reopen")
        or (verb in {Verb.ACCEPT, Verb.FALSE_ALARM, Verb.CONFIRM} and verdict == VERDICTS[verb])
    )


@pytest.mark.parametrize(("verb", "state"), list(product(Verb, VerbState)))
def test_every_cell_of_the_table_is_as_decided(verb: Verb, state: VerbState) -> None:
    for verdict, last_verb in product(VERDICTS_BEFORE, (None, *(each.value for each in Verb))):
        incident = incident_in(state)

        def apply(incident: Incident = incident, verdict: str | None = verdict, last: str | None = last_verb):  # type: ignore[no-untyped-def]
            return find_effect(verb, incident, verdict=verdict, last_verb=last, later_id=None)

        if is_repeated(verb, state, verdict, last_verb):
            assert apply() is None
            continue
        if (verb.value, state.value) not in EXPECTED:
            with pytest.raises(VerbRefused, match=rf"incident 7 is {state} and cannot be .*; possible are "):
                apply()
            continue
        effect = apply()
        assert effect is not None
        found = (effect.state, effect.repeats, effect.windows, effect.message)
        assert found == EXPECTED[verb.value, state.value]


def test_only_an_open_incident_repeats_its_messages() -> None:
    for effect in VERB_TABLE.values():
        assert effect.repeats is (effect.state is VerbState.OPEN)


def test_a_message_tells_each_change_of_the_state_and_nothing_else() -> None:
    for (_, before), effect in VERB_TABLE.items():
        assert (effect.message is None) is (effect.state is before)
        assert effect.message in {None, TransitionType.ACKNOWLEDGED, TransitionType.RESOLVED, TransitionType.REOPENED}


def test_a_verdict_decides_on_the_windows_and_other_verbs_keep_them() -> None:
    for (verb, _), effect in VERB_TABLE.items():
        assert (effect.windows is WindowEffect.KEEP) is (verb in {Verb.ACKNOWLEDGE, Verb.RESOLVE})


@pytest.mark.parametrize("kind", list(Kind))
def test_only_kinds_that_are_found_in_events_can_be_accepted(kind: Kind) -> None:
    incident = incident_in(VerbState.OPEN, kind)
    if kind in {Kind.SPIKE, Kind.SLOW_RISE, Kind.DRIFT, Kind.CALIBRATION}:
        assert find_effect(Verb.ACCEPT, incident, verdict=None, last_verb=None, later_id=None) is not None
        return
    with pytest.raises(VerbRefused, match=f"of kind {kind} and cannot be accepted"):
        find_effect(Verb.ACCEPT, incident, verdict=None, last_verb=None, later_id=None)


def test_an_incident_that_another_one_of_its_kind_has_followed_is_not_reopened() -> None:
    incident = incident_in(VerbState.RESOLVED)
    with pytest.raises(VerbRefused, match="incident 9 of kind spike has followed"):
        find_effect(Verb.REOPEN, incident, verdict=None, last_verb=None, later_id=9)


def test_the_error_of_a_refused_verb_names_the_allowed_ones() -> None:
    with pytest.raises(VerbRefused, match=r"possible are false-alarm, confirm, reopen$"):
        find_effect(Verb.ACKNOWLEDGE, incident_in(VerbState.RESOLVED), verdict=None, last_verb=None, later_id=None)
