"""The acceptance of a habitual key by a person. Pure functions.

Without an acceptance a key is habitual for 28 days, so that a key whose events become unusual slowly is not expected
without end. With one it is habitual as long as its rate remains steady and high. A person accepts a rate that the
stream has learned, so that only a key that is habitual already can be accepted.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from config.time_format import format_time
from monitor.incidents.habitual_keys import MAX_AGE_US, MIN_WINDOWS, KeyHabits, changed_rows
from monitor.incidents.lifecycle import Kind
from monitor.incidents.verbs import VerbRefused
from storage.control.records import Incident
from storage.control.verbs import KeyChange, VerbFacts
from storage.database.tables import FOREVER_US

_NAMED_KEYS = 5
_KINDS = (Kind.SPIKE, Kind.SLOW_RISE)


def list_keys(incident: Incident) -> list[str]:
    """Return the keys that an incident names: suspect keys, habitual keys, and those of its strangest events."""
    return list(dict.fromkeys(_find_keys(incident)))


def _find_keys(incident: Incident) -> Iterator[str]:
    told = [each for each in incident.details.values() if isinstance(each, dict)]
    for details in told:
        yield from (each["key"] for each in details.get("keys") or ())
    for details in told:
        yield from (details.get("habitual") or {}).get("keys", ())
        yield from (each["key"] for each in details.get("strangest") or () if each.get("key") is not None)


def list_acceptable_keys(facts: VerbFacts) -> list[str]:
    """Return the keys of an incident that are habitual and that no person has accepted."""
    habits, at_us = _load_habits(facts)
    valid = habits.valid_at(at_us)
    return [key for key in list_keys(facts.incident) if key in valid and valid[key].accepted_by is None]


def accept_key(facts: VerbFacts, key: str, who: str) -> KeyChange | None:
    """Return the change of the habits by the acceptance of a key; None if a person has accepted it already.

    Raises:
        VerbRefused: The incident does not name the key, or the key is not habitual.
    """
    incident = facts.incident
    if Kind(incident.kind) not in _KINDS:
        raise VerbRefused(
            f"incident {incident.id} is of kind {incident.kind}, which names no keys; "
            f"a key is accepted from an incident of kind {' or '.join(each.value for each in _KINDS)}"
        )
    named = list_keys(incident)
    if key not in named:
        raise VerbRefused(f"incident {incident.id} does not name the key {key!r}; {_describe_named(named)}")
    habits, at_us = _load_habits(facts)
    habit = habits.valid_at(at_us).get(key)
    if habit is None:
        raise VerbRefused(_describe_missing_habit(habits, key))
    if habit.accepted_by is not None:
        return None
    accepted = replace(habit, until_us=FOREVER_US, accepted_by=who, accepted_at_us=at_us, incident_id=incident.id)
    return _to_change(habits, replace(habits, habitual={**habits.habitual, key: accepted}), [key])


def withdraw_keys(facts: VerbFacts) -> KeyChange | None:
    """Return the change of the habits when the acceptance of the keys of an incident is withdrawn; None without any.

    Their habits end 28 days after they began, or with the next window.
    """
    habits, at_us = _load_habits(facts)
    taken = {
        key: replace(
            each,
            until_us=max(each.since_us + MAX_AGE_US, at_us),
            accepted_by=None,
            accepted_at_us=None,
            incident_id=None,
        )
        for key, each in habits.habitual.items()
        if each.accepted_by is not None and each.incident_id == facts.incident.id
    }
    if not taken:
        return None
    return _to_change(habits, replace(habits, habitual={**habits.habitual, **taken}), sorted(taken))


def describe_key_acceptance(key: str, rate: float) -> str:
    """Return a sentence about a key that a person has accepted."""
    return (
        f"{rate:.0%} of the events of key {key} are expected to be outliers, for as long as this rate remains; "
        "a higher rate, or an energy far beyond its own, is still told"
    )


def _load_habits(facts: VerbFacts) -> tuple[KeyHabits, int]:
    """Return the habits after the last judged window, and the end of that window."""
    judged = facts.last_judged_window
    return KeyHabits.from_json(facts.judge_state.get("keys")), 0 if judged is None else judged[1]


def _to_change(before: KeyHabits, after: KeyHabits, keys: list[str]) -> KeyChange:
    effects: dict[str, Any] = {"keys": keys, "rates": [after.habitual[key].rate for key in keys]}
    return KeyChange(state=after.to_json(), rows=changed_rows(before, after), effects=effects)


def _describe_named(named: list[str]) -> str:
    if not named:
        return "it names none"
    more = f" and {len(named) - _NAMED_KEYS:,} more" if len(named) > _NAMED_KEYS else ""
    return f"its keys are {', '.join(repr(each) for each in named[:_NAMED_KEYS])}{more}"


def _describe_missing_habit(habits: KeyHabits, key: str) -> str:
    tracked = habits.tracked.get(key)
    if tracked is None:
        return (
            f"the events of key {key!r} are not usually outliers at present, so that there is no habit to accept; "
            "`outrider accept` without --key accepts the incident"
        )
    return (
        f"key {key!r} is not habitual: it is after {MIN_WINDOWS} windows with events of it, over at least "
        f"threshold.adopt_after, at a steady rate of outliers; it has {int(tracked.windows):,} windows since "
        f"{format_time(tracked.first_us)}, with {tracked.outliers:,.0f} outliers among {tracked.events:,.0f} events; "
        "accept it when `outrider status` lists it"
    )
