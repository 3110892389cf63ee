"""The rules of a stream over event time, read again after a change of the stream's settings."""

from __future__ import annotations

from collections.abc import Callable

from config.stream_rules import RuleSchedule, StreamRules


class RuleReader:
    """The rules of a stream as last read; used by one thread.

    Args:
        schedule: The rules over event time.
        read: Reads the rules again; None if they never change.
    """

    def __init__(self, schedule: RuleSchedule, read: Callable[[], RuleSchedule] | None = None) -> None:
        self.schedule = schedule
        self._read = read

    @staticmethod
    def constant(rules: StreamRules) -> RuleReader:
        """Return a reader of rules that never change."""
        return RuleReader(RuleSchedule.constant(rules))

    def is_current(self, revision: int) -> bool:
        """Return whether the rules are those of a revision of the settings, or of a later one."""
        return revision <= self.schedule.revision or self._read is None

    def at(self, time_us: int) -> StreamRules:
        """Return the rules that are valid at an event time, as last read."""
        return self.schedule.at(time_us)

    def follow(self, revision: int) -> RuleSchedule:
        """Return the rules of a revision of the settings, which facts of the database name, or of a later one.

        Raises:
            StorageUnavailable: The database cannot be reached now.
        """
        if self._read is not None and not self.is_current(revision):
            self.schedule = self._read()
        return self.schedule
