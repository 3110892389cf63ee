"""The partitions assigned to this consumer, with their next offsets and pauses."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Literal

from consumers.batch import Partition

AssignmentChange = tuple[Literal["assigned", "revoked"], frozenset[Partition]]


class Assignment:
    """The assigned partitions, and the next offset to deliver of each partition with a position.

    A partition delivers if it is assigned, has a position set by `seek` since the assignment, and is not
    paused by the caller. All other partitions are paused in the client. The pauses are therefore a function of
    this state, not of a history of pause and resume calls.
    """

    def __init__(self) -> None:
        self._assigned: set[Partition] = set()
        self._next: dict[Partition, int] = {}
        self._paused: frozenset[Partition] = frozenset()

    @property
    def partitions(self) -> frozenset[Partition]:
        """The assigned partitions."""
        return frozenset(self._assigned)

    @property
    def positioned(self) -> frozenset[Partition]:
        """The assigned partitions with a position, paused or not."""
        return frozenset(self._next)

    @property
    def delivering(self) -> frozenset[Partition]:
        """The partitions that currently deliver."""
        return self.positioned - self._paused

    def next_offset(self, partition: Partition) -> int | None:
        """Return the offset up to which all records were delivered, or None for a partition without a position."""
        return self._next.get(partition)

    def apply_changes(self, changes: Iterable[AssignmentChange]) -> tuple[frozenset[Partition], frozenset[Partition]]:
        """Apply changes in order. Return the partitions (assigned, revoked) by all of them together.

        A partition that was revoked and assigned again is in both sets, because it is a new assignment for the caller.
        """
        assigned: set[Partition] = set()
        revoked: set[Partition] = set()
        for kind, partitions in changes:
            for partition in partitions:
                self._next.pop(partition, None)
            if kind == "assigned":
                self._assigned |= partitions
                assigned |= partitions
            else:
                revoked |= partitions & self._assigned
                self._assigned -= partitions
                assigned -= partitions
        return frozenset(assigned), frozenset(revoked)

    def seek(self, partition: Partition, next_offset: int) -> None:
        """Set the position of a partition, which starts its delivery.

        Raises:
            KeyError: The partition is not assigned.
        """
        if partition not in self._assigned:
            raise KeyError(partition)
        self._next[partition] = next_offset

    def advance(self, partition: Partition, next_offset: int) -> None:
        """Record that all records below an offset were delivered."""
        self._next[partition] = next_offset

    def stop(self, partitions: AbstractSet[Partition]) -> None:
        """Remove the positions of partitions, which stops their delivery until the next `seek`."""
        for partition in partitions:
            self._next.pop(partition, None)

    def set_paused(self, partitions: AbstractSet[Partition]) -> None:
        """Pause exactly these partitions."""
        self._paused = frozenset(partitions)
