"""The settings that the processes of a stream share: this process's file, and the stored settings that it follows."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from threading import Lock

from config.auto import RESOLVED
from config.errors import ConfigError
from config.setting_classes import (
    SHARED_CLASSES,
    Content,
    SharedClass,
    changed_keys,
    hash_shared,
    select_shared,
)
from config.settings import Settings
from config.stream_rules import RuleSchedule
from config.time_format import format_utc
from monitor.daemon.rules import build_rule_schedule, with_shared
from monitor.daemon.settings_decision import FileRole, decide_settings, newest_rows
from monitor.schedule import tick_at_or_after
from storage.control.settings import NewSettings, Replica, SettingRow, SettingsFacts, SettingsStore

log = logging.getLogger(__name__)


class SharedSettings:
    """The shared settings of one stream in one process, which records its heartbeat with them.

    Used by the thread of the stream, its worker and control threads, and the job of the heartbeats.

    Args:
        settings: All settings of the file of this process.
        stream: Name of the stream.
        store: The stored settings.
        owner: Name of this process.
        channels_for: The routes, as in `build_stream_rules`.
    """

    def __init__(
        self,
        settings: Settings,
        stream: str,
        store: SettingsStore,
        *,
        owner: str,
        channels_for: Callable[..., Sequence[str]] | None = None,
    ) -> None:
        self._stream = stream
        self._store = store
        self._owner = owner
        self._version = metadata.version("outrider")
        self._channels_for = channels_for
        self._lock = Lock()
        self._stream_id: int | None = None
        self._told: tuple[str, str | None] | None = None
        self._set_file(settings)

    def _set_file(self, settings: Settings) -> None:
        self._file = self._effective = settings
        self._rows: Sequence[SettingRow] = ()
        self._own = select_shared(settings.streams[self._stream])
        self._hash = hash_shared(self._own)

    def effective(self) -> Settings:
        """Return the settings that this process follows for the latest event times, as last read.

        They are the same object until they change.
        """
        return self._effective

    def _set_rows(self, rows: Sequence[SettingRow]) -> None:
        if rows != self._rows:
            newest = newest_rows(rows)
            contents = {scope: newest[scope].content for scope in SHARED_CLASSES}
            self._effective = with_shared(self._file, self._stream, contents)
            self._rows = rows

    @property
    def file_hash(self) -> str:
        """Return the hash of the settings of the stream in this process's file."""
        return self._hash

    def join(self, stream_id: int) -> None:
        """Record the first heartbeat of this process; propose its file or adopt the stored settings.

        Raises:
            ConfigError: The file cannot become the settings of the stream, or the stored settings are not valid here.
            StorageUnavailable: The database cannot be reached now.
        """
        with self._lock:
            self._stream_id = stream_id
            self._exchange(stream_id)

    @property
    def heartbeat(self) -> tuple[int, Replica] | None:
        """Return the stream and the heartbeat to record; None while this process does not run the stream."""
        with self._lock:
            return None if self._stream_id is None else (self._stream_id, self._replica())

    def decide_again(self) -> None:
        """Decide again whether the file becomes the settings of the stream, while it differs from them.

        Raises:
            ConfigError: As `join`.
            StorageUnavailable: The database cannot be reached now.
        """
        with self._lock:
            if self._stream_id is not None:
                self._exchange(self._stream_id)

    def change_file(self, settings: Settings) -> None:
        """Follow another file, which was reloaded: propose it or adopt the stored settings.

        Raises:
            ConfigError: As `join`.
            StorageUnavailable: The database cannot be reached now.
        """
        with self._lock:
            self._set_file(settings)
            if self._stream_id is not None:
                self._exchange(self._stream_id)

    def leave(self) -> None:
        """Delete the heartbeat of this process, which ends."""
        with self._lock:
            stream_id, self._stream_id = self._stream_id, None
            if stream_id is not None:
                self._store.leave(self._owner, stream_id)

    def read_rules(self) -> RuleSchedule:
        """Read the rules of the stream over event time.

        Raises:
            ConfigError: A stored setting is not valid in this version.
            StorageUnavailable: The database cannot be reached now.
        """
        with self._lock:
            if self._stream_id is not None:
                self._set_rows(self._store.read_rows(self._stream_id))
            return self._build_rules(self._rows)

    def _build_rules(self, rows: Sequence[SettingRow]) -> RuleSchedule:
        return build_rule_schedule(self._file, self._stream, rows, channels_for=self._channels_for)

    def _replica(self) -> Replica:
        return Replica(owner=self._owner, heartbeat_us=0, settings_hash=self._hash, version=self._version)

    def _exchange(self, stream_id: int) -> None:
        role = FileRole.IN_FORCE
        before: Sequence[SettingRow] = ()

        def decide(facts: SettingsFacts) -> NewSettings | None:
            nonlocal role, before
            before = facts.rows
            role, new = decide_settings(facts, self._own, self._hash, _tick_finder(self._file, self._stream))
            return new

        self._set_rows(self._store.exchange(stream_id, self._replica(), decide))
        self._tell(role, before)

    def _tell(self, role: FileRole, before: Sequence[SettingRow]) -> None:
        """Log a change of the settings, and once the settings that differ from the file."""
        told = (self._hash, self._rows[-1].hash)
        if role is FileRole.PROPOSED and before:
            changes = describe_changes(before, self._rows)
            log.info(
                "Stream %s: the settings of this file are now those of the stream: %s.",
                self._stream,
                "; ".join(changes) or "the values are the same",
                extra={"action": "settings", "stream": self._stream},
            )
        if role is FileRole.ADOPTS and told != self._told:
            log.warning(
                "Stream %s: this process follows the stored settings, which another running process has in its file, "
                "and not its own file, which differs in %s.",
                self._stream,
                ", ".join(_differing_keys(self._rows, self._own)) or "no value",
                extra={"action": "settings", "stream": self._stream},
            )
        self._told = told


