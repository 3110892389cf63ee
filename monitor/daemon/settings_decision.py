"""Which file's settings a stream follows, and from which event time on. Pure functions of stored facts.

A process proposes its file when the stream has never had these settings, or when no running process has the settings
that are in force. Otherwise it adopts the settings in force. So a restarted process with the former file does not
change a stream back, and a rollback takes effect when the last process with the newer file has ended.
"""

import enum
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta

from config.auto import AUTO, AUTO_KEYS, RESOLVED
from config.errors import ConfigError
from config.setting_classes import (
    SHARED_CLASSES,
    Content,
    SharedClass,
    changed_keys,
    found_value,
    window_lengths_us,
)
from config.stream_rules import ALWAYS_US
from config.units import format_duration
from storage.control.settings import NewSettings, SettingRow, SettingsFacts

LAST_BOUNDARY_US = 9_183_110_400_000_000
"""The start of the year 2261: later times cannot be stored."""


class FileRole(enum.Enum):
    """The relation of the file of a process to the settings of the stream."""

    IN_FORCE = enum.auto()
    """The settings come from a file with the same shared settings."""
    PROPOSED = enum.auto()
    """The file becomes the settings of the stream."""
    ADOPTS = enum.auto()
    """The process follows the stored settings, which differ from its file."""


def choose_role(own: str, active: str | None, seen: Collection[str], live: Collection[str]) -> FileRole:
    """Return the role of a file.

    Args:
        own: The hash of the file.
        active: The hash of the settings in force; None if the stream has none.
        seen: The hashes of all settings that the stream has had.
        live: The hashes of the files of the other running processes.
    """
    if own == active:
        return FileRole.IN_FORCE
    if own not in seen or active not in live:
        return FileRole.PROPOSED
    return FileRole.ADOPTS


