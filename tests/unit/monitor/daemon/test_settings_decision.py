"""Which file's settings a stream follows, and from which event time on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from config.errors import ConfigError
from config.setting_classes import Content, SharedClass, hash_shared, select_shared
from config.settings import Settings
from monitor.daemon.rules import build_rule_schedule
from monitor.daemon.settings_decision import (
    FileRole,
    choose_role,
    decide_settings,
    first_common_boundary,
    propose_settings,
)
from monitor.schedule import tick_at_or_after
from storage.control.settings import NewSettings, SettingRow, SettingsFacts

SECOND = 1_000_000
MINUTE = 60 * SECOND
LEAD = 610 * SECOND


def settings(**sections: Any) -> Settings:
    return Settings.model_validate({"streams": {"payments": {"source": {"type": "synthetic"}} | sections}})


def contents(**sections: Any) -> dict[SharedClass, dict[str, Any]]:
    return select_shared(settings(**sections).streams["payments"])


def next_tick(rows: Sequence[SettingRow], time_us: int) -> int:
    return build_rule_schedule(settings(), "payments", rows).find_tick(time_us, tick_at_or_after)


def facts(
    rows: Sequence[SettingRow] = (), *, sealed: float | None = None, size: float = 1, live: str = ""
) -> SettingsFacts:
    """Return facts with times in minutes after 1970."""
    return SettingsFacts(
        window_size_us=round(size * MINUTE),
        lead_us=LEAD,
        sealed_until_us=None if sealed is None else round(sealed * MINUTE),
        rows=rows,
        live_hashes=frozenset(live),
    )


def propose(before: SettingsFacts, own: dict[SharedClass, dict[str, Any]], own_hash: str = "new") -> NewSettings:
    return propose_settings(before, own, own_hash, next_tick)


def valid_from(new: NewSettings) -> dict[str, float | None]:
    """Return the start of each new row in minutes."""
    return {row.scope: None if row.valid_from_us is None else row.valid_from_us / MINUTE for row in new.rows}


FIRST = propose(facts(), contents(), "old").rows


@pytest.mark.parametrize(
    ("active", "seen", "live", "role"),
    [
        ("A", "A", "", FileRole.IN_FORCE),
        (None, "", "", FileRole.PROPOSED),
        ("B", "B", "B", FileRole.PROPOSED),
        ("B", "AB", "B", FileRole.ADOPTS),
        ("B", "AB", "A", FileRole.PROPOSED),
        ("B", "AB", "", FileRole.PROPOSED),
    ],
    ids=["in force", "first", "never seen", "old pod beside a new one", "rollback, other old pod", "rollback, alone"],
)
def test_a_file_is_proposed_if_it_is_new_or_no_running_process_has_the_settings_in_force(
    active: str | None, seen: str, live: str, role: FileRole
) -> None:
    assert choose_role("A", active, seen, live) is role


def test_the_first_settings_are_valid_from_the_start() -> None:
    new = propose(facts(), contents())
    assert valid_from(new) == {"fold": None, "judge": None, "model": None}
    assert {row.revision for row in new.rows} == {1}


@pytest.mark.parametrize(
    ("size", "other", "earliest", "boundary"),
    [(60, 60, 61, 120), (60, 420, 1, 420), (60, 90, 181, 360), (4, 6, 12, 12)],
)
def test_a_change_is_valid_from_a_boundary_of_both_windows(size: int, other: int, earliest: int, boundary: int) -> None:
    assert first_common_boundary(size, other, earliest) == boundary


def test_windows_change_at_the_first_common_boundary_after_the_seal_and_the_lead() -> None:
    new = propose(facts(FIRST, sealed=100), contents(window={"size": "7m"}))
    assert valid_from(new) == {"fold": 112}, "7 * 16, the first multiple of 7 at or after 100 + 10:10"
    assert (new.window_size_us, new.lead_us) == (7 * MINUTE, 14 * MINUTE + 10 * SECOND)
    assert new.rows[0].revision == 2


def test_a_second_change_follows_the_pending_one() -> None:
    rows = [*FIRST, *propose(facts(FIRST, sealed=100), contents(window={"size": "7m"})).rows]
    again = propose(facts(rows, sealed=100), contents(window={"size": "2m"}), "third")
    assert valid_from(again) == {"fold": 112}
    longer = propose(facts(rows, sealed=100), contents(window={"size": "5m"}), "third")
    assert valid_from(longer) == {"fold": 140}


def test_judging_changes_at_a_tick_after_the_open_window() -> None:
    changed = contents(threshold={"percentile": 99})
    assert valid_from(propose(facts(FIRST, sealed=100), changed)) == {"judge": 105}
    assert valid_from(propose(facts(FIRST, sealed=104.5), changed)) == {"judge": 110}
    assert valid_from(propose(facts(FIRST), changed)) == {"judge": None}, "nothing is judged yet"


def test_settings_of_the_model_wait_for_the_next_model() -> None:
    assert valid_from(propose(facts(FIRST, sealed=100), contents(model={"warm_up": 99}))) == {"model": None}


def test_the_values_that_the_first_model_found_are_kept() -> None:
    found = {**FIRST[-1].content, "resolved.event.features": ["a", "b"]}
    rows = [*FIRST, SettingRow(revision=2, scope="model", valid_from_us=None, hash="old", content=found)]
    assert valid_from(propose(facts(rows, sealed=100), contents(timezone="Europe/Berlin"))) == {"judge": 105}
    (row,) = propose(facts(rows, sealed=100), contents(model={"warm_up": 99})).rows
    assert row.content["resolved.event.features"] == ["a", "b"]


def test_a_file_with_equal_values_becomes_the_active_one() -> None:
    (row,) = propose(facts(FIRST, sealed=100), contents()).rows
    assert (row.hash, row.revision) == ("new", 2)


def test_a_stream_of_an_earlier_version_keeps_its_former_windows() -> None:
    new = propose(facts(sealed=100, size=4), contents(window={"size": "1m"}))
    folds = [row for row in new.rows if row.scope == "fold"]
    assert [(row.valid_from_us, row.content["window.size"]) for row in folds] == [(None, "4m"), (112 * MINUTE, "1m")]
    rules = build_rule_schedule(settings(), "payments", new.rows)
    assert [each.size_us // MINUTE for each in rules.newest.windows] == [4, 1]


def test_sizes_without_a_common_boundary_are_refused() -> None:
    rows = propose(facts(), contents(window={"size": "1h1ms"}), "old").rows
    with pytest.raises(ConfigError, match=r"window\.size cannot change"):
        propose(facts(rows, sealed=100), contents(window={"size": "59m59s999ms"}))


def test_a_rolling_change_and_a_rollback_change_the_settings_once_each() -> None:
    """The old file A and the new file B: a new pod, a restart of an old one, a rollback beside a new pod, and alone."""
    files = {name: contents(window={"size": size}) for name, size in (("A", "1m"), ("B", "7m"))}
    rows: list[SettingRow] = []

    def start(name: str, live: str, sealed: float) -> FileRole:
        role, new = decide_settings(facts(rows, sealed=sealed, live=live), files[name], name, next_tick)
        rows.extend([] if new is None else new.rows)
        return role

    assert start("A", "", 0) is FileRole.PROPOSED
    assert start("B", "A", 100) is FileRole.PROPOSED
    assert start("A", "B", 120) is FileRole.ADOPTS
    assert start("A", "AB", 130) is FileRole.ADOPTS
    assert start("A", "A", 200) is FileRole.PROPOSED
    folds = [row.valid_from_us for row in rows if row.scope == "fold"]
    assert folds == [None, 112 * MINUTE, 217 * MINUTE]


def test_the_rules_of_each_event_time_are_those_valid_then() -> None:
    changed = contents(window={"size": "7m"}, threshold={"percentile": 99, "refresh": "10m"})
    rows = [*FIRST, *propose(facts(FIRST, sealed=100), changed).rows]
    rules = build_rule_schedule(settings(), "payments", rows)
    assert rules.revision == 2
    assert [rules.at(minute * MINUTE).percentile for minute in (0, 104, 105, 200)] == [99.5, 99.5, 99, 99]
    assert [rules.at(minute * MINUTE).size_us // MINUTE for minute in (0, 111, 112, 200)] == [1, 1, 7, 7]
    ticks = [rules.find_tick(minute * MINUTE, tick_at_or_after) // MINUTE for minute in (99, 101, 105, 106, 111)]
    assert ticks == [100, 110, 110, 110, 120]


def test_the_hash_of_stored_settings_is_that_of_the_file() -> None:
    own: dict[SharedClass, Content] = dict(contents())
    assert hash_shared(own) == hash_shared({row.scope: row.content for row in FIRST})  # type: ignore[misc]


AUTO = {"window": {"size": "auto"}, "threshold": {"percentile": "auto", "look_back": "auto"}}


def found(new: NewSettings, key: str) -> object:
    """Return the value of the newest row with a key that was found for `auto`."""
    return [row.content.get(f"resolved.{key}") for row in new.rows if key in row.content][-1]


def test_auto_is_unknown_before_the_first_model() -> None:
    new = propose(facts(), contents(**AUTO))
    assert (found(new, "window.size"), new.window_size_us) == (None, MINUTE)


def test_found_sizes_are_kept_by_another_file_that_is_auto() -> None:
    rows = [
        replace(row, content=row.content | {"resolved.window.size": "1h"}) if row.scope == "fold" else row
        for row in propose(facts(), contents(**AUTO), "old").rows
    ]
    new = propose(facts(rows, sealed=100, size=60), contents(**AUTO, alerts={"min_outliers": 9}))
    assert [row.scope for row in new.rows] == ["judge"], "the windows do not change"
    later = propose(facts(rows, sealed=100, size=60), contents(**AUTO | {"window": {"size": "auto", "grace": "20s"}}))
    assert (found(later, "window.size"), later.window_size_us) == ("1h", 60 * MINUTE)


def test_a_change_between_a_number_and_auto_keeps_the_number() -> None:
    fixed = propose(facts(), contents(window={"size": "5m"}, threshold={"percentile": 98}), "old").rows
    auto = propose(facts(fixed, sealed=100, size=5), contents(**AUTO))
    assert (found(auto, "window.size"), found(auto, "threshold.percentile")) == ("5m", 98.0)
    assert auto.window_size_us == 5 * MINUTE
    back = propose(facts([*fixed, *auto.rows], sealed=100, size=5), contents(window={"size": "7m"}), "third")
    assert (found(back, "window.size"), back.window_size_us) == (None, 7 * MINUTE)


def test_a_stream_without_stored_settings_keeps_its_windows_under_auto() -> None:
    new = propose(facts(sealed=100, size=15), contents(**AUTO))
    assert (found(new, "window.size"), new.window_size_us) == ("15m", 15 * MINUTE)