def review_settings(store: SettingsStore, streams: Iterable[SharedSettings]) -> None:
    """Record the heartbeats of a process in one transaction, and decide again on the files that differ.

    Raises:
        ConfigError: The files of some streams cannot become their settings; the other streams are reviewed.
        StorageUnavailable: The database cannot be reached now.
    """
    own = {found[0]: (each, found[1]) for each in streams if (found := each.heartbeat) is not None}
    problems: list[str] = []
    for stream_id in store.beat({stream_id: replica for stream_id, (_, replica) in own.items()}) if own else ():
        try:
            own[stream_id][0].decide_again()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)


def preview_settings(settings: Settings, stream: str, facts: SettingsFacts) -> list[str]:
    """Return what a start with a file would change now, and from which time on, as lines of text; empty if nothing.

    Args:
        settings: All settings of the file.
        stream: Name of the stream.
        facts: The facts of the stream.

    Raises:
        ConfigError: The file cannot become the settings of the stream.
    """
    own = select_shared(settings.streams[stream])
    role, new = decide_settings(facts, own, hash_shared(own), _tick_finder(settings, stream))
    if role is FileRole.ADOPTS:
        return [
            f"a start follows the stored settings, which a running process has in its file, instead of this file's "
            f"{', '.join(_differing_keys(facts.rows, own)) or 'settings'}"
        ]
    if new is None:
        return []
    rows = facts.rows or [row for row in new.rows if row.revision == 1]
    return [f"a start changes {line}" for line in describe_changes(rows, [*rows, *new.rows])]


def _differing_keys(rows: Sequence[SettingRow], own: Mapping[SharedClass, Content]) -> list[str]:
    newest = newest_rows(rows)
    differing = [key for scope in SHARED_CLASSES for key in changed_keys(newest[scope].content, own[scope])]
    return [key for key in differing if not key.startswith(RESOLVED)]


def _tick_finder(settings: Settings, stream: str) -> Callable[[Sequence[SettingRow], int], int]:
    """Return the function that finds the first tick at or after a time under stored settings."""

    def find(rows: Sequence[SettingRow], time_us: int) -> int:
        return build_rule_schedule(settings, stream, rows).find_tick(time_us, tick_at_or_after)

    return find


def describe_changes(before: Sequence[SettingRow], after: Sequence[SettingRow]) -> list[str]:
    """Return a text for each setting that changes, with the time from which on it is valid."""
    former, lines = newest_rows(before), []
    known = {row.revision for row in before}
    for row in after:
        if row.revision in known:
            continue
        earlier = former[next(scope for scope in SHARED_CLASSES if scope == row.scope)]
        if row.scope == "model":
            valid = "with the next model"
        else:
            valid = "from the start" if row.valid_from_us is None else f"from {format_utc(row.valid_from_us)}"
        lines += [
            f"{key} {_format_value(earlier.content.get(key))} -> {_format_value(row.content.get(key))} {valid}"
            for key in changed_keys(earlier.content, row.content)
            if not key.startswith(RESOLVED)
        ]
    return lines


def _format_value(value: object) -> str:
    return "none" if value is None else str(value)