def first_common_boundary(size_us: int, other_size_us: int, earliest_us: int) -> int:
    """Return the first time at or after `earliest_us` that is a boundary of the windows of both sizes."""
    step_us = math.lcm(size_us, other_size_us)
    return -(-earliest_us // step_us) * step_us


def decide_settings(
    facts: SettingsFacts,
    own: Mapping[SharedClass, Content],
    own_hash: str,
    next_tick: Callable[[Sequence[SettingRow], int], int],
) -> tuple[FileRole, NewSettings | None]:
    """Return the role of a file, and the rows to store if it becomes the settings of the stream.

    The arguments are those of `propose_settings`.

    Raises:
        ConfigError: As `propose_settings`.
    """
    role = choose_role(own_hash, facts.active_hash, {row.hash for row in facts.rows}, facts.live_hashes)
    if role is not FileRole.PROPOSED:
        return role, None
    return role, propose_settings(facts, own, own_hash, next_tick)


def propose_settings(
    facts: SettingsFacts,
    own: Mapping[SharedClass, Content],
    own_hash: str,
    next_tick: Callable[[Sequence[SettingRow], int], int],
) -> NewSettings:
    """Return the rows that make a file the settings of a stream.

    A class of settings with equal values has no new row. The first settings of a stream are valid from the start. A
    stream of a version without stored settings has had windows of another size before, which remain as they are.

    Args:
        facts: The facts of the stream.
        own: The shared settings of the file by their classes.
        own_hash: Their hash.
        next_tick: Returns the first tick at or after a time under the settings of some rows.

    Raises:
        ConfigError: The windows of both sizes have no common boundary that can be stored.
    """
    rows = list(facts.rows) or _first_rows(facts, own, own_hash)
    newest = newest_rows(rows)
    wanted = {scope: {**own[scope], **_found_values(newest[scope].content, own[scope])} for scope in SHARED_CLASSES}
    changed: list[SharedClass] = [
        scope for scope in SHARED_CLASSES if changed_keys(newest[scope].content, wanted[scope])
    ]
    if facts.rows and not changed:
        changed = ["model"]  # a file with the same values has a row as well, which makes its hash the active one
    new = [
        SettingRow(
            revision=rows[-1].revision + 1,
            scope=scope,
            valid_from_us=_valid_from(scope, rows, newest[scope], wanted[scope], facts, next_tick),
            hash=own_hash,
            content=wanted[scope],
        )
        for scope in changed
    ]
    new = new if facts.rows else [*rows, *new]
    size_us, lead_us = window_lengths_us(wanted["fold"])
    return NewSettings(rows=new, window_size_us=size_us, lead_us=lead_us)


def _found_values(former: Content, own: Content) -> Content:
    """Return the values of `auto` settings that stay: those found before, and for sizes those in force before."""
    found = {key: value for key, value in former.items() if key.startswith(RESOLVED) and not _is_size(key)}
    for key in AUTO_KEYS:
        if own.get(key) == AUTO and key in former and found_value(former, key) != AUTO:
            found[f"{RESOLVED}{key}"] = found_value(former, key)
    return found


def _is_size(key: str) -> bool:
    return key.removeprefix(RESOLVED) in AUTO_KEYS


def newest_rows(rows: Sequence[SettingRow]) -> dict[SharedClass, SettingRow]:
    """Return the row of each class that is valid for the latest event times."""
    return {scope: last_row([row for row in rows if row.scope == scope]) for scope in SHARED_CLASSES}


def last_row(rows: Sequence[SettingRow], time_us: int = LAST_BOUNDARY_US) -> SettingRow:
    """Return the row of one class that is valid at a time; of equal starts that of the last revision."""
    begun = [row for row in rows if start_of(row) <= time_us]
    return max(begun, key=lambda row: (start_of(row), row.revision))


def start_of(row: SettingRow) -> int:
    """Return the start of the validity of a row in microseconds; that of the first row is before all times."""
    return ALWAYS_US if row.valid_from_us is None else row.valid_from_us


def window_size_us(content: Content) -> int:
    """Return the window size of settings of the class `fold`."""
    return window_lengths_us(content)[0]


def _first_rows(facts: SettingsFacts, own: Mapping[SharedClass, Content], own_hash: str) -> list[SettingRow]:
    contents: dict[SharedClass, Content] = dict(own)
    if facts.window_size_us != window_size_us(own["fold"]):
        former_size = format_duration(timedelta(microseconds=facts.window_size_us))
        contents["fold"] = {**own["fold"], "window.size": former_size}
    return [
        SettingRow(revision=1, scope=scope, valid_from_us=None, hash=own_hash, content=contents[scope])
        for scope in SHARED_CLASSES
    ]


def _valid_from(
    scope: SharedClass,
    rows: Sequence[SettingRow],
    newest: SettingRow,
    content: Content,
    facts: SettingsFacts,
    next_tick: Callable[[Sequence[SettingRow], int], int],
) -> int | None:
    if scope == "model":
        return None
    if scope == "fold":
        before_us, after_us = window_size_us(newest.content), window_size_us(content)
        earliest_us = max((facts.sealed_until_us or 0) + facts.lead_us, start_of(newest))
        boundary_us = first_common_boundary(before_us, after_us, earliest_us)
        if boundary_us > LAST_BOUNDARY_US:
            former, wanted = (found_value(each, "window.size") for each in (newest.content, content))
            raise ConfigError(
                f"window.size cannot change from {former} to {wanted}: windows "
                "of these sizes have no common boundary in the next centuries; choose a size with a common multiple"
            )
        return boundary_us
    if facts.sealed_until_us is None:
        return newest.valid_from_us
    # The rules of the first window that is not sealed are in use: it may open an incident before its end.
    open_window = last_row([row for row in rows if row.scope == "fold"], facts.sealed_until_us)
    size_us = window_size_us(open_window.content)
    return max(next_tick(rows, facts.sealed_until_us + size_us), start_of(newest))
