"""The word of a person on a habitual key: it lasts as long as its rate, can be taken back, and is refused otherwise."""

import json
from dataclasses import replace
from typing import Any

import pytest

from config.errors import ConfigError
from config.time_format import DAY_US, HOUR_US
from monitor.incidents.accepted_keys import accept_key, list_acceptable_keys, list_keys, withdraw_keys
from monitor.incidents.habitual_keys import KeyCounts, KeyHabits, changed_rows, expect_habitual, learn_habits
from monitor.incidents.lifecycle import Kind
from monitor.incidents.verb_plan import VerbRequest, plan_verb
from monitor.incidents.verbs import Verb, VerbRefused, VerbState
from monitor.server.pages.incident_decide import build_key_choices
from storage.control.records import HabitualKeyRow
from storage.control.verbs import Basis, VerbFacts
from storage.database.tables import FOREVER_US
from tests.rules import make_rules
from tests.unit.monitor.incidents.test_verbs import incident_in

T0 = 1_767_225_600_000_000
RATE = 0.01
DETAILS = {
    "opened": {
        "keys": [{"key": "suspect", "events": 4, "outliers": 4}],
        "habitual": {"keys": ["HA"]},
        "strangest": [{"key": "HA"}, {"key": None}, {"key": "other"}],
    }
}


def learn(
    counts: KeyCounts, windows: int, habits: KeyHabits | None = None, start: int = 0
) -> tuple[KeyHabits, list[HabitualKeyRow]]:
    """Learn hourly windows that are alike, with the state stored as JSON in between; return the changed rows."""
    habits, rows = habits or KeyHabits(), []
    for i in range(start, start + windows):
        before = KeyHabits.from_json(json.loads(json.dumps(habits.to_json())))
        end_us = T0 + (i + 1) * HOUR_US
        habits = learn_habits(
            before, counts, window_start_us=end_us - HOUR_US, window_end_us=end_us, clean_rate=RATE, adopt_after_us=0
        )
        rows += changed_rows(before, habits, end_us)
    return habits, rows


def make_facts(habits: KeyHabits, windows: int, state: VerbState = VerbState.RESOLVED, **changed: Any) -> VerbFacts:
    end_us = T0 + windows * HOUR_US
    return VerbFacts(
        incident=replace(incident_in(state), details=DETAILS, **changed),
        stream_id=1,
        stream="flights",
        verdict=None,
        acknowledged_by=None,
        last_verb=None,
        later_id=None,
        last_judged_window=(end_us - HOUR_US, end_us),
        basis=Basis(tick_us=end_us, revision=0),
        judge_state=json.loads(json.dumps({"keys": habits.to_json()})),
    )


def accepted(windows: int = 40) -> KeyHabits:
    habits, _ = learn({"HA": (2, 2)}, windows)
    change = accept_key(make_facts(habits, windows), "HA", "mira")
    assert change is not None
    return KeyHabits.from_json(json.loads(json.dumps(change.state)))


def test_accepted_key_stays_habitual_beyond_28_days_while_its_rate_remains() -> None:
    days = 60 * 24
    _, rows = learn({"HA": (2, 2)}, days)
    assert len({row.since_us for row in rows}) > 1, "without a word its windows count anew after 28 days"
    habits, rows = learn({"HA": (2, 2)}, days, accepted(), 40)
    assert rows == []
    habit = habits.valid_at(T0 + (40 + days) * HOUR_US)["HA"]
    assert (habit.accepted_by, habit.accepted_at_us, habit.incident_id) == ("mira", T0 + 40 * HOUR_US, 7)
    assert habit.since_us == T0 + 30 * HOUR_US


def test_accepted_key_that_doubles_is_seen_as_a_doubling() -> None:
    habitual = accepted().valid_at(T0 + 50 * HOUR_US)
    assert expect_habitual(RATE, 100, habitual, {"HA": (20, 20)}) * 100 == pytest.approx(80 * RATE + 20, rel=0.02)
    half, _ = learn({"HA": (20, 8)}, 40)
    change = accept_key(make_facts(half, 40), "HA", "mira")
    assert change is not None
    habitual = KeyHabits.from_json(change.state).valid_at(T0 + 40 * HOUR_US)
    expected = expect_habitual(RATE, 100, habitual, {"HA": (20, 16)}) * 100
    assert expected == pytest.approx(80 * RATE + 8, rel=0.02), "the word raises no rate: 16 outliers are twice the mean"


@pytest.mark.parametrize("counts", [{"HA": (20, 0)}, {"HA": (2, 0)}])
def test_accepted_habit_ends_when_its_rate_falls_and_the_word_with_it(counts: KeyCounts) -> None:
    habits, rows = learn(counts, 400, accepted(), 40)
    assert habits.habitual == {}
    (row,) = rows
    assert (row.key, row.accepted_by, row.since_us) == ("HA", "mira", T0 + 30 * HOUR_US)
    assert row.until_us < FOREVER_US
    again, rows = learn({"HA": (2, 2)}, 800, habits, 440)
    assert again.habitual["HA"].accepted_by is None
    assert rows[0].until_us == rows[0].since_us + 28 * DAY_US


def test_accepted_habit_ends_when_its_rate_jumps() -> None:
    half, _ = learn({"HA": (20, 8)}, 40)
    change = accept_key(make_facts(half, 40), "HA", "mira")
    assert change is not None
    habits, rows = KeyHabits.from_json(change.state), []
    for i in range(40, 60):
        habits, changed = learn({"HA": (20, 20 if i % 2 else 0)}, 1, habits, i)
        rows += changed
    assert [(row.accepted_by, row.until_us < T0 + 60 * HOUR_US) for row in rows] == [("mira", True)]


def test_verb_writes_the_row_and_leaves_the_incident_as_it_is() -> None:
    habits, _ = learn({"HA": (2, 2)}, 40)
    for state in VerbState:
        facts = make_facts(habits, 40, state)
        plan = plan_verb(facts, VerbRequest(verb=Verb.ACCEPT, who="mira", key="HA"), make_rules(), None, now_us=5)
        assert plan is not None
        assert plan.keys is not None
        assert (plan.verb, plan.verdict, plan.windows, plan.changes_calibration) == ("accept_key", None, None, False)
        assert plan.incident_row == facts.incident
        (row,) = plan.keys.rows
        assert (row.key, row.until_us, row.accepted_by) == ("HA", FOREVER_US, "mira")
        assert row.accepted_at_us == T0 + 40 * HOUR_US, "event time, so that a replay gives the same"


def test_accepted_key_is_accepted_once() -> None:
    facts = make_facts(accepted(), 40)
    assert accept_key(facts, "HA", "noor") is None
    assert list_acceptable_keys(facts) == []
    habitual = make_facts(learn({"HA": (2, 2)}, 40)[0], 40)
    assert list_acceptable_keys(habitual) == ["HA"]
    assert [(each.verb, each.key, each.label) for each in build_key_choices(habitual)] == [
        ("accept", "HA", "Key HA is normal")
    ], "a button on the page"


@pytest.mark.parametrize("verb", [Verb.CONFIRM, Verb.REOPEN])
def test_word_is_taken_back_with_the_verdict_that_the_incident_is_true(verb: Verb) -> None:
    facts = make_facts(accepted(), 40)
    plan = plan_verb(facts, VerbRequest(verb=verb, who="noor"), make_rules(), None, now_us=5)
    assert plan is not None
    assert plan.keys is not None
    (row,) = plan.keys.rows
    assert (row.until_us, row.accepted_by) == (row.since_us + 28 * DAY_US, None)
    late = make_facts(accepted(), 50 * 24)
    change = withdraw_keys(late)
    assert change is not None
    assert change.rows[0].until_us == T0 + 50 * 24 * HOUR_US, "it ends with the next window"
    assert withdraw_keys(make_facts(accepted(), 40, id=8)) is None, "accepted from another incident"


def test_refusals_say_what_to_do() -> None:
    habits, _ = learn({"HA": (2, 2)}, 12)
    facts = make_facts(habits, 12)
    with pytest.raises(
        VerbRefused, match=r"key 'HA' is not habitual: it is after 30 windows .*; it has 12 windows since"
    ):
        accept_key(facts, "HA", "mira")
    with pytest.raises(VerbRefused, match="key 'other' are not usually outliers at present"):
        accept_key(facts, "other", "mira")
    with pytest.raises(
        VerbRefused, match="incident 7 does not name the key 'X'; its keys are 'suspect', 'HA', 'other'"
    ):
        accept_key(facts, "X", "mira")
    with pytest.raises(VerbRefused, match="incident 7 is of kind drift, which names no keys"):
        accept_key(make_facts(habits, 12, kind=Kind.DRIFT.value), "HA", "mira")
    with pytest.raises(ConfigError, match="a key can be accepted only"):
        VerbRequest(verb=Verb.CONFIRM, who="mira", key="HA")


def test_keys_of_an_incident_are_those_that_it_names() -> None:
    assert list_keys(make_facts(KeyHabits(), 1).incident) == ["suspect", "HA", "other"]
    assert list_keys(incident_in(VerbState.OPEN)) == []


def test_habits_of_an_earlier_version_are_read() -> None:
    stored = {"tracked": {"HA": [30, 30, 30, 30, T0, T0]}, "habitual": {"HA": [1.0, 30, T0, T0 + DAY_US]}}
    habits = KeyHabits.from_json(stored)
    assert (habits.tracked["HA"].measured, habits.habitual["HA"].accepted_by) == (0, None)
